"""The files of the database: SQLite's own, or those of a PostgreSQL server, read through it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from service.platform.database import Database
from service.platform.problem import Problem
from service.residue import columns_repository as columns
from service.residue import postgresql_repository as server
from service.residue.byte_search import Matches
from service.residue.byte_sources import read_apart
from service.residue.collecting import Judge, MatchVerdict, StoreSearch
from service.residue.needles import Needle
from service.residue.report import NeedleKind

SUPPRESSIONS = "suppressions"
_WAL_HEADER, _FRAME_HEADER = 32, 24
_BY_TOMBSTONE = "A page of suppressions and tombstones, which keep it."
_LOGGED_TOMBSTONE = "A suppression or a tombstone keeps it; records of its own writing cannot be told from others."


def search_database_files(database: Database, files: StoreSearch, log: StoreSearch, suppressed: set[bytes]) -> None:
    """Search the files of tables and indexes, and the write-ahead log.

    Args:
        database: whose files they are.
        files: grows by what is in tables and indexes.
        log: grows by what is in the write-ahead log.
        suppressed: digests that suppressions keep: where these have their pages, they may be.
    """
    if database.is_sqlite:
        _search_sqlite(database, files, log, suppressed)
    else:
        _search_postgresql(database, files, log, suppressed)


def _search_sqlite(database: Database, files: StoreSearch, log: StoreSearch, suppressed: set[bytes]) -> None:
    path = Path(str(database.url.database))
    pages = _SqlitePages(database, path, suppressed)
    for search, end, judge in (
        (files, "", pages.in_file),
        (files, "-journal", None),
        (log, "-wal", pages.in_log),
        (log, "-shm", None),
    ):
        file = Path(f"{path}{end}")
        try:
            search.bytes_of(file.name, read_apart(file), judge)
        except OSError as error:
            search.unread(f"{file.name} cannot be read ({error.strerror or type(error).__name__}).")


class _SqlitePages:
    """Which page belongs to what; looked up when something was found."""

    def __init__(self, database: Database, path: Path, suppressed: set[bytes]) -> None:
        self._database, self._path, self._suppressed = database, path, suppressed
        self._owners: dict[int, str] | None = None
        self._page_size = 0

    def in_file(self, needle: Needle, matches: Matches) -> MatchVerdict:
        """Matches in the file itself."""
        self._look()
        return self._judge(needle, matches, [offset // self._page_size + 1 for offset in matches.offsets], "")

    def in_log(self, needle: Needle, matches: Matches) -> MatchVerdict:
        """Matches in the write-ahead log, by the present owner of the page that a frame is of."""
        self._look()
        frame, pages = self._page_size + _FRAME_HEADER, list[int]()
        # It takes no lock on this file: opening it here is safe.
        with Path(f"{self._path}-wal").open("rb") as log:
            for offset in matches.offsets:
                log.seek(max(offset - _WAL_HEADER, 0) // frame * frame + _WAL_HEADER)
                pages.append(int.from_bytes(log.read(4), "big"))
        return self._judge(needle, matches, pages, "No truncating checkpoint has emptied it. ")

    def _judge(self, needle: Needle, matches: Matches, pages: list[int], note: str) -> MatchVerdict:
        assert self._owners is not None
        owners = [self._owners.get(page) for page in pages]
        may = needle.kind is NeedleKind.DIGEST and _digest_of(needle) in self._suppressed
        allowed = sum(owner == SUPPRESSIONS for owner in owners) if may else 0
        left = [place for place, owner in enumerate(owners) if not (may and owner == SUPPRESSIONS)]
        count = matches.count - allowed
        if not count:
            return MatchVerdict(0, allowed=allowed, why=_BY_TOMBSTONE)
        named = sorted({f"pages of {owners[place]}" if owners[place] else "free pages" for place in left})
        at = matches.offsets[left[0]] if left else None
        return MatchVerdict(count, at, f"{note}In {', '.join(named)}.", allowed, _BY_TOMBSTONE)

    def _look(self) -> None:
        if self._owners is None:
            self._owners, self._page_size = self._database.query(columns.sqlite_pages)


def _search_postgresql(database: Database, files: StoreSearch, log: StoreSearch, suppressed: set[bytes]) -> None:
    access = database.query(server.access)
    if not access.may_read:
        grants = server.GRANTS.format(role=access.role)
        for search in (files, log):
            search.unread(f"This role may not read the server's files. To have them searched, run: {grants}")
        return
    try:
        written = database.query(server.write_out)
    except Problem:
        written = False
    if not written:
        why = "what the server holds in memory alone was not written out first (no role pg_checkpoint)."
        files.unread(f"Only what is on the disk was searched: {why}")
    for file in database.query(lambda connection: list(server.data_files(connection))):
        where = file.path if file.relation is None else f"{file.path} ({file.relation})"
        own = file.relation == SUPPRESSIONS
        _search_server_file(database, files, file.path, where, _judge_of(suppressed, own, _BY_TOMBSTONE))
    for file in database.query(lambda connection: list(server.log_files(connection))):
        _search_server_file(database, log, file.path, file.path, _judge_of(suppressed, True, _LOGGED_TOMBSTONE))
    if access.compresses_log:
        log.unread("wal_compression is on: page images in the log are compressed, and were not seen. Turn it off.")
    pins = database.query(server.pins) if files.result.places or log.result.places else []
    _explain(files, pins, "Dead rows, or pages that hold them still: no VACUUM has taken them away.")
    keeping = database.query(server.log_keeping) if log.result.places else []
    _explain(log, [*pins, *keeping], "Segments that were not recycled or written over yet.")


def _search_server_file(database: Database, search: StoreSearch, path: str, where: str, judge: Judge) -> None:
    with database.read() as connection:
        search.bytes_of(where, server.read_file(connection, path), judge)


def _judge_of(suppressed: set[bytes], may_hold: bool, why: str) -> Judge:
    def judge(needle: Needle, matches: Matches) -> MatchVerdict:
        if may_hold and needle.kind is NeedleKind.DIGEST and _digest_of(needle) in suppressed:
            return MatchVerdict(0, allowed=matches.count, why=why)
        return MatchVerdict(matches.count, matches.offsets[0])

    return judge


def _explain(search: StoreSearch, keeping: Sequence[str], what: str) -> None:
    note = " ".join([what, *(["Kept by: " + "; ".join(keeping) + "."] if keeping else [])])
    for place in search.result.places:
        place.note = note


def _digest_of(needle: Needle) -> bytes:
    return needle.pattern if needle.spelling == "raw" else bytes.fromhex(needle.pattern.decode())
