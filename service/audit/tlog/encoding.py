"""Base64 as RFC 4648 has it (section 4), in its one form: what else Python would take is refused."""

import base64


def strict_base64(text: str) -> bytes:
    """The bytes of a text; raises ValueError for other characters, padding too much, and bits behind the last byte.

    Two texts of one value would make two documents of one proof, and readers in other languages refuse the second.
    """
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        msg = "It is not the base64 of anything."
        raise ValueError(msg)
    return data
