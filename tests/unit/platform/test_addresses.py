"""Addresses of databases and of Redis: odd paths mean themselves, unusable ones are refused in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

import migrations
from service.platform.database import Database
from service.platform.database_url import read_database_url, sqlite_url
from service.platform.embedded import EmbeddedValkey
from service.platform.problem import DatabaseUnusable, Problem, StorageUnavailable
from service.platform.redis import ErasureStream, RedisUnavailable, RedisUnsuitable
from service.platform.redis_url import check_redis_url
from service.settings import load_settings
from tests.postgres import PostgresServer

ODD = ("a?b", "a%41", "aA", "a b", "a#b", "a:b", "a@b", "ünï", "a%", "a&mode=memory", "%3Amemory%3A", "a;b")


def test_every_home_has_a_database_of_its_own(home: Path):
    """Whatever characters its path has: none of them is read as an option or an escape."""
    for name in ODD:
        settings = load_settings(home=home / name)
        migrations.upgrade(settings.sql_url)
        assert (home / name / "expunge.db").is_file(), name
        database = Database(settings.sql_url)
        with database.write() as connection:
            connection.execute(text("INSERT INTO items (id, digest) VALUES (:id, :id)"), {"id": name})
        database.close()

    for name in ODD:
        database = Database(load_settings(home=home / name).sql_url)
        with database.read() as connection:
            assert connection.execute(text("SELECT id FROM items")).scalars().all() == [name]
        database.close()
    assert {path.name for path in home.iterdir()} == set(ODD)


def test_the_embedded_server_of_an_odd_home_is_reached(home: Path, valkey_binary: Path):
    """Its socket's path is escaped in the URL and quoted in the configuration."""
    server = EmbeddedValkey(home / 'a?b%41#"ü', valkey_binary)
    server.start()
    try:
        stream = ErasureStream(server.url, stream="s", group="g", consumer="c")
        check_redis_url(server.url)
        stream.ping()
        stream.close()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("sqlite://", "must name a file"),
        ("sqlite:///", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite:///file::memory:?uri=true", "must name a file"),
        ("sqlite:////tmp/x?mode=memory", "must name a file"),
        ("sqlite:////tmp/a?b", "%3F"),
        ("sqlite:///file:/tmp/x", "plain file"),
        ("sqlite://tmp/x.db", "three slashes"),
        ("sqlite:////tmp/%00", "%00"),
        ("sqlite+aiosqlite:////tmp/x", "no other driver"),
        ("postgresql+asyncpg://u@h/d", "no other driver"),
        ("postgresql://h:port/d", "user:password@host"),
        ("postgresql://h:99999/d", "port from 1"),
        ("mysql://h/d", "must begin with"),
        ("localhost", "must begin with"),
        ("", "must begin with"),
    ],
)
def test_an_unusable_address_of_a_database_is_refused(address: str, sentence: str):
    """The sentence says what it must be; it never repeats what was given."""
    with pytest.raises(ValueError, match=r"^must ") as refusal:
        read_database_url(address)

    assert sentence in str(refusal.value)
    assert len(address) < 12 or address not in str(refusal.value)


def test_what_people_write_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The short form of hosters, a relative path, a home folder, an escaped character."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert read_database_url("postgres://u:p%40@h/d").drivername == "postgresql+psycopg"
    assert read_database_url("postgres://u:p%40@h/d").password == "p@"
    assert read_database_url("sqlite:///x.db") == sqlite_url(tmp_path / "x.db")
    assert read_database_url("sqlite:///~/x.db") == sqlite_url(tmp_path / "x.db")
    assert read_database_url("sqlite:////tmp/a%3Fb").database == "/tmp/a?b"


@pytest.mark.parametrize(
    "address",
    [
        *("redis://", "redis:///0", "redis://h:0", "redis://h:99999", "redis://h/name", "redis://:a#b@h", "h:6379"),
        *("unix://", "unix:///", "unix://run/valkey.sock", "redis:/h", "http://h", "rediss://h:x/0"),
    ],
)
def test_an_unusable_address_of_redis_is_refused(address: str):
    """Before anybody connects."""
    with pytest.raises(ValueError, match=r"^must "):
        check_redis_url(address)


@pytest.mark.parametrize("address", ["redis://h", "rediss://u:p%23@h:1/2?x=1", "unix:///run/a%20b.sock?db=1"])
def test_a_usable_address_of_redis_passes(address: str):
    """What the client's library reads."""
    check_redis_url(address)


def test_a_redis_that_refuses_is_told_apart(redis_url: str, tmp_path: Path):
    """Each cause has its own words, and an option that nobody knows is no defect."""
    said = {}
    for address in (
        f"{redis_url}?db=99",
        redis_url.replace("unix://", "unix://u:wrong@"),
        f"unix://{tmp_path}/none.sock",
        "redis://127.0.0.1:1/0",
    ):
        stream = ErasureStream(address, stream="s", group="g", consumer="c", timeout_s=1.0)
        with pytest.raises(RedisUnavailable) as refusal:
            stream.check()
        stream.close()
        said[address] = refusal.value.detail

    assert [text.split(" ", 3)[:3] for text in said.values()] == [
        ["It", "has", "no"],
        ["It", "refuses", "the"],
        ["There", "is", "no"],
        ["Nothing", "listens", "at"],
    ]
    with pytest.raises(RedisUnsuitable, match="option that is not known"):
        ErasureStream(f"{redis_url}?nonsense=1", stream="s", group="g", consumer="c")


@contextmanager
def refused(url: str) -> Iterator[None]:
    database = Database(url)
    try:
        with pytest.raises(Problem) as refusal:
            database.query(lambda connection: connection.execute(text("SELECT 1")))
    finally:
        database.close()
    raise refusal.value


def test_a_postgresql_that_refuses_is_not_tried_again(postgres_server: PostgresServer):
    """A wrong name or password stays wrong; the words are ours, not those of the server."""
    for url, sentence in (
        (postgres_server.url("nowhere"), "no database of this name"),
        (postgres_server.url("postgres").replace("expunge@", "nobody@"), "no user of this name"),
        (postgres_server.url("postgres") + "&nonsense=1", "option that is not known"),
    ):
        with pytest.raises(DatabaseUnusable, match=sentence), refused(url):
            pass


def test_a_postgresql_that_is_away_may_come_back(tmp_path: Path):
    """Nothing listens, or no such host: the next try may find it."""
    for url, sentence in (
        ("postgresql+psycopg://u@127.0.0.1:1/d", "Nothing listens"),
        (f"postgresql+psycopg://u@/d?host={tmp_path}", "no socket"),
    ):
        with pytest.raises(StorageUnavailable, match=sentence), refused(url):
            pass


def test_a_file_that_cannot_be_a_database_is_told(tmp_path: Path):
    """A folder, and a file of something else."""
    other = tmp_path / "letter.txt"
    other.write_text("Dear database, " * 100)

    with pytest.raises(DatabaseUnusable, match="is a folder"), refused(f"sqlite:///{tmp_path}"):
        pass
    with pytest.raises(DatabaseUnusable, match="no SQLite database"), refused(f"sqlite:///{other}"):
        pass
    assert other.read_text() == "Dear database, " * 100
