"""Opaque cursors: a position in a list, signed so that only positions given out here come back."""

import base64
import binascii
import hmac
from typing import Annotated

from fastapi import Query

from service.platform.identity import Identity
from service.platform.problem import FieldError, InvalidCursor

_POSITION_BYTES = 8
_SIGNATURE_BYTES = 16

Cursor = Annotated[
    str | None,
    Query(
        max_length=200,
        description="From the `next` of the page before.",
        json_schema_extra={"pattern": "^[A-Za-z0-9_-]{32}$"},
    ),
]
"""The parameter of a list's route."""


def write_cursor(identity: Identity, listing: str, position: int) -> str:
    """The cursor of a position (a sequence number or a surrogate key, 64 bits) in the named kind of list."""
    payload = position.to_bytes(_POSITION_BYTES, signed=True)
    return base64.urlsafe_b64encode(payload + _signature(identity, listing, payload)).decode()


def read_cursor(identity: Identity, listing: str, cursor: str) -> int:
    """The position of a cursor; raises InvalidCursor for one of another list, another service or nobody."""
    try:
        data = base64.b64decode(cursor, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refusal() from error
    payload, signature = data[:_POSITION_BYTES], data[_POSITION_BYTES:]
    if not hmac.compare_digest(signature, _signature(identity, listing, payload)):
        raise _refusal()
    position = int.from_bytes(payload, signed=True)
    if write_cursor(identity, listing, position) != cursor:  # the same with other letters: nobody gave that out
        raise _refusal()
    return position


def _refusal() -> InvalidCursor:
    return InvalidCursor(errors=[FieldError("query/cursor", "It was not given out by this service for this list.")])


def _signature(identity: Identity, listing: str, payload: bytes) -> bytes:
    key = identity.derive(f"cursor {listing}")
    return hmac.digest(key, payload, "sha256")[:_SIGNATURE_BYTES]
