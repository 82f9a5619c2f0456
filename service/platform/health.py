"""Health, metrics and the explanation of each problem: what operators and orchestrators ask."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, cast

import orjson
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

import migrations
from service.platform.dependencies import Services, ServicesDep
from service.platform.gauges import Scraper
from service.platform.integrity import Finding, Verdict, read_both_ends
from service.platform.obstacles import obstacle_to, read_forgetting_state
from service.platform.problem import MEDIA_TYPE, NotFound, NotReady, Problem, known_problems, problems

CHECK_SECONDS = 3.0


class Health(BaseModel):
    """The answer of /livez and /readyz."""

    status: Literal["ok", "degraded"]
    checks: dict[str, dict[str, str]] | None = None


class ProblemText(BaseModel):
    """What a problem code means."""

    code: str
    status: int
    title: str
    meaning: str
    next_step: str


router = APIRouter(tags=["operations"])


@router.get("/livez")
async def livez() -> Health:
    """Whether the process answers; looks at nothing else."""
    return Health(status="ok")


@router.get("/readyz", responses=problems(NotReady), response_model=Health, response_model_exclude_none=True)
async def readyz(
    request: Request,
    services: ServicesDep,
    verbose: Annotated[str | None, Query(description="Show every check.")] = None,
) -> Response:
    """Whether this process should get traffic: database migrated, sound and not gone back in time, key the right one,
    live version loaded.

    Without Redis it is `degraded` and still ready: reads and erasures go on, forgetting waits.
    """
    checks = await run_checks(services)
    verdict = _verdict(checks)
    content: dict[str, Any] = {"status": verdict}
    if verbose is not None:
        content["checks"] = {name: {"status": check.status, "detail": check.detail} for name, check in checks.items()}
    if verdict != "failed":
        return Response(orjson.dumps(content), media_type="application/json")
    failed = ", ".join(name for name, check in checks.items() if check.status == "failed")
    body = {**content, **NotReady(f"Not ready: {failed}.").body(request.state.request_id)}
    return Response(orjson.dumps(body), NotReady.status, media_type=MEDIA_TYPE)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    scraper = cast(Scraper, request.app.state.scraper)
    text = await asyncio.to_thread(scraper.render)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/problems/{code}", responses=problems(NotFound))
async def problem(code: Annotated[str, Path(pattern="^[a-z_]{1,64}$")]) -> ProblemText:
    """What an error code means and what to do about it; the `type` of every problem points here."""
    kind = known_problems().get(code)
    if kind is None:
        msg = "There is no problem of this code."
        raise NotFound(msg)
    meaning = (kind.__doc__ or "").strip().split("\n", 1)[0]
    return ProblemText(code=code, status=kind.status, title=kind.title, meaning=meaning, next_step=kind.next_step)


async def run_checks(services: Services) -> dict[str, Finding]:
    """Look at every part, at once, 3 seconds at most."""
    looks: dict[str, Callable[[Services], Awaitable[Finding]]] = {
        "database": _database,
        "redis": _redis,
        "model": _model,
        "forgetting": _forgetting,
    }
    results = await asyncio.gather(*(_bounded(look(services)) for look in looks.values()))
    found = dict(zip(looks, results, strict=True))
    return found if services.integrity is None else found | services.integrity.findings()


async def _bounded(look: Awaitable[Finding]) -> Finding:
    try:
        return await asyncio.wait_for(look, CHECK_SECONDS)
    except TimeoutError:
        return Finding("failed", f"No answer within {CHECK_SECONDS:g} s.")
    except Problem as error:
        return Finding("failed", error.detail)


async def _database(services: Services) -> Finding:
    # Not `run_read`: what is found against the database is told by its own check. In a thread, on another connection
    # than serving's: what that one remembers of a page may be better than the page.
    at = await asyncio.to_thread(services.database.query, migrations.revision_of)
    newest = migrations.head()
    # An older process beside a newer schema goes on: migrations are additive.
    if at is not None and at >= newest:
        await asyncio.to_thread(services.database.query, read_both_ends)
        newer = "" if at == newest else f", newer than this code's {newest}"
        return Finding("ok", f"migrated to {at}{newer}")
    return Finding("failed", f"The schema is at {at or 'nothing'}, this code needs {newest}: run `expunge db upgrade`.")


async def _redis(services: Services) -> Finding:
    if services.stream is None:
        return Finding("degraded", "No Redis: the worker looks for work by itself, every few seconds.")
    try:
        await asyncio.wait_for(asyncio.to_thread(services.stream.ping), CHECK_SECONDS - 0.5)
    except (Problem, TimeoutError) as error:
        detail = error.detail if isinstance(error, Problem) else "It does not answer in time."
        return Finding("degraded", f"{detail} Reads and erasures go on; forgetting may wait.")
    return Finding("ok", "answers")


async def _model(services: Services) -> Finding:
    live = services.live.status()
    if live.version is None:
        return Finding("failed", f"No version is loaded ({live.problem or 'none is live'}): train one, or repair it.")
    if live.problem is not None:
        return Finding("degraded", f"Version {live.version} answers; the live one is refused ({live.problem}).")
    return Finding("ok", f"version {live.version}")


async def _forgetting(services: Services) -> Finding:
    now = services.clock.now()
    state = await services.database.run_read(lambda connection: read_forgetting_state(connection, now))
    found = obstacle_to(state)
    # That nobody works is no fault of this process, and none at all while nothing waits.
    if found is None or (found.code == "no_worker" and not state.waiting):
        return Finding(
            "ok", "no model yet" if state.base is None else f"base {state.base}; {state.waiting:,} erasures wait"
        )
    return Finding("degraded", f"{found} ({state.waiting:,} erasures wait.)")


def _verdict(checks: dict[str, Finding]) -> Verdict:
    statuses = {check.status for check in checks.values()}
    return "failed" if "failed" in statuses else "degraded" if "degraded" in statuses else "ok"
