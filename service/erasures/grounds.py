"""What an extension and a decision may rest on: codes that stand in the log, never anybody's words."""

from enum import StrEnum


class DecisionOutcome(StrEnum):
    """What becomes of an erasure that is not carried out whole."""

    REFUSED = "refused"
    PARTIAL = "partial"


class RefusalGround(StrEnum):
    """GDPR, Art. 17(3): for what the data are necessary."""

    EXPRESSION = "17(3)(a)"
    LEGAL_OBLIGATION = "17(3)(b)"
    PUBLIC_HEALTH = "17(3)(c)"
    ARCHIVING = "17(3)(d)"
    LEGAL_CLAIMS = "17(3)(e)"


class ExtensionGround(StrEnum):
    """GDPR, Art. 12(3): why more time is necessary."""

    COMPLEXITY = "complexity"
    NUMBER = "number_of_requests"
