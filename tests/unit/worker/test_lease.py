"""Who may settle, and who no longer may."""

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select

from service.platform import tables
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.worker.lease import Fenced, Lease, ProcessIdentity

TERM_S = 0.3
ELSEWHERE = "another-boot/1/2/3"

Make = Callable[[], Lease]


@pytest.fixture
def lease(database: Database) -> Iterator[Make]:
    """Makes leases on one database; gives them back at the end."""
    made: list[Lease] = []

    def make() -> Lease:
        made.append(Lease(database, seconds=TERM_S, clock=SystemClock()))
        return made[-1]

    yield make
    for each in made:
        each.release()


def test_a_lease_that_nobody_holds_is_taken_at_once(lease: Make) -> None:
    """The first worker works under epoch 1."""
    first = lease()

    assert first.acquire(threading.Event())
    assert (first.held, first.epoch) == (True, 1)


@pytest.mark.P2
def test_a_lease_that_is_beaten_is_not_taken(lease: Make) -> None:
    """A living holder keeps its lease for many terms."""
    holder, standby, stop = lease(), lease(), threading.Event()
    holder.acquire(stop)
    threading.Timer(4 * TERM_S, stop.set).start()

    taken = standby.acquire(stop)

    assert not taken
    assert holder.held


@pytest.mark.P2
def test_a_silent_holder_is_replaced_after_a_term_and_refused_from_then_on(database: Database, lease: Make) -> None:
    """The epoch is raised; what the old holder was about to settle is rolled back."""
    holder, standby = lease(), lease()
    holder.acquire(threading.Event())
    silence(holder)
    rename(database, ELSEWHERE)

    assert standby.acquire(threading.Event())
    with pytest.raises(Fenced):
        settle_as(holder, database)
    assert standby.epoch == 2
    assert not holder.held
    assert holder_of(database) != "overwritten"


def test_the_lease_of_a_dead_process_is_taken_at_once(database: Database, lease: Make) -> None:
    """A holder that provably runs no more on this machine is not waited for."""
    dead = ProcessIdentity.current()._replace(started="1")
    with database.write() as connection:
        connection.execute(tables.leases.insert().values(name="unlearner", holder=str(dead), epoch=7, beat=3))
    standby, stop = Lease(database, seconds=3600, clock=SystemClock()), threading.Event()

    taken = standby.acquire(stop)
    standby.release()

    assert taken
    assert dead.is_dead()
    assert not ProcessIdentity.current().is_dead()


def test_a_lease_that_is_given_back_is_taken_at_once(database: Database, lease: Make) -> None:
    """A worker that stops orderly makes nobody wait; its epoch is never used again."""
    first = Lease(database, seconds=3600, clock=SystemClock())
    second = Lease(database, seconds=3600, clock=SystemClock())

    first.acquire(threading.Event())
    first.release()
    second.acquire(threading.Event())

    assert second.epoch == 2
    second.release()


def test_of_many_standbys_one_takes_over(database: Database, lease: Make) -> None:
    """The change of epoch is a compare-and-set: nobody is second."""
    holder = lease()
    holder.acquire(threading.Event())
    holder.release()
    standbys, stop = [lease() for _ in range(6)], threading.Event()
    threads = [threading.Thread(target=each.acquire, args=(stop,)) for each in standbys]
    for thread in threads:
        thread.start()
    threading.Timer(2 * TERM_S, stop.set).start()
    for thread in threads:
        thread.join()

    assert sum(each.held for each in standbys) == 1


def settle_as(holder: Lease, database: Database) -> None:
    """Change something and confirm the lease in the same transaction."""
    with database.write() as connection:
        rename(database, "overwritten", connection)
        holder.confirm(connection)


def silence(lease: Lease) -> None:
    """Stop the beats, as a paused process does."""
    lease._finished.set()


def rename(database: Database, holder: str, connection: object = None) -> None:
    """Make the holder somebody of whom this machine knows nothing."""
    statement = tables.leases.update().values(holder=holder)
    if connection is not None:
        connection.execute(statement)  # type: ignore[attr-defined]
        return
    with database.write() as own:
        own.execute(statement)


def holder_of(database: Database) -> str:
    """Who holds the lease."""
    return str(database.query(lambda connection: connection.execute(select(tables.leases.c.holder)).scalar_one()))
