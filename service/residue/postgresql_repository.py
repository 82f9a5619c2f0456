"""The files of a PostgreSQL server, read through the server itself; and what keeps dead bytes in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, text

CHUNK_BYTES = 1 << 22
_DEPTH_MAX = 4
_PG_CHECKPOINT = 150000

GRANTS = (
    "GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean) TO {role}; "
    "GRANT EXECUTE ON FUNCTION pg_stat_file(text, boolean) TO {role}; "
    "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) TO {role}; "
    "GRANT pg_monitor TO {role};"
)
"""What an administrator runs in this database so that its role may search the server's files."""

WAL_FOLDER = "pg_wal"
_FOLDERS = ("pg_replslot", "pg_logical", "pg_stat", "pg_stat_tmp", "pg_xact", "pg_multixact", "pg_subtrans", "log")


class ServerFile(NamedTuple):
    """A file below the server's data folder, and the table or index that it belongs to, where it is one."""

    path: str
    relation: str | None


class ServerAccess(NamedTuple):
    """This role (quoted); whether it may read the server's files; whether the write-ahead log is compressed."""

    role: str
    may_read: bool
    compresses_log: bool


def access(connection: Connection) -> ServerAccess:
    """What this role may do."""
    row = connection.execute(
        text(
            "SELECT '\"' || replace(current_user, '\"', '\"\"') || '\"', "
            "has_function_privilege('pg_ls_dir(text,boolean,boolean)', 'execute') AND "
            "has_function_privilege('pg_stat_file(text,boolean)', 'execute') AND "
            "has_function_privilege('pg_read_binary_file(text,bigint,bigint,boolean)', 'execute'), "
            "current_setting('wal_compression') NOT IN ('off', 'false')"
        )
    ).one()
    return ServerAccess(str(row[0]), bool(row[1]), bool(row[2]))


def write_out(connection: Connection) -> bool:
    """Have the server write what it holds in memory to its files; False where this role may not."""
    allowed = text(
        "SELECT current_setting('is_superuser') = 'on' OR (current_setting('server_version_num')::int >= :since "
        "AND EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'pg_checkpoint' AND pg_has_role(oid, 'member')))"
    )
    if not connection.scalar(allowed, {"since": _PG_CHECKPOINT}):
        return False
    connection.execute(text("CHECKPOINT"))
    return True


def data_files(connection: Connection) -> Iterator[ServerFile]:
    """The files of this database, of temporary tables and sorts, and of the server's own folders."""
    relations = _relations(connection)
    oid: str = connection.execute(
        text("SELECT oid::text FROM pg_database WHERE datname = current_database()")
    ).scalar_one()
    own = [f"base/{oid}", "base/pgsql_tmp"]
    for space in _names(connection, "pg_tblspc"):
        for version in _names(connection, f"pg_tblspc/{space}"):
            own += [f"pg_tblspc/{space}/{version}/{name}" for name in (oid, "pgsql_tmp")]
    for folder in (*own, *_FOLDERS):
        for path in _files_below(connection, folder):
            yield ServerFile(path, relations.get(_relation_path(path)))


def log_files(connection: Connection) -> Iterator[ServerFile]:
    """The segments of the write-ahead log, those kept for reuse too."""
    for path in _files_below(connection, WAL_FOLDER):
        yield ServerFile(path, None)


def read_file(connection: Connection, path: str) -> Iterator[bytes]:
    """The bytes of a file; none where it was taken away meanwhile."""
    offset = 0
    while True:
        data = connection.scalar(
            text("SELECT pg_read_binary_file(:path, :at, :size, true)"),
            {"path": path, "at": offset, "size": CHUNK_BYTES},
        )
        if not data:
            return
        yield bytes(data)
        offset += len(data)
        if len(data) < CHUNK_BYTES:
            return


def pins(connection: Connection) -> list[str]:
    """What keeps dead rows and old segments, in words; no text of a statement, no name of a client."""
    found = list[str]()
    for pid, state, seconds in connection.execute(
        text(
            "SELECT pid, coalesce(state, backend_type), "
            "extract(epoch FROM now() - coalesce(xact_start, backend_start))::bigint "
            "FROM pg_stat_activity WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) "
            "AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 5"
        )
    ):
        found.append(f"a transaction of process {pid} ({state}), open for {seconds} s, may still see old rows")
    for name, active, holds_rows in connection.execute(
        text("SELECT slot_name, active, xmin IS NOT NULL OR catalog_xmin IS NOT NULL FROM pg_replication_slots LIMIT 5")
    ):
        what = "segments and old rows" if holds_rows else "segments"
        found.append(f"the replication slot {name} ({'in use' if active else 'not in use'}) keeps {what}")
    prepared = connection.scalar(text("SELECT count(*) FROM pg_prepared_xacts"))
    if prepared:
        found.append(f"{prepared} prepared transactions keep old rows")
    return found


def log_keeping(connection: Connection) -> list[str]:
    """What keeps segments of the write-ahead log besides slots."""
    names = ("min_wal_size", "wal_keep_size", "archive_mode")
    values = {name: connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) for name in names}
    found = [f"min_wal_size = {values['min_wal_size']}, which has segments reused with what was in them"]
    if values["wal_keep_size"] not in ("0", "0MB"):
        found.append(f"wal_keep_size = {values['wal_keep_size']}")
    if values["archive_mode"] != "off":
        found.append("segments that are not archived yet are kept (archive_mode)")
    return found


def _relations(connection: Connection) -> dict[str, str]:
    """Path of the first segment of each table and index, with its name; a TOAST table goes by what it belongs to."""
    rows = connection.execute(
        text(
            "SELECT pg_relation_filepath(c.oid), coalesce(i.relname, t.relname, c.relname) FROM pg_class c "
            "LEFT JOIN pg_class t ON t.reltoastrelid = c.oid "
            "LEFT JOIN pg_index x ON x.indexrelid = c.oid LEFT JOIN pg_class i ON i.oid = x.indrelid "
            "WHERE c.relkind IN ('r', 'i', 't', 'm', 'S')"
        )
    )
    return {path: name for path, name in rows if path}


def _relation_path(path: str) -> str:
    """`base/5/16384_fsm.1` belongs to `base/5/16384`."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.partition('.')[0].partition('_')[0]}"


def _files_below(connection: Connection, folder: str, depth: int = 0) -> Iterator[str]:
    listed = text(
        "SELECT name, (pg_stat_file(:folder || '/' || name, true)).isdir FROM pg_ls_dir(:folder, true, false) AS name "
        "ORDER BY name"
    )
    for name, is_folder in connection.execute(listed, {"folder": folder}).all():
        path = f"{folder}/{name}"
        if not is_folder:
            yield path
        elif depth < _DEPTH_MAX:
            yield from _files_below(connection, path, depth + 1)


def _names(connection: Connection, folder: str) -> list[str]:
    return sorted(connection.scalars(text("SELECT pg_ls_dir(:folder, true, false)"), {"folder": folder}))
