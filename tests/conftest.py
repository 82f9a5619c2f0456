"""Fixtures that every test may use: a home, the databases, a real server, and `require` for absent parts."""

import os
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes of a run share the cores; read when torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from sqlalchemy import make_url

import migrations
from service.platform.database import Database
from service.platform.embedded import EmbeddedValkey
from service.platform.embedded_server import NoServerBinary, find_binary
from service.platform.redis import ErasureStream
from service.settings import Settings, load_settings
from tests.postgres import PostgresServer, postgres_programs, running_postgres


def require(present: object, what: str) -> None:
    """Skip the test where a part is absent on a developer's machine; fail it where CI promises that it is there."""
    if present:
        return
    if os.environ.get("CI"):
        pytest.fail(f"CI must provide {what}.")
    pytest.skip(f"{what} is not here.")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests were left out and why, so that a part that is absent does not go unnoticed."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"left out: {count} {'test' if count == 1 else 'tests'}: {reason}")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no EXPUNGE_ variable of the developer's shell, but for the folder of data sets."""
    for name in list(os.environ):
        if name.startswith("EXPUNGE_") and name != "EXPUNGE_DATA_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own, at a path short enough for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="expunge-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def settings(home: Path) -> Settings:
    """Settings of a fresh home with SQLite; `settings.model_copy(update={...})` changes some."""
    return load_settings(home=home)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of its own, run by another user where this is root, gone at the end."""
    require(postgres_programs(), "PostgreSQL (initdb, pg_ctl)")
    with running_postgres(_free_port()) as server:
        server.make_migrated()
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty PostgreSQL database of its own."""
    name = f"t{os.urandom(6).hex()}"
    yield postgres_server.make(name)
    postgres_server.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, home: Path) -> str:
    """An empty database: every test that asks for it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{home / 'expunge.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def migrated_file() -> Iterator[Path]:
    """A migrated SQLite database to copy."""
    folder = Path(tempfile.mkdtemp(prefix="expunge-db-"))
    file = folder / "expunge.db"
    migrations.upgrade(f"sqlite:///{file}")
    yield file
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def open_database(migrated_file: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Database]]:
    """Opens migrated databases and closes them after the test."""
    opened: list[Database] = []

    def open_(url: str) -> Database:
        given = make_url(url)
        file = Path(given.database or "")
        if given.get_backend_name() == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres_server")
            server.migrate(url)
        elif file.exists():
            migrations.upgrade(url)
        else:
            shutil.copyfile(migrated_file, file)
        opened.append(Database(url))
        return opened[-1]

    yield open_
    for database in opened:
        database.close()


@pytest.fixture
def database(database_url: str, open_database: Callable[[str], Database]) -> Database:
    """A migrated database: every test that asks for it runs on SQLite and on PostgreSQL."""
    return open_database(database_url)


@pytest.fixture
def sqlite(home: Path, open_database: Callable[[str], Database]) -> Database:
    """A migrated SQLite database, for tests that do not depend on which database it is."""
    return open_database(f"sqlite:///{home / 'expunge.db'}")


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """A closed home with a base and its encoders, to copy."""
    from tests.factories.workers import make_template  # with it comes torch

    folder = Path(tempfile.mkdtemp(prefix="expunge-template-"))
    make_template(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey_binary() -> Path:
    """The server program that would be embedded."""
    try:
        return find_binary()
    except NoServerBinary:
        require(None, "a valkey-server or redis-server program")
        raise


@pytest.fixture(scope="session")
def valkey_server(valkey_binary: Path) -> Iterator[EmbeddedValkey]:
    """One real server for the whole run; `stream` gives each test a stream of its own on it."""
    folder = Path(tempfile.mkdtemp(prefix="expunge-vk-"))
    server = EmbeddedValkey(folder, valkey_binary)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_url(valkey_server: EmbeddedValkey) -> str:
    """The URL of a real server, shared: use a stream name of your own."""
    return valkey_server.url


@pytest.fixture
def stream(redis_url: str) -> Iterator[ErasureStream]:
    """A stream of its own on a real server."""
    made = ErasureStream(redis_url, stream=f"test:{os.urandom(6).hex()}", group="unlearners", consumer="test")
    yield made
    made.close()


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
