"""A small service after an erasure: what it was about is known to the needles, and gone from every store."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete, update

from model_store import ManifestFacts
from service.platform import tables
from service.platform.database import Database
from service.platform.embedded import EmbeddedValkey
from service.platform.redis import ErasureStream
from service.residue.needles import Needles
from service.residue.report import ResidueReport
from service.residue.scan import ResidueScan
from service.settings import Settings
from tests.factories.domains import Domains
from tests.factories.worlds import AT, World

ZOE, ANN, BEN = 'Zoë "4711" Quint/a', "ann-000017", "ben-000018"
ITEM, OTHER_ITEM, GONE_ITEM = "film-00001", "film-00002", "Ünder-film 99"
REASON = "Zoë has moved to Överby"
WIDTH = 12


@dataclass
class Aftermath:
    """The world, the erasures, and what was gathered of them before they were purged."""

    world: World
    domains: Domains
    whole: str
    pair: str
    needles: Needles
    rows: dict[str, np.ndarray]
    salt: bytes
    stream: ErasureStream | None = None

    @property
    def home(self) -> Path:
        return self.world.settings.home

    @property
    def database(self) -> Database:
        return self.world.database

    def search(self, needles: Needles | None = None, **given: object) -> ResidueReport:
        """Search the home."""
        scan = ResidueScan(self.database, self.world.store, self.stream, self.world.settings)
        return scan.run(needles or self.needles, **given)  # type: ignore[arg-type]

    def places(self, needles: Needles | None = None) -> set[tuple[str, str, str]]:
        """What is found: (store, place, kind)."""
        return {
            (result.store.value, place.place, place.kind.value)
            for result in self.search(needles).stores
            for place in result.places
        }


def embeddings(users: dict[int, np.ndarray], items: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of a version in which these keys have these rows."""
    return {
        "users": np.array([users[key] for key in sorted(users)], np.float32),
        "items": np.array([items[key] for key in sorted(items)], np.float32),
        "user_keys": np.array(sorted(users), np.int64),
        "item_keys": np.array(sorted(items), np.int64),
        "user_degrees": np.ones(len(users), np.int32),
        "item_degrees": np.ones(len(items), np.int32),
    }


def publish(
    world: World,
    number: int,
    seed: int,
    users: list[int],
    items: list[int],
    *,
    parent: int | None = None,
    without: tuple[int, int] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Publish a version with random rows; a base learnt every pair but one, in rows. Returns its files' tensors."""
    random = np.random.default_rng(seed)
    tensors = embeddings(
        {key: random.standard_normal(WIDTH, np.float32) for key in users},
        {key: random.standard_normal(WIDTH, np.float32) for key in items},
    )
    files = {"embeddings.safetensors": tensors}
    if parent is None:
        edges = [(u, i) for u in range(len(users)) for i in range(len(items)) if (u, i) != without]
        files["base.safetensors"] = {
            "e0": random.standard_normal((len(users) + len(items), WIDTH), np.float32),
            "edges": np.array(edges[1:], np.int32).T,
            "validation": np.array(edges[:1], np.int32).T,
        }
    facts = ManifestFacts("base" if parent is None else "forgotten", "d" * 64, "0.1.0", 7, AT, parent)
    manifest = world.store.publish("versions", number, files, facts)
    world.register(manifest)
    return files


def publish_encoder(world: World, number: int, base: int, rows: int) -> np.ndarray:
    """Publish an encoder of a base; returns its rows."""
    h0 = np.random.default_rng(100 + number).standard_normal((rows, WIDTH), np.float32)
    facts = ManifestFacts("encoder", "d" * 64, "0.1.0", 7, AT, base)
    world.store.publish("encoders", number, {"encoder.safetensors": {"h0": h0}}, facts)
    return h0


def point(world: World, base: int) -> None:
    """Make a version the live one and the base in use."""
    with world.database.write() as write:
        write.execute(delete(tables.aliases))
        rows = [{"name": name, "version": base, "moved_at": AT} for name in ("live", "base")]
        write.execute(tables.aliases.insert(), rows)


def make(settings: Settings, database: Database) -> Aftermath:
    """Learn, erase a user, an item and a pair, learn again without them, gather, and purge."""
    world = World(settings, database, [ZOE, ANN, BEN], [ITEM, OTHER_ITEM, GONE_ITEM])
    world.record([(ZOE, ITEM), (ZOE, OTHER_ITEM), (ANN, ITEM), (ANN, OTHER_ITEM), (BEN, ITEM), (BEN, GONE_ITEM)])
    old = publish(world, 1, 1, [1, 2, 3], [1, 2, 3])
    later = publish(world, 2, 2, [1, 2, 3], [1, 2, 3], parent=1)
    h0 = publish_encoder(world, 1, 1, 6)
    domains = Domains(database, settings, identity=world.identity)
    whole = domains.accept(users=[ZOE], items=[GONE_ITEM], reason=REASON, idempotency_key="key-of-zoe-1")
    pair = domains.accept((ANN, ITEM), reason="a reason of Ann's own")
    publish(world, 3, 3, [2, 3], [1, 2], without=(0, 0))
    point(world, 3)
    needles = database.query(lambda read: Needles.gather(read, world.store, world.identity, (whole.id, pair.id)))
    rows = {
        "user": later["embeddings.safetensors"]["users"][0],
        "base": old["base.safetensors"]["e0"][0],
        "encoder": h0[0],
        "item": old["embeddings.safetensors"]["items"][2],
        "user of pair": old["embeddings.safetensors"]["users"][1],
    }
    purge(world, (whole.id, pair.id))
    return Aftermath(world, domains, whole.id, pair.id, needles, rows, bytes.fromhex(whole.salt or ""))


def purge(world: World, erasures: tuple[str, ...]) -> None:
    """Take away what the erasures were about, as a purge does, in short."""
    with world.database.write() as write:
        for table in (tables.erasure_targets, tables.outbox, tables.idempotency):
            write.execute(delete(table).where(table.c.erasure_id.in_(erasures)))
        write.execute(delete(tables.interactions).where(tables.interactions.c.user_key == 1))
        write.execute(delete(tables.interactions).where(tables.interactions.c.item_key == 3))
        mine = (tables.interactions.c.user_key == 2) & (tables.interactions.c.item_key == 1)
        write.execute(delete(tables.interactions).where(mine))
        write.execute(delete(tables.users).where(tables.users.c.key == 1))
        write.execute(delete(tables.items).where(tables.items.c.key == 3))
        cleared = {"salt": None, "reason": None, "status": "forgotten"}
        write.execute(update(tables.erasures).where(tables.erasures.c.id.in_(erasures)).values(cleared))
    for number in (1, 2):
        world.store.purge("versions", number)
    world.store.purge("encoders", 1)
    if world.database.is_sqlite:
        empty_log(world.database)


def empty_log(database: Database) -> None:
    """VACUUM, and a truncating checkpoint."""
    with closing(sqlite3.connect(str(database.url.database), isolation_level=None)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture
def aftermath(settings: Settings, sqlite: Database) -> Aftermath:
    """On SQLite."""
    return make(settings, sqlite)


@pytest.fixture
def on_postgresql(settings: Settings, postgres_url: str, open_database: Callable[[str], Database]) -> Aftermath:
    """On PostgreSQL."""
    return make(settings.model_copy(update={"database_url": postgres_url}), open_database(postgres_url))


@pytest.fixture
def valkey(aftermath: Aftermath, valkey_binary: Path) -> Iterator[ErasureStream]:
    """The home's own server, in which the erasures were published and acknowledged."""
    server = EmbeddedValkey(aftermath.home, valkey_binary)
    server.start()
    stream = ErasureStream(server.url, stream=aftermath.world.settings.stream, group="unlearners", consumer="test")
    aftermath.stream = stream
    yield stream
    stream.close()
    server.stop()
