"""Versions and aliases: what serves, what may serve, and what may be purged.

The fence: `live` never moves to a version that holds an interaction accepted for erasure and not forgotten in it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import Connection

from model_store import Manifest, ModelStore, StoreError
from service.audit import service as audit
from service.audit.service import AuditEvent
from service.models import repository
from service.models.problems import (
    AliasMoved,
    AliasUnset,
    VersionDamaged,
    VersionFenced,
    VersionInUse,
    VersionNotReady,
    VersionTaken,
    VersionUnknown,
)
from service.models.repository import AliasRow, VersionRow
from service.platform.cursor import read_cursor, write_cursor
from service.platform.dependencies import Services
from service.platform.problem import FieldError

LISTING = "versions"
LIVE, PREVIOUS, BASE = "live", "previous", "base"
LINEAGE_MAX = 100
DAMAGED = "version.damaged"

log = structlog.get_logger()

live = repository.live
all_versions = repository.all_versions


@dataclass(frozen=True)
class VersionFacts:
    """A version, the aliases that name it, and the versions it comes from, the nearest first."""

    row: VersionRow
    aliases: list[str]
    lineage: list[VersionRow]


def next_number(connection: Connection, store: ModelStore) -> int:
    """Return the lowest number above all that were ever given, on record or in the store."""
    return max([repository.highest(connection), *store.numbers("versions")]) + 1


def register(
    connection: Connection, manifest: Manifest, *, erasure_seq: int, at: datetime, status: str = "ready"
) -> None:
    """Record a published version, with an audit entry; recording the same one again changes nothing.

    Args:
        connection: a write transaction.
        manifest: of the version, as the store returned it.
        erasure_seq: every erasure up to this audit seq is forgotten in it.
        at: now.
        status: `ready`, or `held` where it did not pass the gate.

    Raises:
        VersionTaken: the number is on record with another content.
    """
    audit.reserve(connection, 0)
    page, facts = manifest.as_dict(), manifest.facts
    known = repository.find(connection, manifest.number)
    if known is not None:
        if known.manifest.get("checksum") != manifest.checksum:
            raise VersionTaken(f"Version {manifest.number} is on record.")
        return
    base = facts.parent if facts.parent is not None else manifest.number
    gate = dict(facts.gate) or None
    row = VersionRow(manifest.number, facts.kind, status, base, facts.parent, erasure_seq, page, gate, at)
    repository.add(connection, row)
    files = {name: file.sha256 for name, file in manifest.files.items()}
    body = {"kind": facts.kind, "base": base, "requests": page["requests"], "files": files, "gate": gate}
    audit.write(connection, audit.reserve(connection), [AuditEvent("version.published", body, version=row.version)], at)


def retire_unknown(connection: Connection, manifest: Manifest, at: datetime) -> None:
    """Record a version of the store that a restored database never knew: its number is taken, and it never serves."""
    audit.reserve(connection, 0)
    if repository.find(connection, manifest.number) is not None:
        return
    facts = manifest.facts
    base = facts.parent if facts.parent is not None else manifest.number
    row = VersionRow(manifest.number, facts.kind, "retired", base, facts.parent, 0, manifest.as_dict(), None, at)
    repository.add(connection, row)
    entry = AuditEvent("version.retired", {"kind": facts.kind, "base": base}, version=row.version)
    audit.write(connection, audit.reserve(connection), [entry], at)


def move_alias(
    connection: Connection, name: str, number: int, at: datetime, *, fenced: bool = True
) -> tuple[int | None, int]:
    """Point an alias at a version and return the numbers before and after, with an audit entry if they differ.

    When `live` moves, `previous` follows it. `fenced=False` is for settling a batch: it passes over erasures that still
    wait, never over forgotten ones. Fenced, a move of `live` to another base takes `base` along, so that the next
    versions derive from the one that was chosen.

    Raises:
        VersionUnknown, VersionNotReady: there is no such version, or it may not serve.
        VersionFenced: it holds what was accepted for erasure.
    """
    audit.reserve(connection, 0)  # from here on no erasure is accepted or settled until this transaction ends
    before = repository.find_alias(connection, name)
    if before is not None and before.version == number:
        return number, number
    version = _ready(connection, number)
    _fence(connection, version, waiting=fenced)
    if name == LIVE and before is not None:
        repository.point(connection, PREVIOUS, before.version, at)
        if fenced:
            _take_base_along(connection, before, version, at)
    repository.point(connection, name, number, at)
    body = {"alias": name, "before": before and before.version}
    audit.write(connection, audit.reserve(connection), [AuditEvent("alias.moved", body, version=number)], at)
    return None if before is None else before.version, number


def substitutes(connection: Connection) -> list[int]:
    """The versions that may answer while the live one cannot, the newest first: all that is forgotten is so in them."""
    number = live(connection)
    rows = [row for row in repository.kept(connection) if row.status == "ready" and row.version != number]
    return [row.version for row in rows if not _uncovered(connection, row, waiting=False)]


def report_damage(connection: Connection, number: int, at: datetime) -> None:
    """Put on record that a version's files are damaged, for the worker to make it again."""
    audit.write(connection, audit.reserve(connection), [AuditEvent(DAMAGED, version=number)], at)


def damage_since(connection: Connection, seq: int) -> tuple[int, bool]:
    """The audit log's size now, and whether damage was put on record after the entry `seq`."""
    size = audit.size(connection)
    return size, size > seq and repository.told_since(connection, seq, DAMAGED)


def superseded(connection: Connection, keep: int) -> list[int]:
    """Return the versions that may be purged, ascending.

    Those that aliases name stay, the newest `keep` of the others, the newest base, and the bases of all these.
    """
    rows = repository.kept(connection)
    named = {alias.version for alias in repository.all_aliases(connection)}
    others = [row.version for row in rows if row.version not in named]
    bases = [row.version for row in rows if row.kind == "base"]
    stay = named | set(others[: max(keep, 0)]) | set(bases[:1])
    stay |= {row.base for row in rows if row.version in stay}
    return sorted(row.version for row in rows if row.version not in stay)


def admit(connection: Connection, number: int) -> bool:
    """Let a version serve that was held; False where it may not, or an alias names it already."""
    row = repository.find(connection, number)
    return row is not None and row.status == "held" and repository.set_status(connection, number, "ready")


def mark_purged(connection: Connection, number: int) -> bool:
    """Note that a version's bytes are about to go; False, and then nothing may be purged, where an alias names it."""
    return repository.set_status(connection, number, "purged")


def purge(connection: Connection, numbers: Sequence[int], at: datetime) -> None:
    """Put on record that the bytes of versions are about to go, an entry each; `previous` names none of them any more.

    Raises:
        VersionUnknown: one of them is not on record.
        VersionInUse: `live` or `base` names one of them.
    """
    repository.withdraw_aliases(connection, PREVIOUS, numbers)
    entries = []
    for number in numbers:
        row = repository.find(connection, number)
        if row is None:
            raise VersionUnknown
        if not mark_purged(connection, number):
            raise VersionInUse(f"Version {number} is named by an alias.")
        entries.append(AuditEvent("version.purged", {"kind": row.kind, "base": row.base}, version=number))
    if entries:
        audit.write(connection, audit.reserve(connection, len(entries)), entries, at)


def base_of_live(connection: Connection) -> int | None:
    """The base that the live version comes from, or None where nothing is live."""
    number = live(connection)
    row = None if number is None else repository.find(connection, number)
    return None if row is None else row.base


async def page(services: Services, cursor: str | None, limit: int) -> tuple[list[VersionFacts], str | None]:
    """A page of versions, the newest first, and the cursor of the next one, None at the end."""
    before = None if cursor is None else read_cursor(services.identity, LISTING, cursor)

    def unit(connection: Connection) -> tuple[list[VersionRow], list[AliasRow]]:
        return repository.page(connection, before, limit + 1), repository.all_aliases(connection)

    rows, aliases = await services.database.run_read(unit)
    more = len(rows) > limit
    facts = [VersionFacts(row, _names(aliases, row.version), []) for row in rows[:limit]]
    return facts, write_cursor(services.identity, LISTING, rows[limit - 1].version) if more else None


async def get(services: Services, number: int) -> VersionFacts:
    """One version with its lineage; raises VersionUnknown."""
    return await services.database.run_read(lambda connection: _facts(connection, number))


async def alias(services: Services, name: str) -> AliasRow:
    """Where an alias points; raises AliasUnset."""
    found = await services.database.run_read(lambda connection: repository.find_alias(connection, name))
    if found is None:
        raise AliasUnset
    return found


async def promote(services: Services, number: int, expected: frozenset[int] | None = None) -> AliasRow:
    """Make a version live, as an operator asks: verified, fenced, told by the audit log.

    `expected` are the versions of which one must be live now, if the caller cares.

    Raises:
        VersionUnknown, VersionNotReady, VersionFenced, VersionDamaged: the alias stays where it is.
        AliasMoved: another version than the expected one is live.
    """
    await services.database.run_read(lambda connection: _ready(connection, number))  # before its files are missed
    try:
        await asyncio.to_thread(services.store.verify, "versions", number)
    except StoreError as error:
        raise VersionDamaged(f"Version {number}: {type(error).__name__}.") from error
    await services.database.run_write(lambda connection: _promote(connection, number, expected, services.clock.now()))
    try:
        await asyncio.to_thread(services.store.set_alias, LIVE, number)
    except StoreError as error:
        # SQL is the truth; the worker mends the pointer file when it starts.
        log.warning("alias.file_not_moved", version=number, error=type(error).__name__)
    return await alias(services, LIVE)


def _promote(connection: Connection, number: int, expected: frozenset[int] | None, at: datetime) -> None:
    audit.reserve(connection, 0)
    if expected is not None and live(connection) not in expected:
        raise AliasMoved(errors=[FieldError("header/If-Match", "It names another version than the one that is live.")])
    move_alias(connection, LIVE, number, at)


def _ready(connection: Connection, number: int) -> VersionRow:
    version = repository.find(connection, number)
    if version is None:
        raise VersionUnknown
    if version.status != "ready":
        raise VersionNotReady(f"Version {number} is {version.status}.")
    return version


def _fence(connection: Connection, version: VersionRow, *, waiting: bool) -> None:
    held = _uncovered(connection, version, waiting=waiting)
    if held:
        raise VersionFenced(f"Version {version.version} does not cover {held:,} of the accepted erasures.")


def _uncovered(connection: Connection, version: VersionRow, *, waiting: bool) -> int:
    base = repository.find(connection, version.base) or version
    return repository.count_uncovered(connection, version, base, waiting=waiting)


def _take_base_along(connection: Connection, before: AliasRow, version: VersionRow, at: datetime) -> None:
    # Within one base nothing is chosen: another base that was promoted and waits for its encoder stays promoted.
    left = repository.find(connection, before.version)
    if left is not None and left.base != version.base:
        repository.point(connection, BASE, version.base, at)


def _facts(connection: Connection, number: int) -> VersionFacts:
    row = repository.find(connection, number)
    if row is None:
        raise VersionUnknown
    lineage: list[VersionRow] = []
    parent = row.parent
    while parent is not None and len(lineage) < LINEAGE_MAX:
        ancestor = repository.find(connection, parent)
        if ancestor is None:
            break
        lineage.append(ancestor)
        parent = ancestor.parent
    return VersionFacts(row, _names(repository.all_aliases(connection), number), lineage)


def _names(aliases: list[AliasRow], number: int) -> list[str]:
    return [alias.name for alias in aliases if alias.version == number]
