"""`expunge status`: what lies in a home, and what is under way there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from service.cli.context import Home, Json, open_home, print_result, settings_of
from service.cli.terminal import count, duration, size

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from service.platform.obstacles import ForgettingState

CHECK_SECONDS = 10.0


def status(context: typer.Context, json_file: Json = None) -> None:
    """What lies in this home: schema, live version, model store, and which erasures wait."""
    with open_home(settings_of(context), behind=True) as home:
        document = status_document(home)
    print_result(json_file, document, _status_text(document))


def status_document(home: Home) -> dict[str, Any]:
    """The facts of `expunge status`."""
    from service.compaction.repository import Compaction, find_open
    from service.models import service as models
    from service.platform.clock import SystemClock
    from service.platform.gauges import sql_gauges
    from service.platform.obstacles import obstacle_to, read_forgetting_state

    now = SystemClock().now()

    def unit(connection: Connection) -> tuple[dict[str, float], int | None, ForgettingState, Compaction | None]:
        gauges = {gauge.name: gauge.samples[0].value for gauge in sql_gauges(connection, now) if gauge.samples}
        return gauges, models.live(connection), read_forgetting_state(connection, now), find_open(connection)

    gauges, live, state, compaction = home.database.query(unit)
    obstacle = obstacle_to(state)
    return {
        "home": str(home.settings.home),
        "database": home.database.url.render_as_string(hide_password=True),
        "behind": home.behind,
        "pages": _pages(home),
        "live_version": live,
        "versions": home.store.numbers("versions"),
        "encoders": home.store.numbers("encoders"),
        "store_bytes": sum(file.stat().st_size for file in home.store.root.rglob("*") if file.is_file()),
        "forgetting": {
            "base": state.base,
            "modes": sorted(state.encoders),
            "worker_alive": state.worker_alive,
            "waits_for": obstacle and obstacle.body(),
        },
        "compaction": None
        if compaction is None
        else {
            **{name: getattr(compaction, name) for name in ("id", "status", "step", "trigger", "problem")},
            "progress": {name: compaction.progress.get(name) for name in ("share", "left_s")},
        },
        "erasures": {
            "waiting": int(gauges["expunge_backlog"]),
            "needing_attention": int(gauges["expunge_erasures_needing_attention"]),
            "overdue": int(gauges["expunge_erasure_requests_overdue"]),
        },
    }


def _pages(home: Home) -> str:
    """What reading a SQLite file through finds, in some seconds."""
    from service.platform.page_check import PageCheck

    path = home.database.url.database
    if not home.database.is_sqlite or path is None:
        return "not read: PostgreSQL keeps checksums of its own"
    check = PageCheck(path)
    check.run(CHECK_SECONDS)
    return f"damaged: {', '.join(check.damaged)}" if check.damaged else check.told()


def _status_text(document: dict[str, Any]) -> str:
    live = document["live_version"]
    erasures = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in document["erasures"].items())
    versions = f"{count(len(document['versions']), 'versions')}, {count(len(document['encoders']), 'encoders')}"
    return "\n".join(
        (
            f"home       {document['home']}",
            f"database   {document['database']}",
            f"history    {document['behind'] or 'the database knows all that the model store has seen'}",
            f"pages      {document['pages']}",
            f"live       {'none: run `expunge train`' if live is None else f'version {live}'}",
            f"store      {versions}, {size(document['store_bytes'])}",
            f"forgetting {_forgetting(document['forgetting'])}",
            f"compaction {_compaction(document['compaction'])}",
            f"erasures   {erasures}",
        )
    )


def _compaction(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return "none runs"
    left, share = facts["progress"]["left_s"], facts["progress"]["share"] or 0.0
    rest = "" if left is None else f", {duration(left)} left"
    waits = "" if facts["problem"] is None else f"; waits: {facts['problem']}"
    return f"{facts['status']}, step {facts['step']}, {share:.0%}{rest}{waits}"


def _forgetting(facts: dict[str, Any]) -> str:
    if facts["base"] is None:
        return "no model yet"
    able = f"base {facts['base']}, mode {' and '.join(facts['modes'])}" if facts["modes"] else ""
    waits = facts["waits_for"] and f"{facts['waits_for']['detail']} {facts['waits_for']['next_step']}"
    return "; ".join(part for part in (able, waits) if part)
