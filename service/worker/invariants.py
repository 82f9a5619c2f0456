"""Promises checked in production, on a schedule: what `platform.invariants` cannot see, as it looks at SQL alone.

Each is a small class: its docstring is the promise, `check` counts what breaks it. 0 is well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from sqlalchemy import Connection

from model_store import ModelStore, StoreError
from service.platform import metrics
from service.platform.clock import Clock
from service.platform.database import Database
from service.worker.repository import invariant_queries

OUTBOX_AGE = timedelta(seconds=60)

log = structlog.get_logger()


@dataclass(frozen=True)
class InvariantContext:
    """What a check looks at: one snapshot of SQL, the store, the present instant."""

    connection: Connection
    store: ModelStore
    now: datetime


class InvariantCheck(Protocol):
    """A promise that can be looked up."""

    rule: str

    def check(self, context: InvariantContext) -> int:
        """How much breaks it now."""
        ...


class OutboxIsYoung:
    """P1: what is accepted is told to the stream within a minute."""

    rule = "outbox_age"

    def check(self, context: InvariantContext) -> int:
        """Unpublished outbox rows that are older."""
        return invariant_queries.unpublished_before(context.connection, context.now - OUTBOX_AGE)


class LiveCoversForgotten:
    """P9: the live version has forgotten every erasure that is called forgotten."""

    rule = "live_covers_forgotten"

    def check(self, context: InvariantContext) -> int:
        """Forgotten erasures accepted after the point up to which the live version has forgotten everything."""
        return invariant_queries.forgotten_beyond_live(context.connection)


class ForgottenIsAudited:
    """P2: every forgotten erasure has exactly one audit entry that says so."""

    rule = "forgotten_is_audited_once"

    def check(self, context: InvariantContext) -> int:
        """Forgotten erasures with no such entry or more than one."""
        return invariant_queries.forgotten_not_audited_once(context.connection)


class ReadyIsOnDisk:
    """P5: every version that may serve lies in the store with a manifest that verifies."""

    rule = "version_on_disk_has_manifest"

    def check(self, context: InvariantContext) -> int:
        """Ready versions without a sound manifest."""
        return sum(not _sound(context.store, number) for number in invariant_queries.ready(context.connection))


class AliasFileAgrees:
    """P5: the store's alias `live` names the version that SQL says is live, or the one before while it is written."""

    rule = "store_alias_agrees"

    def check(self, context: InvariantContext) -> int:
        """1 where it names another one."""
        expected = invariant_queries.aliased(context.connection)
        try:
            return int(context.store.alias("live") not in expected)
        except StoreError:
            return 1


INVARIANTS: Sequence[InvariantCheck] = (
    OutboxIsYoung(),
    LiveCoversForgotten(),
    ForgottenIsAudited(),
    ReadyIsOnDisk(),
    AliasFileAgrees(),
)


def check_all(database: Database, store: ModelStore, clock: Clock) -> dict[str, int]:
    """How much breaks each promise now, counted in expunge_invariant_violations_total{rule}."""

    def unit(connection: Connection) -> dict[str, int]:
        context = InvariantContext(connection, store, clock.now())
        return {invariant.rule: invariant.check(context) for invariant in INVARIANTS}

    found = database.query(unit)
    for rule, violations in found.items():
        # Made even where there is nothing to count, so that an alert on its increase sees the first one.
        metrics.invariant_violations_total.labels(rule).inc(violations)
        if violations:
            log.error("invariant.violated", rule=rule, violations=violations)
    return found


def _sound(store: ModelStore, number: int) -> bool:
    try:
        store.manifest("versions", number)
    except StoreError:
        return False
    return True
