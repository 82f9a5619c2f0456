"""Homes in which a compaction has come to its purge: an old base that learnt everything, a new one that serves."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, insert, select, update

from model_store import ManifestFacts
from service.audit import service as audit
from service.erasures.decision_repository import forget_interactions
from service.interactions import service as interactions
from service.models import repository as models
from service.platform import tables
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.platform.redis import ErasureStream
from service.purge.purge import Purge, PurgeScope, scope
from service.purge.report import PurgeReport
from service.settings import Settings
from service.worker.repository import queue
from tests.factories.domains import Domains
from tests.factories.worlds import AT, World

COMPACTION = "compaction-1"


@dataclass
class PurgingHome:
    """A home with its callers' side. Ids are canaries: distinct texts that nothing else holds."""

    settings: Settings
    database: Database
    stream: ErasureStream | None = None
    tag: str = field(default_factory=lambda: os.urandom(6).hex())

    def __post_init__(self) -> None:
        self.world = World(self.settings, self.database, [], [])
        self.domains = Domains(self.database, self.settings, identity=self.world.identity)
        self.domains.clock.instant = SystemClock().now()

    @property
    def store(self) -> Any:
        """The model store."""
        return self.world.store

    def user(self, number: int) -> str:
        """The id of a user."""
        return f"canary-{self.tag}-user-{number:03d}"

    def item(self, number: int) -> str:
        """The id of an item."""
        return f"canary-{self.tag}-item-{number:03d}"

    def record(self, *pairs: tuple[int, int]) -> None:
        """Import interactions, with titles for the items."""
        named = [(self.user(u), self.item(i)) for u, i in pairs]
        self.domains.bring_in(*named, titles={self.item(i): f"{self.item(i)} title" for _, i in pairs})

    def accept(
        self, *pairs: tuple[int, int], users: Sequence[int] = (), items: Sequence[int] = (), **given: Any
    ) -> str:
        """Accept an erasure; returns its id."""
        named = [(self.user(u), self.item(i)) for u, i in pairs]
        whole = {"users": [self.user(u) for u in users], "items": [self.item(i) for i in items]}
        return self.domains.accept(*named, **whole, **given).id

    def forget(self, *ids: str) -> None:
        """Have erasures forgotten, as the worker settles them."""
        now = self.domains.clock.now()
        rows = [{"erasure": each, "at": now, "before": 1, "after": 2, "batch": None, "stages": {}} for each in ids]
        with self.database.write() as connection:
            assert queue.mark_forgotten(connection, rows) == len(ids)
            forget_interactions(connection, ids)

    def base(self, number: int) -> int:
        """Publish a base trained on what is recorded now, with an encoder, and put it on record."""
        with self.database.read() as connection:
            data = interactions.snapshot(connection)
        random = np.random.default_rng(number)
        tensors = {
            "users": random.standard_normal((len(data.user_keys), 4), dtype=np.float32),
            "items": random.standard_normal((len(data.item_keys), 4), dtype=np.float32),
            "user_keys": data.user_keys,
            "item_keys": data.item_keys,
        }
        config = {"snapshot_seq": data.seq}
        manifest = self.world.publish_tensors(number, tensors, config=config)
        self.world.register(manifest, erasure_seq=data.seq)
        facts = ManifestFacts(
            kind="encoder", dataset_hash="d" * 64, code_version="0.1.0", seed=1, created_at=AT, parent=number
        )
        self.store.publish("encoders", number, {"encoder.safetensors": {"h0": tensors["users"]}}, facts)
        return number

    def version(self, number: int, base: int) -> int:
        """Publish a version made from a base, and put it on record."""
        manifest = self.world.publish(number, [[1.0]], kind="forgotten", parent=base)
        self.world.register(manifest)
        return number

    def point(self, **wanted: int) -> None:
        """Point aliases, in SQL and in the store."""
        with self.database.write() as connection:
            for name, number in wanted.items():
                models.point(connection, name, number, AT)
        for name, number in wanted.items():
            if name != "base":
                self.store.set_alias(name, number)

    def compact(self, base: int, *ids: str) -> PurgeScope:
        """Take these erasures into a compaction that has trained this base and moved there."""
        with self.database.write() as connection:
            row = {"id": COMPACTION, "trigger": "operator", "status": "running", "step": "purging"}
            connection.execute(insert(tables.compactions).values(**row, requested_at=AT))
            mine = update(tables.erasures).where(tables.erasures.c.id.in_(ids))
            connection.execute(mine.values(compaction_id=COMPACTION))
        self.base(base)
        self.point(live=base, base=base)
        return self.scope(base)

    def scope(self, base: int) -> PurgeScope:
        """What can be purged now."""
        return self.database.query(lambda connection: scope(connection, COMPACTION, base))

    def purge(
        self, wanted: PurgeScope, *, hard: bool = False, steps: list[str] | None = None, **given: Any
    ) -> PurgeReport:
        """Run the purge."""
        parts = {
            "clock": self.domains.clock,
            "confirm": lambda connection: None,
            "on_step": (lambda name: None) if steps is None else steps.append,
        }
        stream, settings = self.stream, self.settings
        return Purge(self.database, self.store, stream, settings, **{**parts, **given}).run(wanted, hard=hard)

    def erased(self, *ids: str) -> None:
        """End erasures, as a compaction does last of all."""
        with self.database.write() as connection:
            audit.reserve(connection, 0)
            mine = update(tables.erasures).where(tables.erasures.c.id.in_(ids))
            connection.execute(mine.values(status="erased", erased_at=self.domains.clock.now()))

    def count(self, table: str, *conditions: Any) -> int:
        """How many rows a table has."""
        wanted = select(func.count()).select_from(tables.metadata.tables[table]).where(*conditions)
        return self.database.query(lambda connection: connection.scalar(wanted) or 0)

    def known_users(self) -> set[int]:
        """Numbers of the users in the vocabulary."""
        return self._numbers(tables.users)

    def known_items(self) -> set[int]:
        """Numbers of the items in the vocabulary."""
        return self._numbers(tables.items)

    def later(self, days: float) -> None:
        """Move the clock."""
        self.domains.clock.step(timedelta(days=days).total_seconds())

    def _numbers(self, table: Any) -> set[int]:
        ids = self.database.query(lambda connection: list(connection.scalars(select(table.c.id))))
        return {int(each.rpartition("-")[2]) for each in ids}


def places_of(needles: dict[str, bytes], *folders: Path) -> dict[str, list[str]]:
    """Which of these bytes are in which files below folders: every byte of every file is read, and nothing asked."""
    found: dict[str, list[str]] = {name: [] for name in needles}
    for path in _files(folders):
        data = _read(path)
        for name, needle in needles.items():
            if needle in data:
                found[name].append(path.name)
    return {name: places for name, places in found.items() if places}


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a database renames and deletes its files while it is looked at
        return b""


@contextmanager
def reader(database: Database) -> Iterator[None]:
    """Somebody who reads, and sees what was there when this began."""
    with database.read() as connection:
        connection.execute(select(tables.users.c.key).limit(1)).first()
        yield
