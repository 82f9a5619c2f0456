"""Bringing a whole data set into SQL: in chunks, each one transaction, so that erasures are accepted in between."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from service.audit import service as audit
from service.interactions import repository
from service.interactions.formats import Progress
from service.interactions.repository import Keys, Suppressed
from service.platform.clock import Clock, SystemClock
from service.platform.database import Database
from service.platform.identity import Identity
from service.recommender.dataset import Dataset, Rows

CHUNK_PAIRS = 50_000
CHUNK_IDS = 20_000


@dataclass(frozen=True)
class ImportReport:
    """What an import did, in interactions of the train part; the three add up to its size."""

    recorded: int
    duplicates: int
    """Recorded before."""
    refused: int
    """Covered by an erasure: not recorded again."""


@dataclass
class _Import:
    """The data set in digests, and which of its pairs may be recorded as the log stands."""

    dataset: Dataset
    users: list[bytes]
    items: list[bytes]
    titles: dict[bytes, tuple[str, str]]
    log_size: int = field(default=-1, init=False)
    suppressed: Suppressed = field(init=False)
    allowed: NDArray[np.bool_] = field(init=False)

    def refresh(self, connection: Connection) -> bool:
        """Keep erasures from being accepted until the transaction ends, and look again if one was since.

        Returns whether anything was put on record since: rows of the vocabulary may be purged.
        """
        size = audit.lock_shared(connection)
        changed = size != self.log_size
        if changed:
            self.suppressed = repository.suppressed_all(connection)
            self.allowed = ~_covered(self.dataset.train, self.users, self.items, self.suppressed)
            self.log_size = size
        return changed

    def register_again(self, connection: Connection, chunk: slice) -> tuple[Keys, Keys]:
        """Have a key for every row of the vocabularies that a chunk needs; returns the keys of all rows."""
        rows = self.dataset.train[chunk][self.allowed[chunk]]
        for side, vocabulary, digests, register in (
            (0, self.dataset.users, self.users, repository.register_users),
            (1, self.dataset.items, self.items, repository.register_items),
        ):
            needed = {digests[row]: vocabulary.ids[row] for row in np.unique(rows[:, side])}
            for part in _slices(len(needed), CHUNK_IDS):
                register(connection, dict(list(needed.items())[part]))
        return _keys(connection, self)

    def users_to_register(self) -> dict[bytes, str]:
        """Digest and id of each user with a pair that may be recorded."""
        rows = np.unique(self.dataset.train[self.allowed, 0])
        return {self.users[row]: self.dataset.users.ids[row] for row in rows}

    def items_to_register(self) -> dict[bytes, str]:
        """Digest and id of each item with such a pair, or with a title and not suppressed."""
        rows = np.unique(self.dataset.train[self.allowed, 1])
        wanted = {self.items[row]: self.dataset.items.ids[row] for row in rows}
        titled = {digest: id for digest, (id, _) in self.titles.items() if digest not in self.suppressed.items}
        return titled | wanted


def import_dataset(
    database: Database,
    identity: Identity,
    dataset: Dataset,
    progress: Progress | None = None,
    *,
    clock: Clock | None = None,
) -> ImportReport:
    """Record the train part of a data set, with the titles of its items; doing it again changes nothing.

    What an erasure covers is refused and counted, even one that is accepted while this runs. The test part stays out:
    it is for evaluation.

    Args:
        database: brought up to the newest schema.
        identity: makes the digests.
        dataset: what to record.
        progress: told (pairs done, pairs in all) after each chunk.
        clock: gives `recorded_at`.
    """
    work = _Import(
        dataset,
        [identity.user(id) for id in dataset.users.ids],
        [identity.item(id) for id in dataset.items.ids],
        {identity.item(id): (id, title) for id, title in dataset.titles.items()},
    )
    _register(database, work)
    user_keys, item_keys = database.query(lambda connection: _keys(connection, work))
    recorded = refused = done = 0
    at = (clock or SystemClock()).now()
    for chunk in _slices(len(dataset.train), CHUNK_PAIRS):

        def unit(connection: Connection, chunk: slice = chunk) -> tuple[int, int]:
            nonlocal user_keys, item_keys
            if work.refresh(connection):
                user_keys, item_keys = work.register_again(connection, chunk)
            allowed = work.allowed[chunk]
            pairs = dataset.train[chunk][allowed]
            users, items = user_keys[pairs[:, 0]].tolist(), item_keys[pairs[:, 1]].tolist()
            return repository.record(connection, users, items, at), len(allowed) - len(pairs)

        new, kept_out = database.transact(unit)
        recorded, refused, done = recorded + new, refused + kept_out, min(chunk.stop, len(dataset.train))
        if progress is not None:
            progress(done, len(dataset.train))
    return ImportReport(recorded, len(dataset.train) - recorded - refused, refused)


def _register(database: Database, work: _Import) -> None:
    def users(connection: Connection) -> None:
        work.refresh(connection)
        wanted = work.users_to_register()
        for part in _slices(len(wanted), CHUNK_IDS):
            repository.register_users(connection, dict(list(wanted.items())[part]))

    def items(connection: Connection) -> None:
        work.refresh(connection)
        wanted = work.items_to_register()
        for part in _slices(len(wanted), CHUNK_IDS):
            repository.register_items(connection, dict(list(wanted.items())[part]))
        titles = {digest: title for digest, (_, title) in work.titles.items() if digest in wanted}
        repository.set_titles(connection, titles)

    database.transact(users)
    database.transact(items)


def _keys(connection: Connection, work: _Import) -> tuple[Keys, Keys]:
    """Surrogate key of each row of the vocabularies, -1 where all its pairs are refused."""
    users = repository.user_keys(connection, work.users)
    items = repository.item_keys(connection, work.items)
    return _array(work.users, users), _array(work.items, items)


def _array(digests: Sequence[bytes], keys: dict[bytes, int]) -> Keys:
    return np.array([keys.get(digest, -1) for digest in digests], np.int64)


def _covered(train: Rows, users: Sequence[bytes], items: Sequence[bytes], suppressed: Suppressed) -> NDArray[np.bool_]:
    """(m,) bool: which pairs are suppressed."""
    covered = np.zeros(len(train), np.bool_)
    if not suppressed:
        return covered
    whole_users = np.array([digest in suppressed.users for digest in users], np.bool_)
    whole_items = np.array([digest in suppressed.items for digest in items], np.bool_)
    covered = whole_users[train[:, 0]] | whole_items[train[:, 1]]
    user_rows = {digest: row for row, digest in enumerate(users)}
    item_rows = {digest: row for row, digest in enumerate(items)}
    named = [
        user_rows[user] * len(items) + item_rows[item]
        for user, item in suppressed.pairs
        if user in user_rows and item in item_rows
    ]
    codes = train[:, 0].astype(np.int64) * len(items) + train[:, 1]
    return covered | np.isin(codes, np.array(named, np.int64))


def _slices(total: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, total, step))
