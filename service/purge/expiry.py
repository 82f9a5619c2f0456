"""What is kept for a time of its own: tombstones, and which request came with which Idempotency-Key."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from service.purge import repository
from service.settings import Settings

EXPIRED_MAX = 5_000


@dataclass(frozen=True)
class ExpiredRows:
    """How many rows went."""

    tombstones: int
    idempotency: int


def anything_expired(connection: Connection, settings: Settings, now: datetime) -> bool:
    """Whether anything is kept longer than it is to be."""
    return repository.anything_expired(connection, now, _idempotency_before(settings, now))


def expire(connection: Connection, settings: Settings, now: datetime) -> ExpiredRows:
    """Delete what is kept longer than it is to be, EXPIRED_MAX rows of a kind at most: call it again for more."""
    return ExpiredRows(*repository.delete_expired(connection, now, _idempotency_before(settings, now), EXPIRED_MAX))


def _idempotency_before(settings: Settings, now: datetime) -> datetime:
    return now - timedelta(days=settings.idempotency_days)
