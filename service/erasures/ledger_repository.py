"""What the ledger is told, read from SQL; a further repository of this domain.

The audit log orders it, and the rows that an entry is about fill it in.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, func, inspect, select

from service.erasures.repository import IN_CHUNK
from service.platform.clock import rfc3339
from service.platform.integrity import LEDGER_EVENTS, leaf_of
from service.platform.tables import audit_entries, audit_head, erasures, interactions, suppressions, users

ACCEPTED, CANCELLED = "erasure.accepted", "erasure.cancelled"
DECIDED = ("erasure.extended", "erasure.refused", "erasure.refused_in_part")
"""Entries whose body says what was decided, in codes and instants."""


def log_size(connection: Connection) -> int | None:
    """The size of the audit log; None where there is no schema."""
    if not inspect(connection).has_table(audit_head.name):
        return None
    return connection.scalar(select(audit_head.c.size)) or 0


def agrees(connection: Connection, seq: int, leaf: str) -> bool:
    """Whether the log has this entry; it always has the one before the first."""
    return seq == 0 or leaf_of(connection, seq) == leaf


def common(connection: Connection, entries: Sequence[tuple[int, str]]) -> int | None:
    """The place of the last of these (seq, leaf) that the log has, or None."""
    found: dict[int, str] = {}
    for start in range(0, len(entries), IN_CHUNK):
        seqs = [seq for seq, _ in entries[start : start + IN_CHUNK]]
        rows = connection.execute(
            select(audit_entries.c.seq, audit_entries.c.leaf_hash).where(audit_entries.c.seq.in_(seqs))
        )
        found.update((seq, bytes(leaf).hex()) for seq, leaf in rows)
    places = [place for place, (seq, leaf) in enumerate(entries) if found.get(seq) == leaf]
    return places[-1] if places else None


def is_empty(connection: Connection) -> bool:
    """Whether nothing at all is on record: a database that is new."""
    return not log_size(connection) and not any(
        connection.scalar(select(func.count()).select_from(select(table).limit(1).subquery()))
        for table in (users, interactions)
    )


def entries_after(connection: Connection, seq: int, limit: int) -> list[dict[str, Any]]:
    """What the ledger is to hold of up to `limit` entries after one, in order.

    An acceptance comes with the keyed digests of its targets; with none where it was cancelled meanwhile.
    """
    entry = audit_entries.c
    wanted = select(entry.seq, entry.event, entry.at, entry.erasure_id, entry.leaf_hash, entry.body).where(
        entry.seq > seq, entry.event.in_(LEDGER_EVENTS)
    )
    rows = connection.execute(wanted.order_by(entry.seq).limit(limit)).all()
    accepted = _acceptances(connection, [row.erasure_id for row in rows if row.event == ACCEPTED])
    return [
        {
            "at": rfc3339(row.at),
            "body": json.loads(row.body)["body"] if row.event in DECIDED else {},
            "erasure_id": row.erasure_id,
            "event": row.event,
            "leaf": bytes(row.leaf_hash).hex(),
            "seq": row.seq,
            **(accepted.get(row.erasure_id, {}) if row.event == ACCEPTED else {}),
        }
        for row in rows
    ]


def _acceptances(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    own, hidden = erasures.c, suppressions.c
    for start in range(0, len(ids), IN_CHUNK):
        part = ids[start : start + IN_CHUNK]
        facts = select(
            own.id, own.mode, own.requested, own.commitment, own.received_at, own.due_at, own.key_id, own.owner
        )
        digests = select(hidden.erasure_id, hidden.user_digest, hidden.item_digest).where(hidden.erasure_id.in_(part))
        ordered = connection.execute(digests.order_by(hidden.erasure_id, hidden.user_digest, hidden.item_digest))
        named = {
            erasure_id: [[bytes(row.user_digest).hex(), bytes(row.item_digest).hex()] for row in rows]
            for erasure_id, rows in groupby(ordered, key=lambda row: str(row.erasure_id))
        }
        for row in connection.execute(facts.where(own.id.in_(part))):
            found[row.id] = {
                "commitment": row.commitment,
                "due_at": rfc3339(row.due_at),
                "key_id": row.key_id,
                "mode": row.mode,
                "owner": row.owner,
                "received_at": rfc3339(row.received_at),
                "requested": row.requested,
                "targets": named.get(row.id, []),
            }
    return found
