"""What can be wrong with a consent, beyond what is wrong with any request."""

from service.platform.problem import Conflict, InvalidRequest


class ErasureOpen(Conflict):
    """An erasure that is not erased covers it."""

    code = "erasure_open"
    title = "An erasure that is not finished covers this"
    next_step = (
        "Nothing was changed. Send the consent again once the erasure is `erased`, or cancel the erasure while it is "
        "accepted. What was refused stays hidden."
    )


class NoConsent(InvalidRequest):
    """A consent that names nothing."""

    code = "no_consent"
    title = "The consent names nothing"
    next_step = "Name at least one interaction, user or item."
