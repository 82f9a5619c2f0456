"""Whether the database may be worked with: made with our key, not gone back in time, not damaged.

Each process looks when it starts and goes on looking. A database of another key or an older one is refused whole: its
answers would show what was erased, and what it accepted would take numbers that were given out before. A damaged one
answers what it can, is not ready, and says so. An older one is cleaned from the ledger of erasures that lies in the
store, where there is one, and then worked with.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import structlog
from sqlalchemy import Connection, func, inspect, select

from model_store import ModelStore, StoreError, Watermark
from service.platform import metrics
from service.platform.database import Database
from service.platform.identity import SecretRefused
from service.platform.page_check import PageCheck
from service.platform.problem import DatabaseBehind, DatabaseDamaged, Problem
from service.platform.secret_check import SecretCheck
from service.platform.tables import audit_entries, audit_head, batches, leases, metadata, versions

LOOK_SECONDS = 5.0
FIRST_PAGES_S = 5.0
SLICE_PAGES_S = 20.0
KEEP_UP_TRIES, KEEP_UP_PAUSE_S = 5, 0.05

LEDGER_EVENTS = (
    *("erasure.accepted", "erasure.cancelled", "erasure.forgotten", "erasure.erased"),
    *("erasure.extended", "erasure.refused", "erasure.refused_in_part", "erasure.hold_set", "erasure.hold_lifted"),
    *("erasure.approval_awaited", "erasure.approved"),
)
"""What the ledger is told of."""

Verdict = Literal["ok", "degraded", "failed"]

log = structlog.get_logger()


@dataclass(frozen=True)
class Finding:
    """What one look found: `failed` is not ready, `degraded` is and has something to tell."""

    status: Verdict
    detail: str


class CannotReplay(Exception):
    """The ledger does not tell all that a restored database lacks; the text says why."""


class LedgerOfErasures(Protocol):
    """What keeps the ledger; erasures make it."""

    def keep_up(self) -> bool:
        """Append what the ledger lacks; False where another is at it. Raises StoreError, Problem."""
        ...

    def finding(self) -> Finding:
        """Whether it is whole, and written."""
        ...


Replay = Callable[[Callable[[], bool]], int | None]
"""Cleans the database from the ledger, until the function given says to stop; None where that is not done yet. Raises
CannotReplay, StoreError, Problem."""

_SAME_KEY = Finding("ok", "the one that database and store were made with")


class Integrity:
    """The looks of one process, on a thread of its own; `findings` is what they found last.

    Args:
        database: it refuses its units with what is found against it.
        store: of the same home; its watermark is compared, and raised.
        secret: to ask the database once it answers, where it did not at the start; None where it needs no asking.
        pages_every_s: how often the pages of a SQLite file are read through.
        ledger: is written before the watermark rises.
        replay: cleans a database that went back in time; without it such a one is refused until it is mended.
    """

    def __init__(
        self,
        database: Database,
        store: ModelStore,
        secret: SecretCheck | None = None,
        *,
        pages_every_s: float = 3600.0,
        ledger: LedgerOfErasures | None = None,
        replay: Replay | None = None,
    ) -> None:
        self._database, self._store, self._secret = database, store, secret
        self._ledger, self._replay = ledger, replay
        self._pages = PageCheck(database.url.database) if database.is_sqlite and database.url.database else None
        self._pages_every_s, self._pages_at = pages_every_s, 0.0
        self._history = Finding("ok", "not compared yet")
        self._history_problem: DatabaseBehind | None = None
        self._cleaning = ""
        self._key: Finding | None = None
        self._marked: Watermark | None = None
        self._stop = threading.Event()
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look once, in bounded time, and go on looking in the background; never raises."""
        if self._secret is not None and self._secret.deferred is not None:
            self._database.refusal = self._secret.deferred
            self._key = Finding("failed", f"Not compared yet. {self._secret.deferred.detail}")
        else:
            self.look()
            self._read_pages(FIRST_PAGES_S)
        self._thread = threading.Thread(target=self._keep_looking, name="integrity", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a reading of pages that is under way is cut off."""
        self._stop.set()
        if self._pages is not None:
            self._pages.interrupt()
        if self._thread is not None:
            self._thread.join()

    def ensure(self) -> None:
        """Raise what is found against working with the database: SecretRefused, DatabaseBehind, DatabaseDamaged."""
        problem = self._database.refusal or self._database.damage
        if problem is not None:
            raise problem

    def findings(self) -> dict[str, Finding]:
        """The findings of the latest looks, by name."""
        found = {"history": self._history, "pages": self._pages_finding()}
        if self._ledger is not None:
            found["ledger"] = self._ledger.finding()
        return found if self._key is None else {"secret": self._key, **found}

    def look(self) -> None:
        """Compare the key and the history now, and raise the watermark where all is well; never raises."""
        with self._looking:
            self._look_at_key()
            self._look_at_history()

    def _keep_looking(self) -> None:
        self._clean()
        while not self._stop.wait(LOOK_SECONDS):
            self.look()
            self._clean()
            if time.monotonic() - self._pages_at >= self._pages_every_s:
                self._read_pages(SLICE_PAGES_S)

    def _clean(self) -> None:
        """Clean a database that went back in time from the ledger, and look again; never raises."""
        if self._replay is None or not isinstance(self._database.refusal, DatabaseBehind):
            return
        try:
            done = self._replay(self._stop.is_set)
        except (CannotReplay, StoreError) as error:
            self._note_cleaning(f"It cannot be cleaned from the ledger: {error}")
        except Problem as problem:
            self._note_cleaning(f"Cleaning it from the ledger goes on later ({problem.code}).")
        except Exception as error:  # the looks outlive every failure
            self._note_cleaning(f"Cleaning it from the ledger failed: {type(error).__name__}.")
        else:
            self._note_cleaning("It is being cleaned from the ledger." if done is None else "")
        self.look()

    def _note_cleaning(self, text: str) -> None:
        if text and text != self._cleaning:
            log.error("database.not_cleaned", detail=text)
        self._cleaning = text

    def _look_at_key(self) -> None:
        if self._secret is None:
            return
        if self._secret.complete:
            self._key = self._key or _SAME_KEY
            return
        try:
            self._secret.unlock()
        except SecretRefused as problem:
            if self._database.refusal is None or self._database.refusal.code != problem.code:
                log.error("secret.refused", detail=problem.detail)
            self._key, self._database.refusal = Finding("failed", problem.detail), problem
        except Problem as problem:
            self._key, self._database.refusal = Finding("failed", f"Not compared yet. {problem.detail}"), problem
        else:
            self._key = _SAME_KEY
            if not isinstance(self._database.refusal, DatabaseBehind):
                self._database.refusal = None

    def _look_at_history(self) -> None:
        try:
            behind = compare(self._database, self._store)
        except Problem as problem:  # the database's own check tells; what was found against it before still holds
            self._history = Finding(self._history.status, f"not compared ({problem.code})")
            return
        except StoreError as error:
            self._history = Finding("degraded", f"not compared: {error}")
            return
        metrics.database_behind.set(behind is not None)
        if behind is None:
            self._history = Finding("ok", "the database knows all that the model store has seen")
            if self._history_problem is not None and self._database.refusal is self._history_problem:
                self._database.refusal = None
            self._history_problem = None
            self._raise_watermark()
            return
        if self._history_problem is None:
            self._history_problem = DatabaseBehind(behind)
            log.error("database.behind", detail=behind)
        self._history = Finding("failed", f"{self._history_problem.detail} {self._cleaning}".strip())
        if not isinstance(self._database.refusal, SecretRefused):
            self._database.refusal = self._history_problem

    def _raise_watermark(self) -> None:
        if self._database.refusal is None and self._ledger_is_written():
            self._marked = raise_watermark(self._database, self._store, self._marked)

    def _ledger_is_written(self) -> bool:
        """Whether the ledger tells of all that the watermark will: else a restored database could not be cleaned."""
        if self._ledger is None:
            return True
        try:
            for _ in range(KEEP_UP_TRIES):
                if self._ledger.keep_up():
                    return True
                self._stop.wait(KEEP_UP_PAUSE_S)
        except StoreError:  # told by its own check; what the mark knows is better than nothing
            return True
        except Problem:
            return False
        return False

    def _read_pages(self, seconds: float) -> None:
        if self._pages is None:
            return
        try:
            whole = self._pages.run(seconds)
        except Exception as error:  # a file that is not there, or not to be opened: the database's own check tells
            log.warning("pages.not_read", error=type(error).__name__)
            self._pages_at = time.monotonic()
            return
        # Where the time was too short the next look goes on with the tables that are left.
        self._pages_at = time.monotonic() if whole else 0.0
        if self._pages.damaged:
            self._database.note_damage(DatabaseDamaged(f"Damaged: {', '.join(self._pages.damaged)}."))
        elif whole:
            self._database.forgive_damage()

    def _pages_finding(self) -> Finding:
        if self._database.damage is not None:
            return Finding("failed", self._database.damage.detail)
        if self._pages is None:
            return Finding("ok", "no page was found damaged; PostgreSQL keeps checksums of its own")
        return Finding("ok", self._pages.told())


def compare(database: Database, store: ModelStore) -> str | None:
    """What the store has seen and the database does not know, in a sentence; None where it knows all.

    A version that is in the store alone is no sign: a batch that crashed leaves one. But its number was reserved in the
    database before its first byte was written: a number that was never reserved is a sign.

    Raises:
        StoreError: the watermark cannot be read.
        Problem: the database does not answer.
    """
    # The store first: what is in it by now was in the database before, so the later look must find it.
    last = _last_entry(store)
    if last is not None and not database.query(lambda connection: _knows(connection, *last)):
        return (
            f"The ledger of erasures ends with entry {last[0]:,} of the audit log, and the database has none, or "
            "another one, in its place."
        )
    mark, numbers = store.markers.watermark(), store.numbers("versions")

    def unit(connection: Connection) -> str | None:
        if not inspect(connection).has_table(audit_head.name):
            return None if mark is None and not numbers else _EMPTY
        return _forgotten(connection, mark, max(numbers, default=0))

    return database.query(unit)


_EMPTY = "The model store is in use, and the database has no schema, so nothing that belongs to it."


def _forgotten(connection: Connection, mark: Watermark | None, newest: int) -> str | None:
    if mark is not None:
        size = connection.scalar(select(audit_head.c.size)) or 0
        seen = f"The model store has seen {mark.entries:,} entries of the audit log"
        if size < mark.entries:
            return f"{seen} and version {mark.version}; the database has {size:,} and version {_highest(connection)}."
        if mark.entries and leaf_of(connection, mark.entries) != mark.leaf:
            return f"{seen}, and the last of them is another one in the database: an older one was put in and went on."
    known = _given_out(connection)
    if newest > known:
        return f"The model store holds version {newest}, a number that the database never gave out: it knows {known}."
    return None


def unknown_versions(database: Database, store: ModelStore) -> list[int]:
    """Versions in the store whose numbers the database never gave out."""
    numbers = store.numbers("versions")
    known = database.query(_given_out)
    return [number for number in numbers if number > known]


def position(connection: Connection) -> Watermark:
    """How far the database has come."""
    size = connection.scalar(select(audit_head.c.size)) or 0
    epoch = connection.scalar(select(func.max(leases.c.epoch))) or 0
    events = select(audit_entries.c.leaf_hash).where(audit_entries.c.event.in_(LEDGER_EVENTS))
    erasure: bytes | None = connection.scalar(events.order_by(audit_entries.c.seq.desc()).limit(1))
    told = "" if erasure is None else erasure.hex()
    return Watermark(size, _highest(connection), epoch, leaf_of(connection, size), told)


def raise_watermark(
    database: Database, store: ModelStore, before: Watermark | None = None, *, anew: bool = False
) -> Watermark | None:
    """Write into the store how far the database has come by what it has committed; returns the mark that stands.

    Never raises for a store that cannot be written: the next one comes. `anew` takes the database as the truth whatever
    the store has seen. Call it only after `compare` found nothing.
    """
    try:
        mark = database.query(lambda connection: position(connection) if _is_migrated(connection) else None)
        if mark is None or (mark == before and not anew):
            return before
        store.markers.raise_watermark(mark, anew=anew)
    except (Problem, StoreError) as error:
        log.warning("watermark.not_raised", error=type(error).__name__)
        return before
    return mark


def read_both_ends(connection: Connection) -> None:
    """Read the first and the last row of every table by every index: what answers and accepts reads the same trees."""
    for table in metadata.sorted_tables:
        indexes = [list(table.primary_key.columns), *(list(index.columns) for index in table.indexes)]
        for columns in indexes:
            for order in ([column.asc() for column in columns], [column.desc() for column in columns]):
                connection.execute(select(table).order_by(*order).limit(1)).first()


def _is_migrated(connection: Connection) -> bool:
    return bool(inspect(connection).has_table(audit_head.name))


def _last_entry(store: ModelStore) -> tuple[int, str] | None:
    """(seq, leaf) of the last entry that the ledger knows the database to have.

    A replay says how far the database had come by then: the same backup put in a second time, before the ledger tells
    of what was stored again, is found by that.
    """
    try:
        record = store.ledger.last()
    except StoreError:  # a damaged ledger is told by its own check, and says nothing about the database
        return None
    if record is None:
        return None
    return int(record.facts.get("head_seq", record.seq)), str(record.facts.get("head_leaf", record.leaf))


def _knows(connection: Connection, seq: int, leaf: str) -> bool:
    return seq == 0 or (_is_migrated(connection) and leaf_of(connection, seq) == leaf)


def _given_out(connection: Connection) -> int:
    return max(connection.scalar(select(func.max(batches.c.version))) or 0, _highest(connection))


def _highest(connection: Connection) -> int:
    return connection.scalar(select(func.max(versions.c.version))) or 0


def leaf_of(connection: Connection, seq: int) -> str:
    """The hash of an entry of the audit log, hex; empty where there is none."""
    leaf: bytes | None = connection.scalar(select(audit_entries.c.leaf_hash).where(audit_entries.c.seq == seq))
    return "" if leaf is None else leaf.hex()
