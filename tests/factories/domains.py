"""The domains over a database, without a server: what callers ask, what is recorded, what the log says."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from model_store import ModelStore
from service.audit import repository as audit
from service.erasures import service as erasures
from service.erasures.modes import Mode
from service.erasures.repository import Erasure
from service.erasures.targets import Subjects
from service.interactions import service as interactions
from service.interactions.importing import ImportReport, import_dataset
from service.interactions.service import RecordingResult
from service.platform.database import Database
from service.platform.dependencies import LiveStatus, Services
from service.platform.identity import Identity
from service.platform.tables import suppressions
from service.recommender.dataset import Dataset, Vocabulary
from service.settings import Settings, load_settings

Pair = tuple[str, str]
KEY_ID = "key-1"


@dataclass
class SteppedClock:
    """A clock that stands until it is moved; monotonic time follows."""

    instant: datetime = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    elapsed: float = 0.0

    def now(self) -> datetime:
        """The instant that was set."""
        return self.instant

    def monotonic(self) -> float:
        """Seconds by which it was moved forward."""
        return self.elapsed

    def step(self, seconds: float) -> None:
        """Move the wall clock, back where negative."""
        self.instant += timedelta(seconds=seconds)
        self.elapsed += max(seconds, 0.0)


@dataclass
class CountingRelay:
    """Stands for the relay and counts how often it is woken."""

    woken: int = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def wake(self) -> None:
        """Count."""
        self.woken += 1


class NoModel:
    """Stands for the model of a process that has none."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def status(self) -> LiveStatus:
        """Nothing is loaded."""
        return LiveStatus(None)


@dataclass
class Domains:
    """A caller's side of the service, call by call."""

    database: Database
    settings: Settings = field(default_factory=lambda: load_settings(home=Path("/nonexistent")))
    clock: SteppedClock = field(default_factory=SteppedClock)
    relay: CountingRelay = field(default_factory=CountingRelay)
    identity: Identity = field(default_factory=lambda: Identity(b"s" * 32))

    @property
    def services(self) -> Services:
        """What the domains are given."""
        store = ModelStore(self.settings.home / "store")
        return Services(self.settings, self.database, self.identity, store, None, self.clock, NoModel(), self.relay)

    def accept(
        self,
        *pairs: Pair,
        users: Sequence[str] = (),
        items: Sequence[str] = (),
        idempotency_key: str | None = None,
        key_id: str = KEY_ID,
        mode: Mode = Mode.FORGET,
        reason: str | None = None,
    ) -> Erasure:
        """Ask for an erasure."""
        request = erasures.NewErasure(Subjects.of(pairs, users, items), mode, reason, key_id, idempotency_key)
        return asyncio.run(erasures.accept(self.services, request)).erasure

    def cancel(self, erasure_id: str) -> Erasure:
        """Cancel an erasure."""
        return asyncio.run(erasures.cancel(self.services, erasure_id))

    def erasure(self, erasure_id: str) -> Erasure:
        """Read an erasure."""
        return asyncio.run(erasures.get(self.services, erasure_id))

    def record(self, *pairs: Pair) -> RecordingResult:
        """Send new interactions."""
        return asyncio.run(interactions.record(self.services, pairs))

    def bring_in(self, *pairs: Pair, titles: Mapping[str, str] | None = None) -> ImportReport:
        """Import a data set of these pairs."""
        return import_dataset(self.database, self.identity, dataset(*pairs, titles=titles), clock=self.clock)

    def shown(self, user: str, limit: int = 100) -> list[str]:
        """The item ids that a user is shown as recorded, all pages."""
        items: list[str] = []
        cursor: str | None = None
        while True:
            page, cursor = asyncio.run(interactions.of_user(self.services, user, cursor, limit))
            items += [own.item_id for own in page]
            if cursor is None:
                return items

    def learnt(self) -> set[tuple[int, int]]:
        """The pairs of the training snapshot in surrogate keys."""
        with self.database.read() as connection:
            taken = interactions.snapshot(connection)
        users, items = taken.user_keys[taken.edges[0]], taken.item_keys[taken.edges[1]]
        return set(zip(users.tolist(), items.tolist(), strict=True))

    def log(self) -> list[dict[str, Any]]:
        """Every entry of the audit log, as its canonical JSON says."""
        rows = self.database.query(lambda connection: audit.page(connection, 0, 10_000, None))
        return [json.loads(row.canonical) for row in rows]

    def suppressed(self) -> set[tuple[bytes, bytes]]:
        """Every suppression, in digests."""
        pairs = select(suppressions.c.user_digest, suppressions.c.item_digest)
        rows = self.database.query(lambda connection: connection.execute(pairs).all())
        return {(bytes(user), bytes(item)) for user, item in rows}


def dataset(*pairs: Pair, titles: Mapping[str, str] | None = None) -> Dataset:
    """A data set of these train pairs."""
    users, items = Vocabulary.of(user for user, _ in pairs), Vocabulary.of(item for _, item in pairs)
    rows = np.array(sorted({(users.row(user), items.row(item)) for user, item in pairs}), np.int32).reshape(-1, 2)
    return Dataset("made", users, items, rows, np.empty((0, 2), np.int32), dict(titles or {}))
