import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from service.platform.embedded import EmbeddedValkey
from service.platform.redis import ErasureStream, Message, RedisUnavailable, RedisUnsuitable, StreamDepth


@pytest.fixture
def server(valkey_binary: Path, home: Path) -> Iterator[EmbeddedValkey]:
    """A server that a test may break."""
    server = EmbeddedValkey(home, valkey_binary)
    server.start()
    yield server
    server.stop()


def consumer(url: str, name: str = "test", *, stream: str = "s", timeout_s: float = 2.0) -> ErasureStream:
    return ErasureStream(url, stream=stream, group="g", consumer=name, timeout_s=timeout_s)


@contextmanager
def bare(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, protocol=2) as client:
        yield client


def ids(messages: list[Message]) -> list[str]:
    return [message.erasure_id for message in messages]


def test_a_real_server_is_suitable(stream: ErasureStream):
    """The packaged one is new enough and keeps what it is given."""
    info = stream.check()

    assert (info.name, info.policy) == ("valkey", "noeviction")


def test_what_is_published_is_read_in_order(stream: ErasureStream):
    """Each once, the first first."""
    stream.publish(["a", "b"])
    stream.publish(["c"])

    assert ids(stream.read(count=10, block_ms=10)) == ["a", "b", "c"]
    assert stream.read(count=10, block_ms=10) == []


def test_publishing_nothing_is_nothing(stream: ErasureStream):
    """No empty entry."""
    stream.publish([])

    assert stream.pending() == StreamDepth(0, 0, 0.0)


def test_a_read_takes_no_more_than_asked(stream: ErasureStream):
    """The rest waits for the next one."""
    stream.publish(["a", "b", "c"])

    assert ids(stream.read(count=2, block_ms=10)) == ["a", "b"]
    assert ids(stream.read(count=2, block_ms=10)) == ["c"]


def test_a_read_waits_for_the_first_entry(stream: ErasureStream):
    """It returns when one comes, long before its time is over."""
    later = threading.Timer(0.1, stream.publish, [["a"]])
    begun = time.monotonic()
    later.start()

    messages = stream.read(count=10, block_ms=5000)

    later.join()
    assert ids(messages) == ["a"]
    assert time.monotonic() - begun < 4


def test_what_was_published_before_the_group_existed_is_delivered(redis_url: str, stream: ErasureStream):
    """The group begins at 0, not at the end."""
    stream.publish(["early"])

    assert ids(stream.read(count=1, block_ms=10)) == ["early"]


def test_acknowledged_entries_are_gone(stream: ErasureStream):
    """Out of the group and out of the stream."""
    stream.publish(["a", "b"])
    first, _second = stream.read(count=10, block_ms=10)

    stream.ack([first.entry_id])

    depth = stream.pending()
    assert (depth.length, depth.pending) == (1, 1)


def test_acknowledging_twice_or_nothing_is_harmless(stream: ErasureStream):
    """A redelivery that was worked on already."""
    stream.publish(["a"])
    [message] = stream.read(count=1, block_ms=10)

    stream.ack([message.entry_id])
    stream.ack([message.entry_id])
    stream.ack([])

    assert stream.pending().length == 0


@pytest.mark.P1
def test_what_a_dead_consumer_held_is_taken_over(redis_url: str):
    """After it was silent for long enough; not before."""
    dead, alive = consumer(redis_url, "dead", stream="takeover"), consumer(redis_url, "alive", stream="takeover")
    dead.publish(["a"])
    assert ids(dead.read(count=1, block_ms=10)) == ["a"]

    assert alive.claim(min_idle_ms=60_000, count=10) == []
    assert ids(alive.claim(min_idle_ms=0, count=10)) == ["a"]


def test_a_consumer_that_says_so_keeps_its_entries(redis_url: str):
    """Working longer than the limit is no reason to lose them."""
    slow, other = consumer(redis_url, "slow", stream="keep"), consumer(redis_url, "other", stream="keep")
    slow.publish(["a"])
    [message] = slow.read(count=1, block_ms=10)
    slow.read(count=1, block_ms=300)  # time passes on the server

    slow.keep([message.entry_id])

    assert other.claim(min_idle_ms=250, count=10) == []
    slow.keep([])


def test_dead_letters_are_set_aside_with_their_reason(redis_url: str, stream: ErasureStream):
    """Out of the way of the others, and counted."""
    stream.publish(["poison", "fine"])
    poison, _fine = stream.read(count=10, block_ms=10)

    stream.dead_letter(poison, "gate_refused")

    assert stream.dead_letters() == 1
    assert stream.pending().length == 1
    with bare(redis_url) as client:
        [(_, fields)] = client.xrange(f"{stream._stream}:dead")
    assert fields == {b"id": b"poison", b"code": b"gate_refused"}


@pytest.mark.P10
def test_dead_letters_are_bounded(stream: ErasureStream, monkeypatch: pytest.MonkeyPatch):
    """The oldest go."""
    monkeypatch.setattr("service.platform.redis.DEAD_MAX", 100)

    for number in range(400):
        stream.dead_letter(Message(f"{number}-1", "x"), "c")

    assert stream.dead_letters() < 400


@pytest.mark.P1
def test_after_flushall_reading_goes_on(server: EmbeddedValkey):
    """The group is made again, at 0."""
    stream = consumer(server.url)
    stream.publish(["a"])
    assert ids(stream.read(count=1, block_ms=10)) == ["a"]
    with bare(server.url) as client:
        client.flushall()

    assert stream.read(count=1, block_ms=10) == []
    assert stream.claim(min_idle_ms=0, count=1) == []
    stream.keep(["1-1"])
    stream.publish(["b"])
    assert ids(stream.read(count=1, block_ms=10)) == ["b"]
    stream.close()


def test_an_entry_that_is_not_ours_is_dropped(redis_url: str, stream: ErasureStream):
    """Somebody wrote to the stream by hand: it must not stop the others."""
    with bare(redis_url) as client:
        client.xadd(stream._stream, {"something": "else"})
    stream.publish(["a"])

    assert ids(stream.read(count=10, block_ms=10)) == ["a"]
    assert stream.pending().length == 1


def test_the_depth_tells_how_long_the_stalest_was_not_touched(stream: ErasureStream):
    """By the server's idle time, not by the clock in the entry's id."""
    stream.publish(["a"])
    stream.read(count=1, block_ms=10)
    stream.read(count=1, block_ms=100)

    depth = stream.pending()

    assert (depth.length, depth.pending) == (1, 1)
    assert 0.09 < depth.oldest_seconds < 60


@pytest.mark.P8
def test_only_the_request_id_is_in_redis(redis_url: str, stream: ErasureStream):
    """An entry has one field."""
    stream.publish(["0190b3c6"])

    with bare(redis_url) as client:
        [(_, fields)] = client.xrange(stream._stream)
    assert fields == {b"id": b"0190b3c6"}


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused(server: EmbeddedValkey, policy: str):
    """The text names the policy and what to set."""
    with bare(server.url) as client:
        client.config_set("maxmemory-policy", policy)
    stream = consumer(server.url)

    with pytest.raises(RedisUnsuitable, match=rf"{policy}.*noeviction"):
        stream.check()
    stream.close()


def test_a_server_before_version_7_is_refused():
    """It leaves lost deliveries pending for ever."""
    with _server_that_says(b"redis_version:6.2.14\r\nmaxmemory_policy:noeviction") as url:
        stream = consumer(url)

        with pytest.raises(RedisUnsuitable, match=r"redis 6\.2\.14"):
            stream.check()
        stream.close()


def test_a_key_of_another_type_is_refused(redis_url: str):
    """EXPUNGE_STREAM names a key that somebody else uses."""
    stream = consumer(redis_url, stream="a-string")
    with bare(redis_url) as client:
        client.set("a-string", "x")

    with pytest.raises(RedisUnsuitable, match="EXPUNGE_STREAM"):
        stream.publish(["a"])
    stream.close()


def test_a_server_that_is_away_is_unavailable(tmp_path: Path):
    """Every command says so."""
    stream = consumer(f"unix://{tmp_path}/none.sock")

    for command in (
        stream.check,
        stream.ping,
        stream.pending,
        stream.dead_letters,
        lambda: stream.publish(["a"]),
        lambda: stream.ack(["1-1"]),
        lambda: stream.keep(["1-1"]),
        lambda: stream.read(count=1, block_ms=1),
        lambda: stream.claim(min_idle_ms=0, count=1),
        lambda: stream.dead_letter(Message("1-1", "a"), "c"),
    ):
        with pytest.raises(RedisUnavailable):
            command()


@pytest.mark.P10
def test_a_server_that_never_answers_costs_no_more_than_the_time_limit():
    """A command ends when its time is over."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stream = consumer(f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.2)
        begun = time.monotonic()

        with pytest.raises(RedisUnavailable, match="TimeoutError"):
            stream.publish(["a"])

        assert time.monotonic() - begun < 2
        stream.close()


def test_a_server_out_of_memory_is_unavailable_for_now(server: EmbeddedValkey):
    """Nothing is called failed for it; it is tried again later."""
    stream = consumer(server.url)
    with bare(server.url) as client:
        client.config_set("maxmemory", 1)

    with pytest.raises(RedisUnavailable, match="OutOfMemory"):
        stream.publish(["a"])
    stream.close()


def test_a_server_that_restarted_is_found_again(server: EmbeddedValkey):
    """Connections made before are replaced without an error; acknowledged state survives."""
    stream = consumer(server.url)
    stream.publish(["a", "b"])
    first, _second = stream.read(count=2, block_ms=10)
    stream.ack([first.entry_id])

    server.stop()
    server.start()

    assert stream.pending().pending == 1
    assert ids(stream.claim(min_idle_ms=0, count=10)) == ["b"]
    stream.close()


def test_the_log_on_disk_is_written_anew_and_waited_for(stream: ErasureStream):
    """Twice in a row is no error; a server that takes too long is told."""
    assert stream.write_anew(30)
    assert stream.write_anew(30)
    with pytest.raises(RedisUnavailable):
        stream.write_anew(-1)


def test_entries_of_erasures_are_taken_out_wherever_they_are(stream: ErasureStream):
    """New ones, delivered ones, dead letters; others stay where they are."""
    stream.publish(["a", "b", "a"])
    stream.read(count=1, block_ms=10)
    stream.dead_letter(Message("0-1", "a"), "c")

    assert stream.remove(["a", "unknown"]) == 3
    assert stream.remove(["a"]) == 0

    assert (stream.pending().length, stream.pending().pending, stream.dead_letters()) == (1, 0, 0)


def test_bytes_of_dead_letters_leave_the_disk(server: EmbeddedValkey):
    """Redis keeps those of a deleted entry as long as its block has others."""
    stream = ErasureStream(server.url, stream="s", group="g", consumer="c")
    for erasure in ("gone-1", "kept-1", "gone-2"):
        stream.dead_letter(Message("0-1", erasure), "code")

    assert stream.remove(["gone-1", "gone-2"]) == 2
    assert stream.write_anew(30)

    files = b"".join(path.read_bytes() for path in (server._folder / "appendonlydir").iterdir())
    assert (b"gone" in files, b"kept-1" in files) == (False, True)
    assert stream.dead_letters() == 1
    stream.close()


@contextmanager
def _server_that_says(info: bytes) -> Iterator[str]:
    """A stand-in that answers every command with one INFO text."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(4096):
                    connection.sendall(b"$%d\r\n%s\r\n" % (len(info), info))
        except OSError:
            return

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    thread.join(5)
