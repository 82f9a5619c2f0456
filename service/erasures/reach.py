"""How far an erasure would reach: counted by reading alone. A third repository of this domain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Select, bindparam, column, func, select, text, union

from service.erasures import repository
from service.erasures.targets import EVERY, Target, TargetKind
from service.platform.tables import Key, interactions, items, suppressions, users

Keys = tuple[int, int]

# These statements hold what was asked for: none comes twice, and some hundred of 200 kB each are not worth keeping.
_UNCACHED = {"compiled_cache": None}


@dataclass(frozen=True)
class Reach:
    """What targets cover: `matched` recorded interactions out of `recorded`, `hidden` of them shown until now."""

    matched: int
    hidden: int
    users: int
    items: int
    recorded: int


def measure(connection: Connection, targets: Sequence[Target]) -> Reach:
    """Count what these targets cover, each interaction once; stores nothing and locks nothing."""
    recorded = int(connection.execute(select(func.count()).select_from(interactions)).scalar_one())
    covered = _covered(repository.look_up(connection, targets).rows)
    if covered is None:
        return Reach(0, 0, 0, 0, recorded)
    pairs = covered.cte("covered")
    counts = select(func.count(), func.count(pairs.c.user_key.distinct()), func.count(pairs.c.item_key.distinct()))
    matched, n_users, n_items = connection.execute(counts.select_from(pairs), execution_options=_UNCACHED).one()
    # One look each, not one with OR: that takes twice as long.
    hidden = [
        select(1).where(suppressions.c.user_digest == user, suppressions.c.item_digest == item).exists()
        for user, item in ((users.c.digest, items.c.digest), (users.c.digest, EVERY), (EVERY, items.c.digest))
    ]
    shown = (
        select(func.count())
        .select_from(pairs)
        .join(users, users.c.key == pairs.c.user_key)
        .join(items, items.c.key == pairs.c.item_key)
        .where(*(~each for each in hidden))
    )
    return Reach(
        matched, int(connection.execute(shown, execution_options=_UNCACHED).scalar_one()), n_users, n_items, recorded
    )


def _covered(rows: Sequence[dict[str, Any]]) -> CompoundSelect[Keys] | Select[Keys] | None:
    """(user key, item key) of each covered interaction once; None where no target is known.

    The keys are written into the statement: they are our own integers, and both databases bound the number of
    parameters well below the number of targets.
    """
    user, item = interactions.c.user_key, interactions.c.item_key
    known = [row for row in rows if not (row["user_key"] is None and row["item_key"] is None)]
    whole_users = [row["user_key"] for row in known if row["kind"] == TargetKind.USER]
    whole_items = [row["item_key"] for row in known if row["kind"] == TargetKind.ITEM]
    pairs = [
        (row["user_key"], row["item_key"])
        for row in known
        if row["kind"] == TargetKind.INTERACTION and row["user_key"] is not None and row["item_key"] is not None
    ]
    parts = [
        select(user, item).where(side.in_(bindparam(name, keys, expanding=True, literal_execute=True)))
        for name, side, keys in (("whole_users", user, whole_users), ("whole_items", item, whole_items))
        if keys
    ]
    if pairs:
        # As text: building these rows of an expression each takes SQLAlchemy longer than the databases take to count.
        rows_of = ",".join(f"({user_key:d},{item_key:d})" for user_key, item_key in pairs)
        named = text(f"VALUES {rows_of}").columns(column("column1", Key), column("column2", Key)).cte("named")
        parts.append(select(user, item).join(named, (user == named.c.column1) & (item == named.c.column2)))
    return (parts[0] if len(parts) == 1 else union(*parts)) if parts else None
