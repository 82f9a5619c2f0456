"""Signs the log's heads: never one that does not continue what was signed before."""

import asyncio
import contextlib

import structlog
from sqlalchemy import Connection

from service.audit import keys, repository
from service.audit.repository import KeyRow
from service.audit.timestamps import Timestamps
from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.note import SignedNote, SigningKey
from service.audit.tree import LogDamaged, store_nodes, tree_of
from service.audit.witnesses import Witnesses
from service.platform import metrics
from service.platform.clock import Clock
from service.platform.database import Database
from service.platform.problem import Problem

log = structlog.get_logger()


class CheckpointPublisher:
    """Signs the log's head, on demand and at an interval, and asks witnesses to cosign it.

    Any number of processes may publish: of one size there is one text, one signature and one row.

    Args:
        database: where the log is.
        key: signs; its name is the log's name.
        clock: gives the instants on record.
        witnesses: who cosigns; none by default.
        timestamps: who stamps heads with the time; nobody by default.
        interval_s: how often a log that grew is signed without being asked.
    """

    def __init__(
        self,
        database: Database,
        key: SigningKey,
        clock: Clock,
        witnesses: Witnesses | None = None,
        timestamps: Timestamps | None = None,
        *,
        interval_s: float = 10.0,
    ) -> None:
        self._database, self._key, self._clock = database, key, clock
        self._witnesses, self._timestamps, self._interval_s = witnesses, timestamps, interval_s
        self._task: asyncio.Task[None] | None = None
        self._on_record = False

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._key.verifier.name

    @property
    def key(self) -> SigningKey:
        """The key that signs now."""
        return self._key

    async def start(self) -> None:
        """Begin to sign in the background; returns at once."""
        self._task = asyncio.create_task(self._work(), name="checkpoints")

    async def stop(self) -> None:
        """End; a head that is not signed is signed by whoever is asked next."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def keys(self) -> list[KeyRow]:
        """Every key that ever signed, the oldest first."""
        await self._record_key()
        return await self._database.run_read(repository.keys)

    async def latest(self) -> tuple[LogCheckpoint, str]:
        """The head of the log as it is now, signed: what it says, and the note.

        Raises:
            LogDamaged: it would not continue what was signed before.
        """
        await self._record_key()
        size, signed = await self._database.run_read(_sizes)
        if signed is None or signed[0] < size:
            await self._sign(size)
            # Read together: others write and sign meanwhile, and a head is judged by the log as it was beside it.
            size, signed = await self._database.run_read(_sizes)
        assert signed is not None
        if signed[0] > size:
            msg = f"It has {size} entries, and a head of {signed[0]} was signed."
            raise LogDamaged(msg)
        return LogCheckpoint.parse(SignedNote.parse(signed[1]).text), signed[1]

    async def covering(self, size: int) -> tuple[LogCheckpoint, str]:
        """The smallest head with at least `size` entries that the present key signed: the same answer each time."""
        await self._record_key()
        found = await self._database.run_read(lambda connection: self._signed_now(connection, size))
        if found is None:
            return await self.latest()
        return LogCheckpoint.parse(found.text), str(found)

    def _signed_now(self, connection: Connection, size: int) -> SignedNote | None:
        key = self._key.verifier
        since = next((row.since for row in repository.keys(connection) if row.vkey == str(key)), None)
        found = repository.checkpoint_of(connection, size, since)
        note = None if found is None else SignedNote.parse(found[1])
        own = note is not None and any((each.name, each.key_id) == (key.name, key.key_id) for each in note.signatures)
        return note if own else None

    async def _sign(self, size: int) -> None:
        while await self._database.run_write(lambda connection: store_nodes(connection, size)):
            pass
        checkpoint = await self._database.run_read(lambda connection: self._head(connection, size))
        if checkpoint is None:
            return
        note = str(SignedNote(checkpoint.text()).signed(self._key.sign(checkpoint.text())))
        at = self._clock.now()
        await self._database.run_write(lambda connection: repository.insert_checkpoint(connection, size, note, at))

    async def _record_key(self) -> None:
        if not self._on_record:
            at, key = self._clock.now(), self._key.verifier
            await self._database.run_write(lambda connection: keys.put_on_record(connection, key, at))
            self._on_record = True

    def _head(self, connection: Connection, size: int) -> LogCheckpoint | None:
        """The head to sign; None where somebody has signed a later one since `size` was read."""
        stored, before = _sizes(connection)
        if before is not None:
            signed = LogCheckpoint.parse(SignedNote.parse(before[1]).text)
            same_log = signed.origin == self.origin
            if same_log and (signed.size > stored or tree_of(connection, signed.size).root() != signed.root):
                log.error("audit.damaged", signed=signed.size, size=stored)
                msg = f"The head of {signed.size} entries that was signed does not follow from what is stored."
                raise LogDamaged(msg)
            if same_log and signed.size > size:
                return None
        return LogCheckpoint(self.origin, size, tree_of(connection, size).root())

    async def _work(self) -> None:
        while True:
            try:
                checkpoint, note = await self.latest()
                metrics.audit_log_size.set(checkpoint.size)
                if self._witnesses is not None:
                    await self._witnesses.cosign(self._database, checkpoint, note)
                if self._timestamps is not None:
                    await self._timestamps.stamp(self._database, checkpoint)
            except Problem as problem:
                log.error("checkpoint.failed", code=problem.code)
                metrics.audit_checkpoint_failures_total.inc()
            except Exception:  # the publisher outlives every failure: without it witnesses see nothing
                log.exception("checkpoint.failed")
                metrics.audit_checkpoint_failures_total.inc()
            await asyncio.sleep(self._interval_s)


def _sizes(connection: Connection) -> tuple[int, tuple[int, str] | None]:
    return repository.size(connection), repository.latest_checkpoint(connection)
