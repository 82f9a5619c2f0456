"""The store made to agree with SQL: aliases, superseded versions, what interrupted workers left; and what expires.

SQL is the truth; each step here may be repeated, in any order, by whoever holds the lease.
"""

import contextlib
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Connection

from model_store import ModelStore, StoreError
from service.models import service as models
from service.platform.clock import Clock
from service.platform.database import Database
from service.purge import expiry
from service.settings import Settings
from service.worker.lease import Fenced, Lease
from service.worker.repository import journal, lineage

TRAINING = "train"  # the journal step of a base: its writer is not the worker

EXPIRE_ROUNDS = 20  # transactions at once: others write in between

log = structlog.get_logger()


@dataclass(frozen=True)
class Retention:
    """What keeps the store in order; `keep` is how many superseded versions stay beside the live one."""

    database: Database
    store: ModelStore
    lease: Lease
    clock: Clock
    keep: int

    def align(self) -> None:
        """Point the store's aliases where SQL's point, then purge what has been superseded for long enough."""
        names = (lineage.PREVIOUS, lineage.LIVE)
        wanted = self.database.query(lambda connection: {name: lineage.alias(connection, name) for name in names})
        for name, number in wanted.items():
            self._point(name, number)
        self._purge()

    def recover(self) -> None:
        """End the batches that were left open, by earlier holders of the lease or by this one where it could not note
        their end, and take away what they wrote. Only while no batch runs."""
        for batch in self.database.transact(self._abandon):
            log.warning("batch.abandoned", batch=batch.id, step=batch.step, epoch=batch.epoch)
        self.clean()
        self.align()

    def expire(self, settings: Settings) -> None:
        """Delete tombstones and idempotency rows that are kept long enough; what is left for want of time goes next."""
        for _ in range(EXPIRE_ROUNDS):
            unit = partial(expiry.anything_expired, settings=settings, now=self.clock.now())
            if not self.database.query(unit):
                return
            gone = self.database.transact(partial(self._expire, settings=settings))
            log.info("rows.expired", count=gone.tombstones + gone.idempotency)

    def live_is_damaged(self) -> bool:
        """Whether the live version's files fail their checksums; its base and what it forgot make it again."""
        live = self.database.query(lambda connection: lineage.alias(connection, lineage.LIVE))
        try:
            if live is not None:
                self.store.verify("versions", live)
        except StoreError as error:
            log.error("version.damaged", version=live, error=type(error).__name__)
            return True
        return False

    def clean(self) -> None:
        """Take interrupted writes out of the store, and versions of batches that came to nothing."""
        for name in self.store.clean():
            log.warning("store.cleaned", leftover=name)
        numbers = self.store.numbers("versions")
        for number in self.database.query(lambda connection: journal.orphans(connection, numbers)):
            self.store.withdraw("versions", [number])  # an alias file may lag behind SQL, where none names it
            log.warning("store.orphan_purged", version=number)

    def _expire(self, connection: Connection, settings: Settings) -> expiry.ExpiredRows:
        self.lease.confirm(connection)
        return expiry.expire(connection, settings, self.clock.now())

    def _abandon(self, connection: Connection) -> list[journal.OpenBatch]:
        self.lease.confirm(connection)
        if self.lease.epoch is None:
            raise Fenced
        stale = [
            batch
            for batch in journal.unfinished(connection)
            if batch.step != TRAINING and batch.epoch <= self.lease.epoch
        ]
        for batch in stale:
            journal.finish(connection, batch.id, "abandoned", self.clock.now())
        return stale

    def _point(self, name: str, number: int | None) -> None:
        if number is None:
            return
        current = None
        with contextlib.suppress(StoreError):  # a damaged alias file is written anew
            current = self.store.alias(name)
        if current == number:
            return
        try:
            self.store.set_alias(name, number)
        except StoreError as error:
            log.warning("store.alias_target_unusable", alias=name, version=number, error=type(error).__name__)

    def _purge(self) -> None:
        for number in self.database.query(lambda connection: models.superseded(connection, self.keep)):
            # On record first: bytes that are left over are found by `clean`, bytes that are missing would be an error.
            if self.database.transact(partial(models.mark_purged, number=number)):
                self.store.purge("versions", number)
                log.info("version.purged", version=number)
