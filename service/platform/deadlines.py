"""What is owed by when: the erasures whose deadline runs, and how much of their time they have used.

A deadline runs until nothing more is to be done: not under a legal hold, and not past a decision to keep the data.
"""

from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, case, extract, func, select

from service.platform.tables import erasures

UNFINISHED: Final = ("accepted", "forgotten", "needs_attention")
SHARES: Final = (0.5, 0.8)
"""Shares of the time to `due_at` at which an erasure counts as at risk."""


class DeadlineFigures(NamedTuple):
    """Of the erasures that are owed: `overdue` past due_at, `at_risk` with each share of SHARES used (the overdue
    among them), `used` the largest share; `held` those under a legal hold, which are not owed.
    """

    overdue: int
    at_risk: tuple[int, ...]
    used: float
    held: int


def owed() -> ColumnElement[bool]:
    """The condition that the deadline of an erasure runs."""
    return and_(erasures.c.status.in_(UNFINISHED), erasures.c.held_since.is_(None), erasures.c.decision.is_(None))


def deadline_figures(connection: Connection, now: datetime) -> DeadlineFigures:
    """Count them; instants count in whole seconds, shares by the window as it is after an extension."""
    # Materialised, since reading an instant costs a database more than all the rest: twice a row, not a dozen times.
    epochs = (
        select(
            extract("epoch", erasures.c.received_at).label("received"), extract("epoch", erasures.c.due_at).label("due")
        )
        .where(owed())
        .cte()
        .prefix_with("MATERIALIZED")
    )
    received, window = epochs.c.received, epochs.c.due - epochs.c.received
    used = (now.timestamp() - received) / case((window < 1, 1.0), else_=window * 1.0)
    counts = (func.coalesce(func.sum(case((used >= share, 1), else_=0)), 0) for share in SHARES)
    overdue = func.coalesce(func.sum(case((epochs.c.due < now.timestamp(), 1), else_=0)), 0)
    row = connection.execute(select(overdue, func.max(used), *counts)).one()
    held = connection.scalar(select(func.count()).where(erasures.c.held_since.is_not(None))) or 0
    return DeadlineFigures(int(row[0]), tuple(map(int, row[2:])), max(0.0, float(row[1] or 0.0)), held)
