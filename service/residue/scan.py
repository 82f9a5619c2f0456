"""The search of every store for what is left of erased subjects. Works alike before a purge and long after one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from model_store import ModelStore
from service.platform.clock import Clock, SystemClock, rfc3339
from service.platform.database import Database
from service.platform.embedded_server import is_embedded
from service.platform.problem import Unavailable
from service.platform.redis import ErasureStream
from service.residue import columns_repository as sql
from service.residue.byte_search import Matches
from service.residue.byte_sources import files_below, read_plain
from service.residue.collecting import MatchVerdict, OutOfTime, Progress, SearchBudget, StoreSearch, all_residue
from service.residue.database_files import search_database_files
from service.residue.expected_absence import ExpectedAbsence
from service.residue.model_files import ModelFolder, UnreadableTensors, holds_tensors, model_folders, read_tensors
from service.residue.needles import Needle, Needles
from service.residue.report import NeedleKind, ResidueReport, ResidueStore, StoreResult
from service.residue.tensor_search import search_tensors
from service.settings import Settings

PURGE_FOLDER = "purge"
"""Below the home: the needles of a purge lie here, and they alone are not searched."""
NEEDLES_SUFFIX = ".needles"
_PUBLIC = "datasets"
_CHECKPOINT = re.compile(r"\.?(?:shadow-([0-9]{1,18})-|compaction-)")
"""Of a base's shadow, or the data that a compaction took, whose keys tell what they hold."""
_DIGEST_COLUMNS = {("suppressions", "user_digest"), ("suppressions", "item_digest")}
_BY_TOMBSTONE = "A suppression or a tombstone keeps it: late writes are refused by it."
_BY_LEDGER = "The ledger keeps it: a database that is restored is cleaned by it."


class ResidueScan:
    """The search of one home.

    Args:
        database: its columns are read, and its files.
        store: the model store.
        stream: whose live keys are read; None: there is none, or it is not reached.
        settings: where the home is, and whether the stream's server is its own.
        clock: gives the instant on record.
    """

    def __init__(
        self,
        database: Database,
        store: ModelStore,
        stream: ErasureStream | None,
        settings: Settings,
        clock: Clock | None = None,
    ) -> None:
        self._database, self._store, self._stream, self._settings = database, store, stream, settings
        self._clock = clock or SystemClock()

    def run(
        self,
        needles: Needles,
        progress: Progress | None = None,
        *,
        seconds: float | None = None,
        stopping: Callable[[], bool] | None = None,
    ) -> ResidueReport:
        """Search for these needles, for `seconds` at most and until `stopping` says so.

        What there was no time for is told as not checked.

        Nothing is changed. Places are named, needles never.

        Raises:
            StorageUnavailable: the database does not answer.
        """
        began = time.monotonic()
        at = rfc3339(self._clock.now())
        budget = SearchBudget(None if seconds is None else began + seconds, progress, stopping)
        expected = self._database.query(lambda connection: ExpectedAbsence.of(connection, needles))
        search = _HomeSearch(self._database, self._store, self._stream, self._settings, expected, budget)
        stores = search.run()
        return ResidueReport(at, time.monotonic() - began, stores, expected.counts, _notes(needles, expected))


class _HomeSearch:
    """One search under way."""

    def __init__(
        self,
        database: Database,
        store: ModelStore,
        stream: ErasureStream | None,
        settings: Settings,
        expected: ExpectedAbsence,
        budget: SearchBudget,
    ) -> None:
        self._database, self._store, self._stream, self._settings = database, store, stream, settings
        self._expected, self._budget = expected, budget
        self._stores = {store: self._new(store) for store in ResidueStore}
        self._folders = {folder.path: folder for folder in model_folders(store.root)}

    def run(self) -> list[StoreResult]:
        steps: tuple[tuple[tuple[ResidueStore, ...], Callable[[], None]], ...] = (
            ((ResidueStore.COLUMNS,), self._search_columns),
            ((ResidueStore.DATABASE_FILES, ResidueStore.WRITE_AHEAD_LOG), self._search_database_files),
            (
                (ResidueStore.MODEL_STORE, ResidueStore.CHECKPOINTS, ResidueStore.STREAM_FILES, ResidueStore.HOME),
                self._search_home,
            ),
            ((ResidueStore.STREAM,), self._search_stream),
        )
        for stores, step in steps:
            try:
                step()
            except OutOfTime:
                for store in stores:
                    self._stores[store].unread("There was no time to search all of it.")
        self._stores[ResidueStore.PROCESS_LOGS].unread(
            "Log lines go to standard error; whoever collects them keeps them. No field of one holds an id of a person."
        )
        return [search.result for search in self._stores.values()]

    def _new(self, store: ResidueStore) -> StoreSearch:
        in_stream = store in (ResidueStore.STREAM, ResidueStore.STREAM_FILES)
        search = self._expected.in_stream if in_stream else self._expected.everywhere
        patterns = self._expected.stream_patterns if in_stream else self._expected.patterns
        return StoreSearch(StoreResult(store), self._budget, search, patterns)

    def _search_columns(self) -> None:
        columns = self._stores[ResidueStore.COLUMNS]
        expected = self._expected
        for table, name in self._database.query(sql.columns_with_text):
            judge = self._by_tombstone if (table, name) in _DIGEST_COLUMNS else None
            with self._database.read() as connection:
                values = sql.values_of(connection, table, name)
                columns.bytes_of(f"{table}.{name}", values, judge, offsets=False)
        with self._database.read() as connection:
            keys = (list(expected.users), list(expected.items), list(expected.pairs))
            for place, row in sql.rows_with_keys(connection, *keys):
                if place == "interactions":
                    columns.residue(place, NeedleKind.EDGE, row.n, expected.pairs[row.what])
                else:
                    owners = expected.users if "user" in place else expected.items
                    columns.residue(place, NeedleKind.KEY, row.n, owners[row.what])
            for place, row in sql.rows_of_erasures(connection, expected.needles.erasures):
                columns.residue(place, _KIND_OF_CELL[place], row.n, [row.what])

    def _search_database_files(self) -> None:
        files, log = (self._stores[each] for each in (ResidueStore.DATABASE_FILES, ResidueStore.WRITE_AHEAD_LOG))
        search_database_files(self._database, files, log, self._expected.suppressed)

    def _search_home(self) -> None:
        home, root = self._settings.home, self._store.root
        own = _sqlite_files(self._database)
        places = [home] if root.is_relative_to(home) else [home, root]
        for folder in places:
            for path, obstacle in files_below(folder):
                if path not in own:
                    self._search_file(path, obstacle)
        if not is_embedded(self._settings.home, self._settings.redis_url):
            self._stores[ResidueStore.STREAM_FILES].unread(
                "EXPUNGE_REDIS_URL names a server of yours: its append-only file and snapshots are not reached from "
                "here. Have it rewrite them (BGREWRITEAOF, BGSAVE)."
            )

    def _search_file(self, path: Path, obstacle: str | None) -> None:
        name = self._name(path)
        top = name.split("/")[0]
        if top == _PUBLIC or (top == PURGE_FOLDER and NEEDLES_SUFFIX in path.name):
            return
        search = self._stores[self._store_of(path, top)]
        if search.bytes_of(f"{top}/: the name of a file", [name.encode()], offsets=False):
            name = f"{top}/: a file whose name tells it"
        if obstacle is not None:
            search.unread(f"{name} {obstacle}.")
            return
        in_ledger = path.is_relative_to(self._store.root) and path.relative_to(self._store.root).parts[0].startswith(
            "ledger"
        )
        try:
            search.bytes_of(name, read_plain(path), _by_ledger if in_ledger else None)
            if holds_tensors(path):
                self._search_structure(search, path, name)
        except FileNotFoundError:
            return  # it went while the home was searched
        except OSError as error:
            search.unread(f"{name} cannot be read ({error.strerror or type(error).__name__}).")

    def _search_structure(self, search: StoreSearch, path: Path, name: str) -> None:
        folder = self._folders.get(path.parent)
        self._judge_lineage(search, path, name, folder)
        try:
            tensors = read_tensors(path)
        except UnreadableTensors:
            if path.exists():
                search.unread(f"{name} is damaged: only its bytes were searched, not its tensors.")
            return
        keys = None if folder is None else folder.keys()
        for found in search_tensors(tensors, keys, self._expected, self._expected.needles.rows):
            place = f"{name}#{found.tensor}"
            search.residue(place, found.kind, found.n, found.erasures, None, found.spelling)

    def _judge_lineage(self, search: StoreSearch, path: Path, name: str, folder: ModelFolder | None) -> None:
        """Whether it was made from data that held the subjects, by what it was made for."""
        kept = self._expected.needles.base
        if kept is None:
            return
        erasures = self._expected.needles.erasures
        if folder is not None:
            if folder.is_older_than(kept):
                search.residue(name, NeedleKind.LINEAGE, 1, erasures, note=f"It comes from a base before {kept}.")
        elif search.result.store is ResidueStore.CHECKPOINTS:
            made = _CHECKPOINT.match(path.name)
            if made is None:
                search.unread(f"{name}: of which data it was made is not known; its bytes and tensors were searched.")
            elif made[1] and int(made[1]) < kept:
                search.residue(name, NeedleKind.LINEAGE, 1, erasures, note=f"It was made for a base before {kept}.")

    def _search_stream(self) -> None:
        search = self._stores[ResidueStore.STREAM]
        if self._stream is None:
            search.unread("It is not reached from here: the service runs it, or EXPUNGE_REDIS_URL names it.")
            return
        try:
            for key, values in self._stream.contents():
                search.bytes_of(key, values, offsets=False)
        except Unavailable as problem:
            search.unread(problem.detail)

    def _by_tombstone(self, needle: Needle, matches: Matches) -> MatchVerdict:
        if needle.kind is NeedleKind.DIGEST:
            return MatchVerdict(0, allowed=matches.count, why=_BY_TOMBSTONE)
        return all_residue()(needle, matches)

    def _name(self, path: Path) -> str:
        for folder in (self._settings.home, self._store.root.parent):
            if path.is_relative_to(folder):
                return path.relative_to(folder).as_posix()
        return path.name

    def _store_of(self, path: Path, top: str) -> ResidueStore:
        if path.is_relative_to(self._store.root):
            return ResidueStore.MODEL_STORE
        return {"checkpoints": ResidueStore.CHECKPOINTS, "valkey": ResidueStore.STREAM_FILES}.get(
            top, ResidueStore.HOME
        )


_KIND_OF_CELL = {
    "erasure_targets": NeedleKind.TARGET,
    "outbox": NeedleKind.REQUEST,
    "idempotency": NeedleKind.IDEMPOTENCY,
    "erasures.salt": NeedleKind.SALT,
    "erasures.reason": NeedleKind.REASON,
    "erasures.extension_reason": NeedleKind.REASON,
}


def _by_ledger(needle: Needle, matches: Matches) -> MatchVerdict:
    if needle.kind is NeedleKind.DIGEST:
        return MatchVerdict(0, allowed=matches.count, why=_BY_LEDGER)
    return all_residue()(needle, matches)


def _sqlite_files(database: Database) -> set[Path]:
    if not database.is_sqlite or database.url.database is None:
        return set()
    return {Path(f"{database.url.database}{end}").absolute() for end in ("", "-wal", "-shm", "-journal")}


def _notes(needles: Needles, expected: ExpectedAbsence) -> list[str]:
    notes = []
    short, common = expected.counts["too_short"], expected.counts["in_texts_that_stay"]
    if short:
        notes.append(
            f"{short} ids or texts of fewer than 8 bytes cannot be told from other bytes: they were looked for by "
            "their rows, keys and digests alone."
        )
    if common:
        notes.append(
            f"{common} ids or texts are written by right elsewhere (as another's id, title or reason): they were "
            "looked for by their rows, keys and digests alone."
        )
    if expected.counts["in_use"]:
        notes.append(
            f"{expected.counts['in_use']} users, items or pairs may be there: recorded again with consent, or named by "
            "an erasure that is not over, with which they go."
        )
    if not needles.gathered:
        notes.append(
            "Vectors and reasons are known only while a purge runs, and keys only while the vocabulary has the id: "
            "what was presented is ids, and a salt where one was given."
        )
    return notes
