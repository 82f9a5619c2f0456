"""Compactions in SQL: their journal, what triggers one, and which erasures one is to complete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from service.compaction.steps import NOT_DONE, OPEN, CompactionStatus
from service.erasures.problems import GateRefused
from service.erasures.repository import WORDS_CLEARED
from service.platform.clock import rfc3339
from service.platform.deadlines import owed
from service.platform.tables import aliases, batches, compactions, erasures, versions


@dataclass(frozen=True)
class Compaction:
    """One compaction as it is stored; see the table for its columns."""

    id: str
    trigger: str
    status: str
    step: str
    attempt: int
    key_id: str | None
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    base_before: int | None
    base_after: int | None
    snapshot_seq: int | None
    erasures: int
    steps: Mapping[str, Mapping[str, Any]]
    progress: Mapping[str, Any]
    problem: str | None
    facts: Mapping[str, Any]

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it is not over, or where it never began."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max((self.finished_at - self.started_at).total_seconds(), 0.0)


@dataclass(frozen=True)
class BaseInUse:
    """The base that the next versions come from, as triggers see it; `n_edges`: interactions of its data."""

    version: int
    snapshot_seq: int
    created_at: datetime
    n_edges: int


@dataclass(frozen=True)
class TriggerFacts:
    """What speaks for a compaction now.

    `forgotten_pairs`: recorded interactions covered by erasures that were forgotten since the base. `earliest_due`: of
    the erasures whose deadline runs. `refused`: whether the gate refused an erasure that no compaction has completed.
    `ended`: the latest compactions that are over, the newest first. `is_open`: whether one waits or runs.
    """

    base: BaseInUse | None
    forgotten_pairs: int
    earliest_due: datetime | None
    refused: bool
    ended: Sequence[Compaction]
    is_open: bool


ENDED_READ = 20


def add(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a new compaction; what `row` leaves out is as the table has it."""
    connection.execute(insert(compactions).values(**row))


def find(connection: Connection, compaction_id: str) -> Compaction | None:
    """The compaction with this id."""
    row = connection.execute(select(compactions).where(compactions.c.id == compaction_id)).first()
    return None if row is None else Compaction(*row)


def find_open(connection: Connection) -> Compaction | None:
    """The one that waits or runs; there is never a second."""
    row = connection.execute(select(compactions).where(compactions.c.status.in_(OPEN)).limit(1)).first()
    return None if row is None else Compaction(*row)


def page(connection: Connection, before: str | None, limit: int) -> list[Compaction]:
    """Up to `limit` compactions, the newest first; those whose id sorts before `before`, where it is given."""
    wanted = select(compactions).order_by(compactions.c.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(compactions.c.id < before)
    return [Compaction(*row) for row in connection.execute(wanted)]


def ended(connection: Connection, limit: int, status: str | None = None) -> list[Compaction]:
    """The latest compactions that are over, the newest first."""
    wanted = select(compactions).where(compactions.c.status.not_in(OPEN))
    if status is not None:
        wanted = wanted.where(compactions.c.status == status)
    return [Compaction(*row) for row in connection.execute(wanted.order_by(compactions.c.id.desc()).limit(limit))]


def with_leftovers(connection: Connection) -> list[Compaction]:
    """Those that came to nothing, and whose base is not purged yet."""
    wanted = select(compactions).where(compactions.c.status.in_(NOT_DONE), compactions.c.base_after.is_not(None))
    return [Compaction(*row) for row in connection.execute(wanted)]


def change(connection: Connection, compaction_id: str, having: Sequence[str], /, **values: Any) -> bool:
    """Change a compaction that has one of the statuses `having`; False where it has another."""
    mine = update(compactions).where(compactions.c.id == compaction_id, compactions.c.status.in_(having))
    return connection.execute(mine.values(**values)).rowcount == 1


def newest_snapshot(connection: Connection) -> int:
    """The log's size at the newest data that a compaction trained on and was not refused; 0 where there is none."""
    mine = (CompactionStatus.RUNNING, CompactionStatus.DONE)
    return connection.scalar(select(func.max(compactions.c.snapshot_seq)).where(compactions.c.status.in_(mine))) or 0


def mark_erasures(connection: Connection, compaction_id: str, seq: int) -> int:
    """Have a compaction complete every erasure accepted up to `seq` whose deadline runs; returns how many.

    Those that it was to complete before, and are under hold or decided by now, stay marked: they are passed over.
    """
    mine = update(erasures).where(owed(), erasures.c.seq <= seq)
    return connection.execute(mine.values(compaction_id=compaction_id)).rowcount


def count_unforgotten(connection: Connection, compaction_id: str) -> int:
    """How many erasures of a compaction the worker has still to forget, without an operator."""
    mine = select(func.count()).where(erasures.c.compaction_id == compaction_id, erasures.c.status == "accepted")
    return connection.scalar(mine) or 0


def leave_unforgotten(connection: Connection, compaction_id: str) -> None:
    """Leave the erasures that are not forgotten to the next compaction."""
    mine = update(erasures).where(erasures.c.compaction_id == compaction_id)
    connection.execute(mine.where(erasures.c.status.in_(("accepted", "needs_attention"))).values(compaction_id=None))


def mark_erased(connection: Connection, compaction_id: str, ids: Sequence[str], at: datetime) -> list[str]:
    """Make purged erasures of a compaction erased, those that may be; returns which, in the order given."""
    mine = (
        erasures.c.id.in_(ids),
        erasures.c.compaction_id == compaction_id,
        erasures.c.status == "forgotten",
        erasures.c.held_since.is_(None),
        erasures.c.decision.is_(None),
        erasures.c.purged_at.is_not(None),
    )
    may = set(connection.scalars(select(erasures.c.id).where(*mine).with_for_update()))
    done = [each for each in ids if each in may]
    cleared = {"salt": None, "needs": None, **WORDS_CLEARED}
    for each in done:
        stages = connection.scalar(select(erasures.c.stages).where(erasures.c.id == each)) or {}
        values = {"status": "erased", "erased_at": at, "stages": {**stages, "erased": {"at": rfc3339(at)}}}
        connection.execute(update(erasures).where(erasures.c.id == each).values(**values, **cleared))
    return done


def purged_erasures(connection: Connection, compaction_id: str) -> list[str]:
    """Ids of the erasures of a compaction whose rows are purged and that may be erased, in the order of accepting."""
    mine = select(erasures.c.id).where(
        erasures.c.compaction_id == compaction_id,
        erasures.c.status == "forgotten",
        erasures.c.held_since.is_(None),
        erasures.c.decision.is_(None),
        erasures.c.purged_at.is_not(None),
    )
    return list(connection.scalars(mine.order_by(erasures.c.seq)))


def count_erased(connection: Connection, compaction_id: str) -> int:
    """How many erasures a compaction has completed."""
    mine = select(func.count()).where(erasures.c.compaction_id == compaction_id, erasures.c.status == "erased")
    return connection.scalar(mine) or 0


def count_learnt(connection: Connection, compaction_id: str, seq: int) -> int:
    """How many erasures of a compaction matched something recorded, and were accepted after `seq`."""
    mine = select(func.count()).where(erasures.c.compaction_id == compaction_id, erasures.c.matched > 0)
    return connection.scalar(mine.where(erasures.c.seq > seq)) or 0


def count_refused_moves(connection: Connection, since: datetime) -> int:
    """How often, since an instant, the worker's gate refused a version that brings no erasures of its own."""
    refused = select(func.count()).where(
        batches.c.size == 0, batches.c.outcome.in_(("held", "failed")), batches.c.created_at >= since
    )
    return connection.scalar(refused) or 0


def trigger_facts(connection: Connection) -> TriggerFacts:
    """What speaks for a compaction now, in a handful of small statements."""
    base = base_in_use(connection)
    done = select(compactions.c.id).where(compactions.c.status == CompactionStatus.DONE)
    refused = select(erasures.c.id).where(
        owed(),
        erasures.c.status == "needs_attention",
        erasures.c.needs == GateRefused.code,
        erasures.c.compaction_id.is_(None) | erasures.c.compaction_id.not_in(done),
    )
    return TriggerFacts(
        base,
        0 if base is None else forgotten_pairs(connection, base.snapshot_seq),
        connection.scalar(select(func.min(erasures.c.due_at)).where(owed())),
        connection.execute(refused.limit(1)).first() is not None,
        ended(connection, ENDED_READ),
        find_open(connection) is not None,
    )


def base_in_use(connection: Connection) -> BaseInUse | None:
    """The base that was promoted last, or else that of the live version."""
    names = aliases.c.name.in_(("base", "live"))
    rows = connection.execute(
        select(aliases.c.name, versions.c.base)
        .join(versions, versions.c.version == aliases.c.version)
        .where(names)
        .order_by(aliases.c.name)  # `base` goes first
    ).all()
    if not rows:
        return None
    row = connection.execute(select(versions).where(versions.c.version == rows[0].base)).one()
    config = row.manifest.get("config") or {}
    tensors = ((row.manifest.get("files") or {}).get("base.safetensors") or {}).get("tensors") or {}
    shapes = [(tensors.get(name) or {}).get("shape") or (2, 0) for name in ("edges", "validation")]
    n_edges = sum(int(shape[1]) for shape in shapes)
    return BaseInUse(row.version, int(config.get("snapshot_seq", row.erasure_seq)), row.created_at, n_edges)


def forgotten_pairs(connection: Connection, seq: int) -> int:
    """How many recorded interactions the erasures cover that were accepted after `seq` and are forgotten."""
    wanted = select(func.sum(erasures.c.matched)).where(erasures.c.status == "forgotten", erasures.c.seq > seq)
    return int(connection.scalar(wanted) or 0)
