"""What keeps a purge from beginning."""

from service.platform.problem import Conflict


class LiveNotFromBase(Conflict):
    """The version that answers, or the base in use, is not the one that was trained without what is to be purged."""

    code = "live_not_from_base"
    title = "The version that answers does not come from the new base"
    next_step = (
        "Nothing was purged. It goes on once the worker has moved there; `expunge status` says what it waits for."
    )
