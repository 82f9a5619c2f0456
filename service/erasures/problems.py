"""What can be wrong with an erasure, beyond what is wrong with any request."""

from service.platform.obstacles import APPROVAL
from service.platform.problem import Conflict, InvalidRequest, NotFound, ScopeMissing, TooManyRequests


class ErasureNotFound(NotFound):
    """No erasure has this id."""

    code = "erasure_not_found"
    title = "There is no erasure with this id"
    next_step = "Use the id, or the header Location, of the answer that accepted it."


class NoTargets(InvalidRequest):
    """An erasure that names nothing."""

    code = "no_targets"
    title = "The erasure names nothing to erase"
    next_step = "Name at least one interaction, user or item."


class TooManyTargets(InvalidRequest):
    """More targets than EXPUNGE_TARGETS_MAX."""

    code = "too_many_targets"
    title = "The erasure names too many targets"
    next_step = "Split it into several erasures."


class ModeUnavailable(InvalidRequest):
    """The live model has no influence encoder for this mode."""

    code = "mode_unavailable"
    title = "The live model does not offer this mode"
    next_step = "Ask for mode `forget`, or pre-train an encoder for the other mode."


class IdempotencyKeyReused(InvalidRequest):
    """An Idempotency-Key came again with another erasure."""

    code = "idempotency_key_reused"
    title = "This Idempotency-Key belongs to another erasure"
    next_step = "Use a new key for a new erasure, and the same body for a retry."


class NotCancellable(Conflict):
    """The erasure is past cancelling."""

    code = "erasure_not_cancellable"
    title = "Only an accepted erasure can be cancelled"
    next_step = "Read the erasure: its status says how far it is."


class ApprovalAwaited(Conflict):
    """It covers more than EXPUNGE_APPROVAL_SHARE of all recorded interactions."""

    code = APPROVAL
    title = "An erasure as large as this waits for a second key's approval"
    next_step = (
        "It is hidden already. A key with scope `officer` or `admin` of another label approves it with POST "
        "/v1/erasures/{id}/approval, or refuses it with DELETE there."
    )


class ApprovalNotAwaited(Conflict):
    """The erasure waits for nobody's approval."""

    code = "approval_not_awaited"
    title = "This erasure does not wait for approval"
    next_step = "Read the erasure: its status says how far it is."


class ApprovedByAsker(ScopeMissing):
    """Who asked for an erasure does not approve it."""

    code = "approved_by_asker"
    title = "Who asked for an erasure cannot approve it"
    next_step = "Use a key of another label; `expunge keys create --scope officer --label` makes one."


class BacklogFull(TooManyRequests):
    """EXPUNGE_BACKLOG_MAX erasures wait to be forgotten."""

    code = "backlog_full"
    title = "Too many erasures wait to be forgotten"
    next_step = "Nothing was stored. Wait as long as the header Retry-After says and send it again."


class GateRefused(Conflict):
    """What the model became without these interactions did not pass the gate, however it was fine-tuned."""

    code = "gate_refused"
    title = "The gate refused every version without these interactions"
    next_step = "They stay hidden. The audit entry has the gate's figures; train a new base, which never learns them."


class UnlearningFailed(Conflict):
    """The unlearning step fails with this erasure, and without it does not."""

    code = "unlearning_failed"
    title = "The unlearning step fails with this erasure"
    next_step = "They stay hidden. The worker's log has the error; train a new base, which never learns them."


class UnlearningCrashed(Conflict):
    """The worker died in the unlearning step each time that it came to this erasure."""

    code = "unlearning_crashed"
    title = "The worker died each time that it came to this erasure"
    next_step = "They stay hidden. Look for a lack of memory; train a new base, which never learns them."


class BeingErased(Conflict):
    """The rows of the erasure are purged: nothing of it can be kept."""

    code = "being_erased"
    title = "The erasure is being erased, and what it covers is gone"
    next_step = "Nothing was changed. It will be `erased` soon: a decision or a hold would have nothing to keep."


class ErasureOver(Conflict):
    """The erasure is erased or cancelled, or it was decided."""

    code = "erasure_over"
    title = "The erasure is over"
    next_step = "Nothing was changed. Read the erasure; a new one can be asked for."


class ExtensionUsed(Conflict):
    """A deadline is extended once."""

    code = "extension_used"
    title = "The deadline was extended before"
    next_step = "Nothing was changed. The law allows one extension; keep the deadline, or decide."


class ExtensionTooLate(Conflict):
    """An extension is told within one month of receipt (Art. 12(3))."""

    code = "extension_too_late"
    title = "The month within which a deadline can be extended is over"
    next_step = "Nothing was changed. Finish the erasure, or decide."


class DecisionNotPossible(Conflict):
    """`refused` of what is forgotten, or `partial` of what is not."""

    code = "decision_not_possible"
    title = "The erasure cannot be decided like this in its state"
    next_step = "What is accepted or needs attention can be `refused`; of what is forgotten the rest can, as `partial`."


class UnderLegalHold(Conflict):
    """The erasure is under legal hold and set aside: nothing of it is forgotten or erased meanwhile."""

    code = "legal_hold"
    title = "The erasure is under legal hold"
    next_step = 'It stays hidden. Lift the hold with PATCH {"legal_hold": false} when its reason is gone.'
