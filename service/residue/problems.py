"""What can be wrong with a search that somebody asks for."""

from service.platform.problem import InvalidRequest, TooManyRequests


class CommitmentMismatch(InvalidRequest):
    """Salt and subjects that are not those of the erasure."""

    code = "commitment_mismatch"
    title = "The salt and the subjects do not open the erasure's commitment"
    next_step = "Send the salt of the 202 and exactly the subjects of the request: no other search is run."


class SearchUnderWay(TooManyRequests):
    """One search at a time."""

    code = "search_under_way"
    title = "Another search is under way"
    next_step = "Wait as long as the header Retry-After says and send it again; searches run one at a time."
