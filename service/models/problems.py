"""What can be wrong with a question about models."""

from service.platform.problem import Conflict, NotFound, Problem


class VersionUnknown(NotFound):
    """No version of this number is on record."""

    code = "version_unknown"
    title = "There is no such version"
    next_step = "GET /v1/models/versions lists them."


class AliasUnset(NotFound):
    """The alias points nowhere yet."""

    code = "alias_unset"
    title = "This alias points at no version yet"
    next_step = "Train and publish a version with `expunge train`."


class VersionNotReady(Conflict):
    """Only versions that passed the gate, and are neither retired nor purged, may serve."""

    code = "version_not_ready"
    title = "This version may not serve"
    next_step = "Choose a version whose status is `ready`; GET /v1/models/versions lists them."


class VersionFenced(Conflict):
    """The version holds interactions that were accepted for erasure and are not forgotten in it."""

    code = "version_fenced"
    title = "This version holds what was accepted for erasure"
    next_step = "Choose a version that has forgotten it; what is waiting will be forgotten in the next one."


class VersionDamaged(Conflict):
    """The files of the version do not verify."""

    code = "version_damaged"
    title = "The files of this version are missing or damaged"
    next_step = "Restore them from a copy, or choose another version."


class VersionInUse(Conflict):
    """An alias names the version."""

    code = "version_in_use"
    title = "This version is in use"
    next_step = "Nothing was purged. Another version must be live, and another base in use, first."


class VersionTaken(Conflict):
    """The number is on record with another content."""

    code = "version_taken"
    title = "This version number is taken"
    next_step = "Publish under the next free number."


class NoBase(Conflict):
    """There is no base: to pre-train an encoder for, to compact."""

    code = "no_base"
    title = "There is no trained base yet"
    next_step = "Run `expunge train` first."


class NothingToLearn(Conflict):
    """Too few interactions are recorded to train a model."""

    code = "nothing_to_learn"
    title = "There is too little to learn from"
    next_step = "Import or record interactions first: at least two users, two items and a few interactions of each."


class FarWorse(Conflict):
    """A base that ranks far worse than the one in use."""

    code = "far_worse_than_base"
    title = "The model ranks far worse than the base in use"
    next_step = "Nothing was published. Train it otherwise; `--accept-worse` says that it is meant so."


class TrainingOvertaken(Conflict):
    """Another training was published while this one was, or a compaction took later data for one."""

    code = "training_overtaken"
    title = "Another training was published meanwhile"
    next_step = "Nothing was changed by this one. Run it again if it is still wanted."


class AliasMoved(Problem):
    """If-Match names another version than the one the alias points at."""

    code = "alias_moved"
    status = 412
    title = "The alias points elsewhere by now"
    next_step = "GET the alias and decide anew."
