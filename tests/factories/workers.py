"""Homes in which a worker can work: sixty users and forty items in planted communities, a tiny base, its encoders."""

import asyncio
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, select

import migrations
from model_store import ModelStore
from service.erasures import service as erasures
from service.erasures.modes import Mode
from service.erasures.targets import Subjects
from service.platform import tables
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.platform.dependencies import LiveStatus, Services
from service.platform.identity import load_identity
from service.platform.redis import ErasureStream
from service.platform.tables import interactions, items, users
from service.recommender.backbones import LightGCN
from service.recommender.training import TrainingConfig
from service.settings import Settings, load_settings
from service.unlearning.pretraining import PretrainingConfig
from service.worker.encoders import pretrain
from service.worker.engine import Engine, UnlearningEngine
from service.worker.lease import Lease
from service.worker.opening import WorkerDependencies
from service.worker.pipeline import Batch, Pipeline, PipelineDependencies
from service.worker.repository import lineage, queue
from service.worker.targets import ForgetSet, TargetsByMode
from service.worker.training import BaseConfig, train_base
from service.worker.worker import EngineOf, Worker
from tests.factories.worlds import AT

N_USERS, N_ITEMS, N_BLOCKS = 60, 40, 4
RECIPE = BaseConfig(
    LightGCN(layers=2, readout="sum", weight_decay=1e-2),
    TrainingConfig(embedding_size=8, batch_size=256, learning_rate=2e-2, epochs=6, patience=6),
    validation_share=0.15,
)
# A gate that lets everything pass: sixty users are too few for its figures to mean anything.
OPEN_GATE: dict[str, Any] = {
    "gate_max_residual": 1e6,
    "gate_max_overshoot": 1e6,
    "gate_max_drift": 1e6,
    "gate_min_quality": 1e-9,
}
QUICK: dict[str, Any] = {"batch_window_ms": 5, "lease_seconds": 2.0, "sweep_seconds": 0.5, "torch_threads": 1}


def user(number: int) -> str:
    """The outside id of a user."""
    return f"user-{number:02d}"


def item(number: int) -> str:
    """The outside id of an item."""
    return f"item-{number:02d}"


def planted(seed: int = 0) -> list[tuple[int, int]]:
    """Users like six in ten items of their own community, and nothing else; numbers from 0, sorted."""
    random = np.random.default_rng(seed)
    likes = random.random((N_USERS, N_ITEMS)) < 0.6
    likes &= (np.arange(N_USERS) % N_BLOCKS)[:, None] == (np.arange(N_ITEMS) % N_BLOCKS)[None, :]
    return [(int(u), int(i)) for u, i in np.argwhere(likes)]


PAIRS = planted()


class _Nobody:
    """Stands for the parts of an API process that these tests have not: nothing serves, nothing relays."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def wake(self) -> None: ...

    def status(self) -> LiveStatus:
        return LiveStatus(None)


@dataclass(frozen=True)
class Home:
    """A home with its database and store open, and the caller's side of the service."""

    settings: Settings
    database: Database
    store: ModelStore

    @property
    def services(self) -> Services:
        """What the domains are given."""
        identity, nobody = load_identity(self.settings), _Nobody()
        return Services(self.settings, self.database, identity, self.store, None, SystemClock(), nobody, nobody)

    def accept(
        self,
        *pairs: tuple[int, int],
        users: Sequence[int] = (),
        items: Sequence[int] = (),
        mode: str = "forget",
    ) -> str:
        """Accept an erasure as the API does; returns its id."""
        named = [(user(u), item(i)) for u, i in pairs]
        subjects = Subjects.of(named, [user(u) for u in users], [item(i) for i in items])
        request = erasures.NewErasure(subjects, Mode(mode), None, "key")
        return asyncio.run(erasures.accept(self.services, request)).erasure.id

    def cancel(self, erasure_id: str) -> None:
        """Cancel an erasure as the API does."""
        asyncio.run(erasures.cancel(self.services, erasure_id))

    def erasure(self, erasure_id: str) -> Any:
        """An erasure's row."""
        table = tables.erasures
        return self.one(select(table).where(table.c.id == erasure_id))

    def status(self, erasure_id: str) -> str:
        """An erasure's status."""
        return str(self.erasure(erasure_id).status)

    def alias(self, name: str = "live") -> int | None:
        """Where an alias points, in SQL."""
        table = tables.aliases
        rows = self.rows(select(table.c.version).where(table.c.name == name))
        return rows[0].version if rows else None

    def events(self, erasure_id: str | None = None) -> list[str]:
        """Events of the audit log, in order."""
        table = tables.audit_entries
        wanted = select(table.c.event).order_by(table.c.seq)
        if erasure_id is not None:
            wanted = wanted.where(table.c.erasure_id == erasure_id)
        return [row.event for row in self.rows(wanted)]

    def recorded(self) -> set[tuple[int, int]]:
        """Numbers of the pairs that are recorded as interactions; keys count from 1."""
        found = self.rows(select(interactions.c.user_key, interactions.c.item_key))
        return {(row.user_key - 1, row.item_key - 1) for row in found}

    @property
    def learnt(self) -> list[tuple[int, int]]:
        """Numbers of the pairs that base 1 has learnt, sorted: the others were held out for validation."""
        edges = self.store.open("versions", 1, "base.safetensors")["edges"]
        return [(int(u), int(i)) for u, i in edges.T]

    def rows(self, statement: Any) -> list[Any]:
        """Rows of a query."""
        return self.database.query(lambda connection: list(connection.execute(statement)))

    def one(self, statement: Any) -> Any:
        """The only row of a query."""
        (row,) = self.rows(statement)
        return row

    def degrees(self, version: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Degrees of users and items in a version, by number."""
        tensors = self.store.open("versions", version, "embeddings.safetensors")
        return tensors["user_degrees"], tensors["item_degrees"]


def make_template(folder: Path) -> None:
    """Make a home with a trained base and encoders of both modes, on SQLite, closed."""
    settings = load_settings(home=folder, **QUICK, **OPEN_GATE)
    with opened(settings) as home:
        fill(home)
        teach(home)


def fill(home: Home) -> None:
    """Record the planted interactions; keys are numbers plus one."""
    identity = load_identity(home.settings)
    with home.database.write() as connection:
        for table, ids, digest in (
            (users, [user(n) for n in range(N_USERS)], identity.user),
            (items, [item(n) for n in range(N_ITEMS)], identity.item),
        ):
            connection.execute(insert(table), [{"id": id, "digest": digest(id)} for id in ids])
        rows = [{"user_key": u + 1, "item_key": i + 1, "recorded_at": AT} for u, i in PAIRS]
        connection.execute(insert(interactions), rows)


def teach(home: Home, *, go_live: bool = False, modes: Sequence[str] = ("forget", "dislike")) -> int:
    """Train a base and pre-train its encoders; returns its number."""
    base = train_base(home.database, home.store, home.settings, RECIPE, go_live=go_live)
    for mode in modes:
        recipe = PretrainingConfig(mode=mode, steps=2, batch_size=64, judge_every=2)  # type: ignore[arg-type]
        pretrain(home.database, home.store, home.settings, recipe, base=base.version)
    return base.version


@contextmanager
def opened(settings: Settings) -> Iterator[Home]:
    """A home with these settings, its schema brought up to date; closed at the end."""
    migrations.upgrade(settings.sql_url)
    database = Database(settings.sql_url)
    try:
        store = ModelStore(settings.store_root, key=load_identity(settings).derive("manifest"))
        yield Home(settings, database, store)
    finally:
        database.close()


def copy_template(template: Path, folder: Path, **changes: Any) -> Settings:
    """Settings of a home that is a copy of the template."""
    shutil.copytree(template, folder, dirs_exist_ok=True)
    return load_settings(home=folder, **{**QUICK, **OPEN_GATE, **changes})


def worker_of(home: Home, stream: ErasureStream | None = None, *, engine_of: EngineOf | None = None) -> Worker:
    """A worker of this home, not running."""
    parts = WorkerDependencies(home.settings, home.database, home.store, stream, SystemClock())
    stop = threading.Event()
    return Worker(parts, stop) if engine_of is None else Worker(parts, stop, engine_of)


@contextmanager
def working(worker: Worker) -> Iterator[Worker]:
    """Run a worker in a thread of this process; told to stop at the end."""
    thread = threading.Thread(target=worker.run, name="worker", daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop.set()
        thread.join(30)
    assert not thread.is_alive(), "The worker did not stop within 30 s."


@contextmanager
def pipeline_of(home: Home, engine: Engine | None = None) -> Iterator[Pipeline]:
    """A pipeline of the home's base that holds the lease; the lease is given back at the end."""
    clock = SystemClock()
    lease = Lease(home.database, seconds=home.settings.lease_seconds, clock=clock)
    assert lease.acquire(threading.Event())
    base = home.database.query(lineage.read_state).base
    if engine is None and base is not None:
        engine = engine_of(home, base.version)
    dependencies = PipelineDependencies(home.database, home.store, lease, clock, home.settings)
    try:
        yield Pipeline(dependencies, engine, ForgetSet(TargetsByMode(), [], 0), lambda seconds: None)
    finally:
        lease.release()


def engine_of(home: Home, base: int = 1, kind: type[UnlearningEngine] = UnlearningEngine) -> UnlearningEngine:
    """The real engine of a base with the encoders that are on record for it."""
    row = home.database.query(lambda connection: lineage.version(connection, base))
    assert row is not None
    return kind(home.store, base, row.manifest["encoders"], home.settings)


def waiting(home: Home) -> Batch:
    """The accepted erasures, in order."""
    return tuple(home.database.query(lambda connection: queue.waiting(connection, 1000)))
