"""The append-only log: one entry a transition, each hashed as a leaf (RFC 9162) of canonical JSON (RFC 8785).

An entry holds counts, modes, figures and commitments: never an outside id, never a digest of a person.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import NoneType
from typing import Any

from sqlalchemy import Connection

from service.audit import repository
from service.audit.repository import AuditRow
from service.platform.canonical import canonical_json
from service.platform.clock import rfc3339
from service.platform.cursor import read_cursor, write_cursor
from service.platform.dependencies import Services

LISTING = "audit"
_LEAF = b"\x00"


@dataclass(frozen=True)
class AuditEvent:
    """What happened: `event` is noun.verb, `body` a mapping of plain values without anything personal."""

    event: str
    body: Mapping[str, Any] = field(default_factory=dict)
    erasure_id: str | None = None
    version: int | None = None


def reserve(connection: Connection, count: int = 1) -> int:
    """Take the next `count` sequence numbers (from 1, gapless) and return the first of them.

    Locks the log's head until the transaction ends, so that transitions happen one after another. Call it before
    touching any other row, even with count 0: units that lock in the same order never wait for each other in a circle.
    """
    return repository.grow(connection, count) - count + 1


def lock_shared(connection: Connection) -> int:
    """Keep transitions from happening until the transaction ends, and return the log's size.

    For units that only must not overlap a transition; any number of them may hold at once.
    """
    return repository.lock_shared(connection)


def size(connection: Connection) -> int:
    """The number of entries: the sequence number of the latest."""
    return repository.size(connection)


def write(connection: Connection, first: int, entries: Sequence[AuditEvent], at: datetime) -> None:
    """Store entries under sequence numbers that were reserved in this transaction."""
    repository.insert_entries(connection, [_row(seq, entry, at) for seq, entry in enumerate(entries, first)])


def append(
    connection: Connection,
    event: str,
    *,
    erasure_id: str | None = None,
    version: int | None = None,
    body: Mapping[str, Any],
) -> int:
    """Append one entry, now, and return its sequence number; it exists when the transaction commits."""
    seq = reserve(connection)
    write(connection, seq, [AuditEvent(event, body, erasure_id, version)], datetime.now(UTC))
    return seq


def leaf_hash(canonical_bytes: bytes) -> bytes:
    """The leaf hash of RFC 9162: SHA-256(0x00 || bytes)."""
    return hashlib.sha256(_LEAF + canonical_bytes).digest()


async def page(
    services: Services, cursor: str | None, limit: int, erasure_id: str | None
) -> tuple[list[AuditRow], str | None]:
    """A page of entries, the oldest first, and the cursor of the next one, None at the end."""
    listing = f"{LISTING} {erasure_id}"
    after = 0 if cursor is None else read_cursor(services.identity, listing, cursor)
    rows = await services.database.run_read(
        lambda connection: repository.page(connection, after, limit + 1, erasure_id)
    )
    more = len(rows) > limit
    return rows[:limit], write_cursor(services.identity, listing, rows[limit - 1].seq) if more else None


def _row(seq: int, entry: AuditEvent, at: datetime) -> dict[str, Any]:
    document = {
        "at": rfc3339(at),
        "body": entry.body,
        "erasure_id": entry.erasure_id,
        "event": entry.event,
        "seq": seq,
        "version": entry.version,
    }
    text = _canonical(document)
    return {
        "seq": seq,
        "at": at,
        "event": entry.event,
        "erasure_id": entry.erasure_id,
        "version": entry.version,
        "body": text.decode(),
        "leaf_hash": leaf_hash(text),
    }


def _canonical(document: Mapping[str, Any]) -> bytes:
    try:
        return canonical_json(document)
    except ValueError:
        return canonical_json(_plain(document))


def _plain(value: Any) -> Any:
    """The value in JSON's own types: figures may come from NumPy, and a figure may be undefined."""
    kind = type(value)
    if kind in (str, int, bool, NoneType):
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if kind in (list, tuple):
        return [_plain(part) for part in value]
    return _plain(value.item())
