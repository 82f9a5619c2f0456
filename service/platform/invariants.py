"""Promises checked against the live database, each as one query that finds what breaks it."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Select, case, exists, func, or_, select

from service.platform import metrics
from service.platform.tables import aliases, audit_entries, audit_head, erasures, outbox, suppressions, versions


@dataclass(frozen=True)
class SqlInvariant:
    """A promise and the query that counts what breaks it; 0 is well."""

    rule: str
    promise: str
    violations: Select[int]


def _count(*conditions: ColumnElement[bool]) -> Select[int]:
    return select(func.count()).select_from(erasures).where(*conditions)


_live = select(aliases.c.version).where(aliases.c.name == "live").scalar_subquery()
# Sequence numbers begin at 1. The newest entries only: counting all of a long log at every scrape would cost too much.
_WINDOW = 10_000
_newest = (
    select(func.count())
    .where(audit_entries.c.seq > audit_head.c.size - _WINDOW)
    .correlate(audit_head)
    .scalar_subquery()
)
_newest_in_full = case((audit_head.c.size < _WINDOW, audit_head.c.size), else_=_WINDOW)

INVARIANTS = (
    SqlInvariant(
        "accepted_is_suppressed",
        "P3: what is accepted is hidden: each has its suppression.",
        _count(erasures.c.status == "accepted", ~exists().where(suppressions.c.erasure_id == erasures.c.id)),
    ),
    SqlInvariant(
        "accepted_has_outbox_row",
        "P1: what is accepted will be delivered: each has its outbox row.",
        _count(erasures.c.status == "accepted", ~exists().where(outbox.c.erasure_id == erasures.c.id)),
    ),
    SqlInvariant(
        "forgotten_is_live",
        "P9: what is called forgotten is not in the version that answers: the live one is no older.",
        _count(erasures.c.status == "forgotten", erasures.c.version_after > _live),
    ),
    SqlInvariant(
        "live_version_is_ready",
        "P5: the live version exists and is ready.",
        select(func.count())
        .select_from(aliases.outerjoin(versions, versions.c.version == aliases.c.version))
        .where(aliases.c.name == "live", or_(versions.c.status.is_(None), versions.c.status != "ready")),
    ),
    SqlInvariant(
        "audit_log_has_no_gap",
        "P7: the newest entries of the log are as many as its head says.",
        select(func.count()).select_from(audit_head).where(_newest != _newest_in_full),
    ),
)


def check_invariants(connection: Connection) -> dict[str, int]:
    """How much breaks each rule now; what is found is counted in expunge_invariant_violations_total."""
    found = {invariant.rule: connection.scalar(invariant.violations) or 0 for invariant in INVARIANTS}
    for rule, violations in found.items():
        # Made even when there is nothing to count, so that an alert on its increase sees the first one.
        metrics.invariant_violations_total.labels(rule).inc(violations)
    return found
