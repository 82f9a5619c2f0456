"""A PostgreSQL server of one's own: as another user where this is root, on a socket, gone at the end."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

import migrations
from service.platform.database import Database

POSTGRES_FOLDERS = ("/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin")
MEMORY, MEMORY_MIN = Path("/dev/shm"), 4 << 30
"""Where a server's folder costs no disk, and what must be free there for one to be put there, bytes."""
MIGRATED = "migrated"
"""The database that migrated ones are copies of."""
# Tests kill its processes, not the machine's power: what the system has taken is kept without fsync, too.
# A short log is soon gone over by those that purge, and soon read through by those that look for what is left.
OPTIONS = "-c listen_addresses='' -c max_connections=60 -c fsync=off -c min_wal_size=32MB -c max_wal_size=96MB"


def postgres_programs() -> Path | None:
    """The folder of initdb and pg_ctl on this machine; None where PostgreSQL is absent."""
    return next((Path(folder) for folder in POSTGRES_FOLDERS if Path(folder).is_dir()), None)


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL instance of this run."""

    socket_folder: Path
    port: int

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.socket_folder / "data"

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg://expunge@/{database}?host={self.socket_folder}&port={self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-k {self.socket_folder} -p {self.port} {OPTIONS}"
        self._control("-w", "-t", "60", "-l", self.socket_folder / "log", "-o", options, "start")

    def ensure(self) -> None:
        """Start it where it does not run, or has stopped answering; tries for some seconds."""
        for _ in range(20):
            try:
                self._execute("SELECT 1")
                return
            except DBAPIError:
                with suppress(AssertionError):
                    self.start()
                time.sleep(0.5)
        msg = "PostgreSQL does not come back."
        raise AssertionError(msg)

    def kill(self) -> None:
        """Kill all of it, as the loss of its machine does; what the system has taken is kept."""
        try:
            leader = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            family = [leader, *leader.children(recursive=True)]
        except (FileNotFoundError, IndexError, psutil.NoSuchProcess):
            return
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)

    def stop(self) -> None:
        """End it at once."""
        self._control("-m", "immediate", "stop", check=False)

    def make_migrated(self) -> None:
        """Make the database that migrated ones are copies of."""
        migrations.upgrade(self.make(MIGRATED))

    def migrate(self, url: str) -> None:
        """Give a database of it the newest schema; an empty one becomes a copy, which takes a fifth of the time."""
        name = make_url(url).database
        assert name is not None
        with psycopg.connect(host=str(self.socket_folder), port=self.port, user="expunge", dbname=name) as connection:
            is_empty = connection.execute("SELECT to_regclass('alembic_version') IS NULL").fetchone() == (True,)
        if is_empty:
            self.drop(name)
            self.make(name, MIGRATED)
        else:
            migrations.upgrade(url)

    def make(self, name: str, template: str = "template1") -> str:
        """Make a database; returns its URL."""
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, name: str) -> None:
        """Drop a database, whoever uses it."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def cut_connections(self, name: str) -> None:
        """End every session of a database, as a failover does."""
        self._execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def _execute(self, statement: str) -> None:
        admin = Database(self.url("postgres"))
        try:
            with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text(statement))
        finally:
            admin.close()

    def _control(self, *words: object, check: bool = True) -> None:
        programs = postgres_programs()
        assert programs is not None
        _run(self.socket_folder, [programs / "pg_ctl", "-D", self.data, *words], check=check)


@contextmanager
def running_postgres(port: int, folder: Path | None = None) -> Iterator[PostgresServer]:
    """A server in a folder of its own, or in the one given."""
    programs = postgres_programs()
    assert programs is not None, "PostgreSQL is not here."
    made = Path(tempfile.mkdtemp(prefix="expunge-pg-", dir=_folder_of_servers())) if folder is None else folder
    server = PostgresServer(made, port)
    try:
        _run(made, [programs / "initdb", "-D", server.data, "-U", "expunge", "-A", "trust", "--no-sync"])
        server.start()
        yield server
    finally:
        server.stop()
        if folder is None:
            shutil.rmtree(made, ignore_errors=True)


def _folder_of_servers() -> Path | None:
    """The memory's file system, where there is room in it: PostgreSQL makes hundreds of files for each database."""
    try:
        room = shutil.disk_usage(MEMORY).free
    except OSError:
        return None
    return MEMORY if room >= MEMORY_MIN and os.access(MEMORY, os.W_OK | os.X_OK) else None


def _run(folder: Path, command: list[object], *, check: bool = True) -> None:
    """Run a command as somebody who is not root: PostgreSQL refuses root."""
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        words = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *words]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    assert not check or not done.returncode, f"{words[-1]}: {done.stderr}"
