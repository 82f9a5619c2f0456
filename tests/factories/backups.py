"""Backups as operators take them: a copy of the SQLite file, or pg_dump and pg_restore."""

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from tests.postgres import POSTGRES_FOLDERS


class Backup:
    """A backup of a database, taken when this is made.

    Args:
        url: of the database.
        folder: where the copy goes.
        name: of the copy.
    """

    def __init__(self, url: str, folder: Path, name: str = "backup") -> None:
        self._url, self._copy = make_url(url), folder / name
        if self._is_sqlite:
            with closing(sqlite3.connect(self._file)) as connection:
                connection.execute("VACUUM INTO ?", (str(self._copy),))
        else:
            _run("pg_dump", "-Fc", "-f", self._copy, *self._server(), self._url.database)

    def restore(self) -> None:
        """Put the copy in the database's place; nobody may have it open."""
        if self._is_sqlite:
            for end in ("", "-wal", "-shm"):
                Path(f"{self._file}{end}").unlink(missing_ok=True)
            self._file.write_bytes(self._copy.read_bytes())
        else:
            _run("dropdb", "--force", *self._server(), self._url.database)
            _run("createdb", *self._server(), self._url.database)
            _run("pg_restore", "--exit-on-error", *self._server(), "-d", self._url.database, self._copy)

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def _file(self) -> Path:
        return Path(str(self._url.database))

    def _server(self) -> list[str]:
        return ["-U", str(self._url.username), "-h", str(self._url.query["host"]), "-p", str(self._url.query["port"])]


def _run(program: str, *words: object) -> None:
    place = next(folder for folder in POSTGRES_FOLDERS if Path(folder).is_dir())
    command = [f"{place}/{program}", *(str(word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
