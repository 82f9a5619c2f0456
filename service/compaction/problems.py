"""What can be wrong with a compaction, or with a question about one."""

from service.platform.problem import Conflict, NotFound


class CompactionNotFound(NotFound):
    """No compaction has this id."""

    code = "compaction_not_found"
    title = "There is no such compaction"
    next_step = "GET /v1/models/compactions lists them."


class CompactionNotCancellable(Conflict):
    """It is over, or what serves comes from its base already."""

    code = "compaction_not_cancellable"
    title = "This compaction cannot be cancelled any more"
    next_step = "Nothing was changed. GET it to see how far it is; from the step `moving` on it goes to its end."


class CompactionRefused(Conflict):
    """No base that it trained was as good as the one in use."""

    code = "compaction_refused"
    title = "The new base was refused"
    next_step = (
        "The old base serves on, and nothing was erased. `facts.attempts` tells why each was refused; see whether the "
        "data changed, or train with other settings (`expunge train`), then start a compaction: "
        "POST /v1/models/compactions."
    )


class CompactionCrashed(Conflict):
    """Its training ended before it was done, time after time."""

    code = "compaction_crashed"
    title = "The training of the new base ended before it was done, several times"
    next_step = (
        "The old base serves on, and nothing was erased. The compactor's log says how it ended; for want of memory "
        "give it more (EXPUNGE_COMPACTION_MEMORY_BYTES), then start a compaction: POST /v1/models/compactions."
    )


class ResiduePresent(Conflict):
    """The search after a purge found something of what is to be erased."""

    code = "residue_present"
    title = "Something of what is to be erased is left in a store"
    next_step = (
        "Nothing is called erased before it is gone. It is purged again by itself, after pauses that grow; "
        "`facts.residue` names the places: end what keeps them (a long transaction, a replica, a copy of a file)."
    )


class TrainingUnderway(Conflict):
    """Only one training, pre-training or compaction runs in a home at a time."""

    code = "training_underway"
    title = "A training, a pre-training or a compaction is under way already"
    next_step = "Wait for its end, or stop it: `expunge status` shows a compaction."
