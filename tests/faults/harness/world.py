"""Who likes what, by a seed, and homes that have learnt it, kept for the length of a run."""

import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from service.platform.auth import Scope, create_key
from service.platform.clock import SystemClock
from service.platform.identity import load_identity
from service.platform.tables import interactions, items, users
from service.settings import load_settings
from tests.factories.workers import OPEN_GATE, QUICK, opened, teach
from tests.factories.worlds import AT
from tests.faults.harness.disk import Disk
from tests.postgres import PostgresServer

Pair = tuple[int, int]
DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True)
class World:
    """Users like some of the items of their own community. Both are numbers from 0; surrogate keys are these plus 1."""

    n_users: int
    n_items: int
    n_blocks: int = 4
    share: float = 0.6
    seed: int = 0

    @cached_property
    def pairs(self) -> list[Pair]:
        """Who likes what, sorted."""
        random = np.random.default_rng(self.seed)
        likes = random.random((self.n_users, self.n_items)) < self.share
        likes &= (np.arange(self.n_users) % self.n_blocks)[:, None] == (np.arange(self.n_items) % self.n_blocks)[None]
        return [(int(u), int(i)) for u, i in np.argwhere(likes)]

    @staticmethod
    def user(number: int) -> str:
        """The outside id of a user."""
        return f"user-{number:02d}"

    @staticmethod
    def item(number: int) -> str:
        """The outside id of an item."""
        return f"item-{number:02d}"


SMALL = World(60, 40)
MEDIUM = World(240, 120)
"""For some thousand erasures of one interaction each."""
LARGE = World(1200, 400, n_blocks=8, share=0.5)
"""For an hour of erasures: some 30,000 pairs."""


@dataclass
class Templates:
    """Homes that have learnt a world, made once for each kind of database.

    Args:
        folder: where they are kept.
        server: of the databases that are not files.
    """

    folder: Path
    server: PostgresServer | None
    disks: list[Disk] = field(default_factory=list)
    """That the server is on, where it has one of its own."""
    _tokens: dict[tuple[World, str], str] = field(default_factory=dict)

    def copy(self, world: World, database: str, home: Path, name: str) -> tuple[str | None, str]:
        """Put a copy into a folder and, where it is no file, into a database of this name.

        Returns the database's URL (None for the home's own) and an admin key.
        """
        kept = self.folder / f"{database}-{world.n_users}-{world.n_items}"
        source = f"kept-{world.n_users}-{world.n_items}"
        if (world, database) not in self._tokens:
            self._tokens[world, database] = self._make(world, database, kept, source)
        shutil.copytree(kept, home, dirs_exist_ok=True)
        if self.server is None or database == "sqlite":
            return None, self._tokens[world, database]
        return self.server.make(name, source), self._tokens[world, database]

    def _make(self, world: World, database: str, kept: Path, source: str) -> str:
        url = self.server.make(source) if database == "postgresql" and self.server is not None else None
        settings = load_settings(home=kept, database_url=url, **QUICK, **OPEN_GATE)
        with opened(settings) as home:
            identity = load_identity(settings)
            with home.database.write() as connection:
                for table, ids, digest in (
                    (users, [world.user(n) for n in range(world.n_users)], identity.user),
                    (items, [world.item(n) for n in range(world.n_items)], identity.item),
                ):
                    connection.execute(insert(table), [{"id": id, "digest": digest(id)} for id in ids])
                rows = [{"user_key": u + 1, "item_key": i + 1, "recorded_at": AT} for u, i in world.pairs]
                connection.execute(insert(interactions), rows)
            teach(home, go_live=True)
            now = SystemClock().now()
            made = home.database.transact(lambda write: create_key(write, "faults", frozenset({Scope.ADMIN}), now))
        return made.token
