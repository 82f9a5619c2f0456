"""`expunge residue`: search a home for what is left of users, items and pairs; needs no service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.context import Home, Json, open_home, print_result, settings_of
from service.cli.failures import Refusal
from service.cli.target_file import read_target_file
from service.cli.targets import targets_of_arguments
from service.cli.terminal import Terminal

if TYPE_CHECKING:
    from service.erasures.targets import Subjects
    from service.platform.redis import ErasureStream
    from service.residue.report import ResidueReport, ResidueStore
    from service.settings import Settings

SALT_DIGITS = 64
_MEGABYTE = 1_000_000


def residue(
    context: typer.Context,
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="[USER ITEM]...", help="Interactions: a user, an item, and so on.")
    ] = None,
    user: Annotated[list[str] | None, typer.Option("--user", metavar="U", help="A whole user; repeatable.")] = None,
    item: Annotated[list[str] | None, typer.Option("--item", metavar="I", help="A whole item; repeatable.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="CSV", help="Targets as `expunge erase --file` takes them. -: stdin."),
    ] = None,
    salt: Annotated[
        list[str] | None, typer.Option("--salt", metavar="HEX", help="A salt that a 202 gave; repeatable.")
    ] = None,
    erasure: Annotated[
        str | None,
        typer.Option("--erasure", metavar="ID", help="What it is about: with --salt, its commitment must open."),
    ] = None,
    json_file: Json = None,
) -> None:
    """Search a home for what is left of users, items and pairs: every byte of every store in scope.

    Tells per store GONE, PRESENT with the places, or NOT_CHECKED with the reason; never what was found. Fails where
    anything is PRESENT. It needs no service, and changes nothing. Ids in arguments stand in the shell's history and
    in the list of processes: --file leaves them out of both.
    """
    subjects = _subjects(pairs or [], user or [], item or [], file)
    salts = [_salt(each) for each in salt or []]
    settings = settings_of(context)
    with open_home(settings) as home, _stream(settings) as stream:
        report = _search(home, stream, subjects, salts, erasure)
    document = report.as_dict()
    print_result(json_file, document, _table(document))
    left = sum(store["places_in_all"] for store in document["stores"])
    if left:
        msg = f"PRESENT: something is left at {left:,} places. docs/runbook.md says what to do about each."
        raise Refusal(msg)


def _subjects(pairs: list[str], users: list[str], items: list[str], file: Path | None) -> Subjects:
    from service.erasures.targets import Subjects

    targets = targets_of_arguments(pairs, users, items)
    if file is not None:
        listed = read_target_file(file)
        targets.interactions |= listed.interactions
        targets.users |= listed.users
        targets.items |= listed.items
    if not len(targets):
        msg = "Nothing is named to search for. Give USER ITEM, --user, --item or --file."
        raise Refusal(msg)
    return Subjects.of(targets.interactions, targets.users, targets.items)


def _salt(text: str) -> bytes:
    try:
        if len(text) != SALT_DIGITS:
            raise ValueError
        return bytes.fromhex(text)
    except ValueError:
        msg = f"--salt takes {SALT_DIGITS} hexadecimal digits, as the 202 gave them."
        raise Refusal(msg) from None


@contextmanager
def _stream(settings: Settings) -> Iterator[ErasureStream | None]:
    """The stream of the home where its server runs; None where it does not: then its files hold all of it."""
    from service.platform.embedded_server import Address
    from service.platform.redis import ErasureStream

    url = settings.redis_url
    if url is None:
        address = Address(settings.home / "valkey")
        if not address.answers():
            yield None
            return
        url = address.url()
    stream = ErasureStream(
        url, stream=settings.stream, group=settings.group, consumer="residue", timeout_s=settings.redis_timeout_s
    )
    try:
        yield stream
    finally:
        stream.close()


def _search(
    home: Home, stream: ErasureStream | None, subjects: Subjects, salts: list[bytes], erasure: str | None
) -> ResidueReport:
    from service.erasures import repository as erasures
    from service.residue.needles import Needles
    from service.residue.scan import ResidueScan

    if erasure is not None:
        found = home.database.query(lambda connection: erasures.find(connection, erasure))
        if found is None:
            msg = "This home has no erasure of the id that --erasure gives."
            raise Refusal(msg)
        if salts and found.commitment not in {subjects.commitment(each) for each in salts}:
            msg = "Salt and targets do not open the erasure's commitment: give exactly what it named."
            raise Refusal(msg)
    needles = home.database.query(
        lambda connection: Needles.presented(connection, home.identity, subjects, salts, erasure)
    )
    scan = ResidueScan(home.database, home.store, stream, home.settings)
    with Terminal().step("Searching", "MB", 0) as progress:

        def told(store: ResidueStore, n_bytes: int) -> None:
            del store
            progress(n_bytes // _MEGABYTE)

        return scan.run(needles, told)


def _table(document: Mapping[str, Any]) -> str:
    lines = []
    for store in document["stores"]:
        lines.append(f"{store['store']:<16} {store['verdict']:<12} {store['bytes']:>15,} bytes")
        for place in store["places"]:
            at = "" if place["at"] is None else f", first at byte {place['at']:,}"
            note = f" {place['note']}" if place["note"] else ""
            lines.append(f"    {place['place']}: {place['kind']}, {place['count']:,} times{at}.{note}")
        more = store["places_in_all"] - len(store["places"])
        if more:
            lines.append(f"    and {more:,} more places")
        lines += [
            f"    may be there: {place['place']}: {place['kind']}, {place['count']:,} times. {place['note']}"
            for place in store["allowed"]
        ]
        if store["reason"]:
            lines.append(f"    {store['reason']}")
    lines += document["notes"]
    lines.append(f"Out of scope: {'; '.join(document['out_of_scope'])}.")
    seconds = max(float(document["seconds"]), 0.001)
    rate = document["bytes"] / seconds / _MEGABYTE
    lines.append(f"{document['bytes']:,} bytes in {seconds:.1f} s ({rate:,.0f} MB/s).")
    return "\n".join(lines)
