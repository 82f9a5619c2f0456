"""Erasures in SQL: what one acceptance reads and writes, and how erasures are read again.

An acceptance of one target is seven statements: log head, look-up, erasure, outbox, target, suppression, log entry.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, bindparam, delete, func, insert, or_, select, union, update

from service.erasures.targets import EVERY, Target, TargetKind
from service.platform.deadlines import owed
from service.platform.obstacles import APPROVAL
from service.platform.prepared_statements import PreparedStatement
from service.platform.tables import (
    aliases,
    batches,
    erasure_targets,
    erasures,
    idempotency,
    interactions,
    items,
    outbox,
    suppressions,
    users,
    versions,
)

IN_CHUNK = 500
WORDS_CLEARED: Final[Mapping[str, None]] = {"reason": None, "extension_reason": None}
"""What people wrote about an erasure: it goes when the erasure is over."""


@dataclass(frozen=True)
class Erasure:
    """One erasure as it is stored; see the table for its columns."""

    id: str
    seq: int
    status: str
    mode: str
    reason: str | None
    requested: int
    matched: int
    commitment: str
    salt: str | None
    received_at: datetime
    due_at: datetime
    forgotten_at: datetime | None
    erased_at: datetime | None
    cancelled_at: datetime | None
    version_before: int | None
    version_after: int | None
    batch_id: int | None
    attempts: int
    needs: str | None
    stages: Mapping[str, Any]
    key_id: str
    owner: str
    extended_at: datetime | None
    extension_ground: str | None
    extension_reason: str | None
    decision: str | None
    decision_ground: str | None
    decided_at: datetime | None
    held_since: datetime | None
    compaction_id: str | None
    purged_at: datetime | None
    gate: Mapping[str, Any] | None = None
    """What the gate measured of `version_after`, where its batch made that; of another table."""

    @property
    def awaits_approval(self) -> bool:
        """Whether it waits for a second key."""
        return self.status == "needs_attention" and self.needs == APPROVAL


@dataclass(frozen=True)
class MatchedTargets:
    """What SQL knows of targets: the row of each for erasure_targets, and their matches where they were counted."""

    rows: list[dict[str, Any]]
    matched: int | None
    oldest_accepted: int | None


_user_key = select(users.c.key).where(users.c.digest == bindparam("user_digest")).scalar_subquery()
_item_key = select(items.c.key).where(items.c.digest == bindparam("item_digest")).scalar_subquery()
_oldest_accepted = select(func.min(erasures.c.seq)).where(erasures.c.status == "accepted").scalar_subquery()
_covered = {
    TargetKind.INTERACTION: (interactions.c.user_key == _user_key, interactions.c.item_key == _item_key),
    TargetKind.USER: (interactions.c.user_key == _user_key,),
    TargetKind.ITEM: (interactions.c.item_key == _item_key,),
}
_LOOK_UP = {
    kind: PreparedStatement(
        select(
            _user_key.label("user_key"),
            _item_key.label("item_key"),
            select(func.count()).select_from(interactions).where(*covered).scalar_subquery().label("matched"),
            _oldest_accepted.label("oldest"),
        )
    )
    for kind, covered in _covered.items()
}
_OLDEST = PreparedStatement(select(_oldest_accepted.label("oldest")))
_NEW = [
    *("id", "seq", "status", "mode", "reason", "requested", "matched", "commitment", "salt"),
    *("received_at", "due_at", "attempts", "stages", "key_id", "owner"),
]
_INSERT_ERASURE = PreparedStatement(insert(erasures).inline(), _NEW)
_INSERT_TARGET = PreparedStatement(insert(erasure_targets).inline())
_INSERT_SUPPRESSION = PreparedStatement(
    insert(suppressions).inline(), ["user_digest", "item_digest", "erasure_id", "created_at"]
)
_INSERT_OUTBOX = PreparedStatement(insert(outbox).inline(), ["erasure_id", "created_at"])
_INSERT_IDEMPOTENCY = PreparedStatement(insert(idempotency).inline())
_FIND_IDEMPOTENT = PreparedStatement(
    select(idempotency.c.body_sha256, idempotency.c.erasure_id).where(
        idempotency.c.key_id == bindparam("key_id"), idempotency.c.key_sha256 == bindparam("key_sha256")
    )
)
# Of the version that its own batch made: where none was made, another erasure's figures say nothing about this one.
_with_gate = (
    select(erasures, versions.c.gate)
    .outerjoin(batches, batches.c.id == erasures.c.batch_id)
    .outerjoin(versions, (versions.c.version == erasures.c.version_after) & (versions.c.version == batches.c.version))
)
_AWAITS_APPROVAL = and_(erasures.c.status == "needs_attention", erasures.c.needs == APPROVAL)
_FIND = _with_gate.where(erasures.c.id == bindparam("id"))
_STATUS = PreparedStatement(select(erasures.c.status).where(erasures.c.id == bindparam("id")))


def look_up(connection: Connection, targets: Sequence[Target]) -> MatchedTargets:
    """Resolve targets to surrogate keys; matches are counted at once for one target, by `count_matched` for more."""
    if len(targets) == 1:
        return _look_up_one(connection, targets[0])
    user_keys = _keys(connection, users, [target.user_digest for target in targets])
    item_keys = _keys(connection, items, [target.item_digest for target in targets])
    rows = [
        _target_row(ordinal, target.kind, user_keys.get(target.user_digest), item_keys.get(target.item_digest), 0)
        for ordinal, target in enumerate(targets)
    ]
    oldest = _OLDEST.first(connection, {})
    return MatchedTargets(rows, None, oldest[0] if oldest else None)


def insert_erasure(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a new erasure and its outbox row; `row` has the columns of `_NEW`."""
    _INSERT_ERASURE.run(connection, row)
    _INSERT_OUTBOX.run(connection, {"erasure_id": row["id"], "created_at": row["received_at"]})


def insert_targets(connection: Connection, erasure_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store the targets of a new erasure."""
    named = [{**row, "erasure_id": erasure_id} for row in rows]
    if len(named) == 1:
        _INSERT_TARGET.run(connection, named[0])
    else:
        _INSERT_TARGET.run_many(connection, named)


def suppress(connection: Connection, erasure_id: str, targets: Sequence[Target], at: datetime) -> None:
    """Hide the targets from every read, from the commit on."""
    rows = [
        {
            "user_digest": target.user_digest,
            "item_digest": target.item_digest,
            "erasure_id": erasure_id,
            "created_at": at,
        }
        for target in targets
    ]
    if len(rows) == 1:
        _INSERT_SUPPRESSION.run(connection, rows[0])
    else:
        _INSERT_SUPPRESSION.run_many(connection, rows)


def count_matched(connection: Connection, erasure_id: str) -> int:
    """Count the distinct recorded interactions that stored targets cover; writes the counts into their rows too."""
    mine = erasure_targets.c.erasure_id == erasure_id
    is_user, is_item = erasure_targets.c.kind == TargetKind.USER, erasure_targets.c.kind == TargetKind.ITEM
    of_user = interactions.c.user_key == erasure_targets.c.user_key
    of_item = interactions.c.item_key == erasure_targets.c.item_key
    for of_kind, covers in ((is_user, (of_user,)), (is_item, (of_item,)), (~(is_user | is_item), (of_user, of_item))):
        count = select(func.count()).select_from(interactions).where(*covers).scalar_subquery()
        connection.execute(update(erasure_targets).where(mine, of_kind).values(matched=count))
    pair = (interactions.c.user_key, interactions.c.item_key)
    covered = union(
        select(*pair).join(erasure_targets, of_user).where(mine, is_user),
        select(*pair).join(erasure_targets, of_item).where(mine, is_item),
        select(*pair).join(erasure_targets, of_user & of_item).where(mine, ~(is_user | is_item)),
    ).subquery()
    matched = connection.execute(select(func.count()).select_from(covered)).scalar_one()
    connection.execute(update(erasures).where(erasures.c.id == erasure_id).values(matched=matched))
    return int(matched)


def count_accepted(connection: Connection, limit: int) -> int:
    """Count the erasures that wait to be forgotten, up to `limit`."""
    waiting = select(erasures.c.id).where(erasures.c.status == "accepted").limit(limit).subquery()
    return int(connection.execute(select(func.count()).select_from(waiting)).scalar_one())


def count_ahead(connection: Connection, seq: int) -> int:
    """Count the accepted erasures that were accepted before one."""
    ahead = select(func.count()).where(erasures.c.status == "accepted", erasures.c.seq < seq)
    return connection.scalar(ahead) or 0


def find_idempotent(connection: Connection, key: Mapping[str, Any]) -> tuple[bytes, str] | None:
    """The fingerprint and the erasure's id that came with an Idempotency-Key before; `key` as for `remember_key`."""
    row = _FIND_IDEMPOTENT.first(connection, key)
    return None if row is None else (bytes(row[0]), row[1])


def remember_key(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store an Idempotency-Key; `row` has key_id, key_sha256, body_sha256, erasure_id and created_at."""
    _INSERT_IDEMPOTENCY.run(connection, row)


def find(connection: Connection, erasure_id: str) -> Erasure | None:
    """The erasure with this id."""
    row = connection.execute(_FIND, {"id": erasure_id}).first()
    return None if row is None else Erasure(*row)


def status_of(connection: Connection, erasure_id: str) -> str | None:
    """The status of one erasure; cheap enough to be asked repeatedly."""
    row = _STATUS.first(connection, {"id": erasure_id})
    return None if row is None else row[0]


@dataclass(frozen=True)
class ErasureFilter:
    """Which erasures a list holds; what is None leaves none out.

    `owner`: of this owner of keys. `due_before`: whose deadline runs, and ends before. `covering`: that hide this
    target, or of a whole user or item anything at all.
    """

    status: str | None = None
    owner: str | None = None
    due_before: datetime | None = None
    held: bool | None = None
    covering: Target | None = None


def page(connection: Connection, wanted: ErasureFilter, before: int | None, limit: int) -> list[Erasure]:
    """Up to `limit` erasures with seq < `before`, the newest first."""
    query = _with_gate.order_by(erasures.c.seq.desc()).limit(limit)
    if wanted.owner is not None:
        query = query.where(erasures.c.owner == wanted.owner)
    if wanted.status is not None:
        query = query.where(erasures.c.status == wanted.status)
    if wanted.due_before is not None:
        query = query.where(owed(), erasures.c.due_at < wanted.due_before)
    if wanted.held is not None:
        query = query.where(erasures.c.held_since.is_not(None) if wanted.held else erasures.c.held_since.is_(None))
    if wanted.covering is not None:
        query = query.where(erasures.c.id.in_(_covering(wanted.covering)))
    if before is not None:
        query = query.where(erasures.c.seq < before)
    return [Erasure(*row) for row in connection.execute(query)]


def _covering(target: Target) -> Select[str]:
    user, item = suppressions.c.user_digest, suppressions.c.item_digest
    match target.kind:
        case TargetKind.USER:
            covers = user == target.user_digest
        case TargetKind.ITEM:
            covers = item == target.item_digest
        case _:
            covers = user.in_((target.user_digest, EVERY)) & item.in_((target.item_digest, EVERY))
    return select(suppressions.c.erasure_id).where(covers)


def count_recorded(connection: Connection) -> int:
    """Count all recorded interactions."""
    return int(connection.execute(select(func.count()).select_from(interactions)).scalar_one())


def await_approval(connection: Connection, erasure_id: str) -> None:
    """Hold a new erasure back until it is approved: it stays suppressed, and the worker does not hear of it."""
    held = update(erasures).where(erasures.c.id == erasure_id)
    connection.execute(held.values(status="needs_attention", needs=APPROVAL))
    connection.execute(delete(outbox).where(outbox.c.erasure_id == erasure_id))


def approve(connection: Connection, erasure_id: str, seq: int, at: datetime) -> bool:
    """Put an erasure that waits for approval at the queue's end; False where it does not wait for that."""
    waits = update(erasures).where(erasures.c.id == erasure_id, _AWAITS_APPROVAL)
    if connection.execute(waits.values(status="accepted", needs=None, seq=seq)).rowcount != 1:
        return False
    _INSERT_OUTBOX.run(connection, {"erasure_id": erasure_id, "created_at": at})
    return True


def cancel(connection: Connection, erasure_id: str, at: datetime) -> bool:
    """Cancel an erasure, lift its suppressions, drop what people wrote about it; False where it is neither accepted nor
    awaits approval, or is under legal hold.
    """
    open_ = or_(erasures.c.status == "accepted", _AWAITS_APPROVAL)
    wanted = update(erasures).where(erasures.c.id == erasure_id, open_, erasures.c.held_since.is_(None))
    cancelled = wanted.values(status="cancelled", cancelled_at=at, needs=None, **WORDS_CLEARED)
    if connection.execute(cancelled).rowcount != 1:
        return False
    connection.execute(delete(suppressions).where(suppressions.c.erasure_id == erasure_id))
    connection.execute(delete(outbox).where(outbox.c.erasure_id == erasure_id))
    return True


def live_manifest(connection: Connection) -> Mapping[str, Any] | None:
    """The manifest of the version that is live."""
    live = select(versions.c.manifest).join(aliases, aliases.c.version == versions.c.version)
    return connection.execute(live.where(aliases.c.name == "live")).scalar()


def _look_up_one(connection: Connection, target: Target) -> MatchedTargets:
    digests = {"user_digest": target.user_digest, "item_digest": target.item_digest}
    row = _LOOK_UP[target.kind].first(connection, digests)
    user_key, item_key, matched, oldest = row or (None, None, 0, None)
    return MatchedTargets([_target_row(0, target.kind, user_key, item_key, matched)], matched, oldest)


def _target_row(
    ordinal: int, kind: TargetKind, user_key: int | None, item_key: int | None, matched: int
) -> dict[str, Any]:
    return {"ordinal": ordinal, "kind": kind, "user_key": user_key, "item_key": item_key, "matched": matched}


def _keys(connection: Connection, table: Any, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Surrogate key by digest, for those that are registered."""
    known: dict[bytes, int] = {}
    for chunk in _chunks({digest for digest in digests if digest != EVERY}):
        rows = connection.execute(select(table.c.digest, table.c.key).where(table.c.digest.in_(chunk)))
        known.update((bytes(digest), key) for digest, key in rows)
    return known


def _chunks(values: set[bytes]) -> Iterator[list[bytes]]:
    ordered = iter(sorted(values))
    while chunk := list(islice(ordered, IN_CHUNK)):
        yield chunk
