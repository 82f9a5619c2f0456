"""What goes wrong: each trouble happens, lasts a while, and is over; which one and when is chosen by a seed."""

import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

import redis

from model_store import StoreError
from service.platform.redis import ErasureStream
from tests.factories.versions import file_of
from tests.faults.checker import ids_of
from tests.faults.harness.points import kill_points
from tests.faults.harness.stage import NotInTime, Stage

HOUR = 3600.0
Trouble = Callable[["Nemesis"], None]


class Nemesis:
    """Makes trouble on a stage, from a thread of its own, until it is told to end; then all is healed.

    Args:
        stage: where.
        seed: of what happens.
        troubles: names of `TROUBLES` to choose from, each as likely.
        pause_s: mean time between two of them.
    """

    def __init__(self, stage: Stage, seed: str, troubles: Sequence[str], pause_s: float) -> None:
        self.stage, self.random = stage, random.Random(seed)
        self.happened: Counter[str] = Counter()
        self.failed: list[str] = []
        self._troubles, self._pause_s = list(troubles), pause_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nemesis")

    def __enter__(self) -> "Nemesis":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while self._troubles and not self._over.is_set():
            name = self.random.choice(self._troubles)
            try:
                TROUBLES[name](self)
            except Exception as error:  # a trouble that cannot be made is told, and is no reason to stop
                self.failed.append(f"{name}: {type(error).__name__}: {error}")
            self.happened[name] += 1
            self._over.wait(self.random.expovariate(1 / self._pause_s))

    def last(self, seconds: float) -> None:
        """Let a trouble last; less where everything ends."""
        self._over.wait(seconds)

    # -- who

    def role(self, kind: str) -> str:
        """One of the processes of a kind."""
        return self.random.choice([role for role in self.stage.processes if role.startswith(kind)])


# -- processes


def kill_api(nemesis: Nemesis) -> None:
    nemesis.stage.kill(nemesis.role("api"))


def kill_worker(nemesis: Nemesis) -> None:
    nemesis.stage.kill(nemesis.role("worker"))


def kill_everything(nemesis: Nemesis) -> None:
    """All processes and the stream server at once."""
    for role in list(nemesis.stage.processes):
        nemesis.stage.kill(role)
    nemesis.stage.valkey.kill()
    nemesis.stage.valkey.start()


def crash_loop(nemesis: Nemesis) -> None:
    """Something dies every fifth of a second, for some seconds."""
    for _ in range(15):
        nemesis.stage.kill(nemesis.random.choice(list(nemesis.stage.processes)))
        nemesis.last(0.2)


def kill_compactor(nemesis: Nemesis) -> None:
    nemesis.stage.kill(nemesis.role("compactor"))


def compactor_dies_at_a_point(nemesis: Nemesis) -> None:
    """The next compactor dies at a named point of a compaction or a purge."""
    point = nemesis.random.choice([each for each in kill_points() if each.startswith(("compactor.", "purge."))])
    nemesis.stage.doom(nemesis.role("compactor"), f"{point}:kill")


def die_at_a_point(nemesis: Nemesis) -> None:
    """The next process of a kind dies at a named point."""
    others = ("replay.", "compactor.", "purge.")
    point = nemesis.random.choice([each for each in kill_points() if not each.startswith(others)])
    kind = "api" if point.startswith(("api.", "relay.")) else "worker"
    nemesis.stage.doom(nemesis.role(kind), f"{point}:kill:{nemesis.random.randint(1, 4)}")


def die_while_loading(nemesis: Nemesis) -> None:
    """A replica dies while it loads a version, at its start or later."""
    nemesis.stage.doom(nemesis.role("api"), f"api.during_load:kill:{nemesis.random.randint(1, 2)}")


def fail_at_a_point(nemesis: Nemesis) -> None:
    """The next worker meets an error at a named point, once."""
    points = [each for each in kill_points() if each.startswith("worker.")]
    nemesis.stage.doom(nemesis.role("worker"), f"{nemesis.random.choice(points)}:raise")


def pause_worker(nemesis: Nemesis) -> None:
    """Asleep past its lease, then awake."""
    role = nemesis.role("worker")
    nemesis.stage.signal(role, signal.SIGSTOP)
    nemesis.last(nemesis.stage.settings.lease_seconds * nemesis.random.uniform(1.2, 3))
    nemesis.stage.signal(role, signal.SIGCONT)


def pause_api(nemesis: Nemesis) -> None:
    role = nemesis.role("api")
    nemesis.stage.signal(role, signal.SIGSTOP)
    nemesis.last(nemesis.random.uniform(0.3, 2))
    nemesis.stage.signal(role, signal.SIGCONT)


def stop_in_order(nemesis: Nemesis) -> None:
    """SIGTERM, as at a deployment."""
    nemesis.stage.signal(nemesis.random.choice(list(nemesis.stage.processes)), signal.SIGTERM)


# -- the stream server


def redis_killed(nemesis: Nemesis) -> None:
    """kill -9; it comes back with its log."""
    nemesis.stage.valkey.kill()
    nemesis.last(nemesis.random.uniform(0, 1))
    nemesis.stage.valkey.start()


def redis_emptied(nemesis: Nemesis) -> None:
    """kill -9; it comes back with nothing."""
    nemesis.stage.valkey.kill(empty=True)
    nemesis.stage.valkey.start()


def redis_flushed(nemesis: Nemesis) -> None:
    with nemesis.stage.valkey.commands() as client:
        client.flushall()


def redis_group_lost(nemesis: Nemesis) -> None:
    settings = nemesis.stage.settings
    with nemesis.stage.valkey.commands() as client, suppress(redis.ResponseError):
        client.xgroup_destroy(settings.stream, settings.group)


def redis_log_torn(nemesis: Nemesis) -> None:
    """Killed, and the end of its log is gone."""
    _damage_log(nemesis, lambda content: content[: -nemesis.random.randint(1, max(1, len(content) // 3))])


def redis_log_flipped(nemesis: Nemesis) -> None:
    """Killed, and a byte of its log is another one."""

    def flip(content: bytes) -> bytes:
        place = nemesis.random.randrange(len(content))
        return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]

    _damage_log(nemesis, flip)


def _damage_log(nemesis: Nemesis, damage: Callable[[bytes], bytes]) -> None:
    valkey = nemesis.stage.valkey
    valkey.kill()
    for file in valkey.log.glob("*.incr.aof"):
        if content := file.read_bytes():
            file.write_bytes(damage(content))
    valkey.start()


def redis_away(nemesis: Nemesis) -> None:
    nemesis.stage.valkey.kill()
    nemesis.last(nemesis.random.uniform(2, 6))
    nemesis.stage.valkey.start()


def redis_slow(nemesis: Nemesis) -> None:
    """Half a second for each command: longer than anybody waits."""
    nemesis.stage.proxy.delay_s = 0.5
    nemesis.last(nemesis.random.uniform(1, 4))
    nemesis.stage.proxy.delay_s = 0.0


def redis_cut(nemesis: Nemesis) -> None:
    """Connections break, again and again."""
    for _ in range(10):
        nemesis.stage.proxy.cut()
        nemesis.last(0.2)


def redis_answers_lost(nemesis: Nemesis) -> None:
    """What is sent arrives; that it did is never told."""
    nemesis.stage.proxy.lose_answers = True
    nemesis.last(nemesis.random.uniform(0.5, 2))
    nemesis.stage.proxy.lose_answers = False


def redis_refuses(nemesis: Nemesis) -> None:
    """Out of memory, or a replica of nobody: every write is refused."""
    with nemesis.stage.valkey.commands() as client:
        if nemesis.random.random() < 0.5:
            client.config_set("maxmemory", "1")
            nemesis.last(nemesis.random.uniform(1, 3))
            client.config_set("maxmemory", "0")
        else:
            client.replicaof("127.0.0.1", "1")
            nemesis.last(nemesis.random.uniform(1, 3))
            client.replicaof("NO", "ONE")


def duplicates(nemesis: Nemesis) -> None:
    """What was delivered is delivered again, a hundred times, in any order, with ids of nothing among it."""
    with nemesis.stage.place() as place:
        ids = [each for status in ("forgotten", "accepted", "cancelled") for each in ids_of(place, status)[-20:]]
    settings = nemesis.stage.settings
    url = f"redis://127.0.0.1:{nemesis.stage.valkey.port}/0"
    stream = ErasureStream(url, stream=settings.stream, group=settings.group, consumer="test")
    try:
        stream.publish(nemesis.random.choices([*ids, "nobody"], k=100))
    finally:
        stream.close()


# -- the database


def database_cut(nemesis: Nemesis) -> None:
    """Sessions end in the middle of whatever they do; SQLite has none, there somebody else keeps the write lock."""
    stage = nemesis.stage
    server = stage.templates.server if stage.templates is not None else None
    if stage.database == "postgresql" and server is not None:
        for _ in range(5):
            server.cut_connections(str(stage.settings.sql_url.database))
            nemesis.last(0.3)
    else:
        database_busy(nemesis)


def database_busy(nemesis: Nemesis) -> None:
    """Another process holds SQLite's only write lock."""
    if nemesis.stage.database != "sqlite":
        return database_cut(nemesis)
    with closing(sqlite3.connect(str(nemesis.stage.settings.sql_url.database), timeout=5)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        nemesis.last(nemesis.random.uniform(0.2, 3))
        connection.rollback()
    return None


def database_killed(nemesis: Nemesis) -> None:
    """kill -9 of the database server, which comes back; of SQLite, of all who have it open."""
    stage = nemesis.stage
    server = stage.templates.server if stage.templates is not None else None
    if stage.database == "postgresql" and server is not None:
        server.kill()
        time.sleep(nemesis.random.uniform(0, 1))
        server.ensure()
    else:
        for role in list(stage.processes):
            stage.kill(role)


# -- files, disk, clock


def model_damaged(nemesis: Nemesis) -> None:
    """A bit of the live version's file is another one, or its end is gone."""
    with nemesis.stage.place() as place:
        live = place.alias()
        if live is None or live == 1:  # the base is the origin of all: its damage is for a person to mend
            return
        with suppress(StoreError, OSError):
            file = file_of(place.store, live)
            content = bytearray(file.read_bytes())
            if nemesis.random.random() < 0.5:
                content[nemesis.random.randrange(len(content))] ^= 1 << nemesis.random.randrange(8)
            else:
                del content[-nemesis.random.randint(1, len(content)) :]
            file.chmod(0o600)
            file.write_bytes(bytes(content))


def disk_full(nemesis: Nemesis) -> None:
    """No byte is left for the database file, the store and the stream's log."""
    disk = nemesis.stage.disk
    if disk is None:
        msg = "only root can have a disk of its own"
        raise NotInTime(msg)
    others = [] if nemesis.stage.templates is None else nemesis.stage.templates.disks
    for each in (disk, *others):
        each.fill()
    nemesis.last(nemesis.random.uniform(1, 4))
    for each in (disk, *others):
        each.free()
    if others and nemesis.stage.templates is not None and nemesis.stage.templates.server is not None:
        nemesis.stage.templates.server.ensure()  # one that cannot write its log ends itself
    # An append-only server ends itself where it cannot append; whoever looks after it starts it again.
    with nemesis.stage.valkey.commands() as client:
        try:
            client.ping()
        except redis.RedisError:
            nemesis.stage.valkey.kill()
            nemesis.stage.valkey.start()


def inodes_full(nemesis: Nemesis) -> None:
    """There is room for bytes, and none for another file."""
    disk = nemesis.stage.disk
    if disk is None:
        msg = "only root can have a disk of its own"
        raise NotInTime(msg)
    disk.fill_inodes()
    nemesis.last(nemesis.random.uniform(1, 3))
    disk.free()


def slow_disk(nemesis: Nemesis) -> None:
    """What the store writes takes two seconds to be on disk, each time."""
    nemesis.stage.clock.slow_fsync(2.0)
    nemesis.last(nemesis.random.uniform(2, 4))
    nemesis.stage.clock.slow_fsync(0.0)


def clock_stepped(nemesis: Nemesis) -> None:
    """The wall clock goes an hour forth or back, or a second, while everything runs."""
    clock = nemesis.stage.clock
    for seconds in (nemesis.random.choice((-HOUR, HOUR, -1.0, 1.0)), 0.0):
        clock.step(seconds)
        nemesis.last(nemesis.random.uniform(0.5, 2))
    clock.step(0.0)


TROUBLES: dict[str, Trouble] = {
    trouble.__name__: trouble
    for trouble in (
        kill_api,
        kill_worker,
        kill_everything,
        kill_compactor,
        compactor_dies_at_a_point,
        crash_loop,
        die_at_a_point,
        die_while_loading,
        fail_at_a_point,
        pause_worker,
        pause_api,
        stop_in_order,
        redis_killed,
        redis_emptied,
        redis_flushed,
        redis_group_lost,
        redis_log_torn,
        redis_log_flipped,
        redis_away,
        redis_slow,
        redis_cut,
        redis_answers_lost,
        redis_refuses,
        duplicates,
        database_cut,
        database_busy,
        database_killed,
        model_damaged,
        disk_full,
        inodes_full,
        slow_disk,
        clock_stepped,
    )
}
