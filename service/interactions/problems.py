"""What can be wrong with recording interactions."""

from service.platform.problem import Conflict


class AllSuppressed(Conflict):
    """Everything that was sent is covered by an erasure."""

    code = "suppressed"
    title = "These interactions are covered by an erasure"
    next_step = "Nothing was stored. Once it is `erased`, and the person wants it again: POST /v1/consents."
