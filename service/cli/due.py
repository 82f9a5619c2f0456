"""`expunge due`: a calendar of the erasures that are still to be erased."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Annotated, Any

import typer

from service.cli.client import DEFAULT_URL, Key, ServiceClient, Url
from service.cli.context import Json, print_result
from service.cli.terminal import count

DAYS = 31
"""The law's month: whatever was received is due within it, but for extensions."""
DAYS_MAX = 3650


def due(
    days: Annotated[
        int, typer.Option("--days", metavar="N", min=0, max=DAYS_MAX, help="How far to look ahead from now.")
    ] = DAYS,
    url: Url = DEFAULT_URL,
    key: Key = None,
    json_file: Json = None,
) -> None:
    """List what is to be erased by when, day by day (UTC), what is overdue first.

    Whose deadline does not run is not in it: what is under legal hold is counted apart, what is refused or over is not.
    A key is shown its own erasures; scopes `officer` and `admin` are shown everybody's.
    """
    now = datetime.now(UTC)
    until = now + timedelta(days=days)
    with closing(ServiceClient(url, key)) as client:
        owed, held = client.owed(until.isoformat()), client.held()
    erasures = [_short(erasure, now) for erasure in owed]
    days_due = [(date, list(of_day)) for date, of_day in groupby(erasures, key=lambda each: str(each["due_at"])[:10])]
    overdue = sum(each["overdue"] for each in erasures)
    document = {
        "as_of": now.isoformat(),
        "until": until.isoformat(),
        "days": [{"date": date, "erasures": of_day} for date, of_day in days_due],
        "due": len(erasures),
        "overdue": overdue,
        "held": [erasure["id"] for erasure in held],
    }
    lines = list[str]()
    for date, of_day in days_due:
        lines.append(f"{date}  {count(len(of_day), 'erasures')}")
        lines.extend(f"  {_line(erasure)}" for erasure in of_day)
    late = f", {overdue:,} of them overdue" if overdue else ""
    aside = f"; {len(held):,} under legal hold, which are not due" if held else ""
    lines.append(f"{count(len(erasures), 'erasures')} due within {count(days, 'days')}{late}{aside}.")
    print_result(json_file, document, "\n".join(lines))


def _short(erasure: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    names = ("id", "status", "received_at", "due_at", "requested", "matched", "needs", "extension")
    late = datetime.fromisoformat(erasure["due_at"]) < now
    return {**{name: erasure[name] for name in names}, "overdue": late}


def _line(erasure: Mapping[str, Any]) -> str:
    needs = "" if erasure["needs"] is None else f" ({erasure['needs']})"
    more = ", extended" if erasure["extension"] else ""
    return f"{erasure['due_at'][11:16]}  {erasure['id']}  {erasure['status']}{needs}{more}" + (
        "  OVERDUE" if erasure["overdue"] else ""
    )
