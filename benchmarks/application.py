"""The product's API with reference endpoints beside its own, behind the same middleware, keys and sessions.

    python -m benchmarks.application --home DIR api --port N

is `expunge --home DIR api --port N` with three routes more; the product knows nothing of them.
"""

from __future__ import annotations

import sys
from typing import Any

import orjson
from fastapi import APIRouter, Depends, FastAPI, Response
from sqlalchemy import Column, MetaData, String, Table
from sqlalchemy import insert as insert_into
from starlette.requests import Request
from starlette.routing import BaseRoute

import service.app
from service.cli import main
from service.platform.auth import Scope, require
from service.platform.dependencies import Eraser, Recommender, services_of
from service.platform.ids import uuid7
from service.platform.prepared_statements import PreparedStatement
from service.platform.routing import LeanRoute
from service.settings import Settings

ROWS = Table(
    "benchmark_rows",
    MetaData(),
    Column("id", String(36), primary_key=True),
    Column("user_id", String(512), nullable=False),
    Column("item_id", String(512), nullable=False),
)
_INSERT = PreparedStatement(insert_into(ROWS).inline())
_HEADERS = {"ETag": '"0123456789abcdef"', "Cache-Control": "private"}

router = APIRouter()
lean = APIRouter(route_class=LeanRoute)


class _Fixed:
    """The list that the fixed endpoints return."""

    body: Any = None


@router.delete("/benchmark/rows/{user_id}/{item_id}")
async def insert(request: Request, _eraser: Eraser) -> Response:
    """Insert one row in a transaction of its own, as an endpoint of FastAPI; it is durable when this answers."""
    return await _inserted(request)


@lean.delete("/benchmark/rows-lean/{user_id}/{item_id}", dependencies=[Depends(require(Scope.ERASE))])
async def insert_lean(request: Request) -> Response:
    """The same, on the route that the erasures use."""
    return await _inserted(request)


@router.put("/benchmark/fixed")
async def set_fixed(request: Request, _eraser: Eraser) -> Response:
    """Set the list that the fixed endpoints return."""
    _Fixed.body = orjson.loads(await request.body())
    return Response(status_code=204)


@router.get("/benchmark/fixed/{user_id}")
async def fixed(_recommender: Recommender) -> Response:
    """Return the fixed list, as an endpoint of FastAPI."""
    return Response(orjson.dumps(_Fixed.body), media_type="application/json", headers=_HEADERS)


@lean.get("/benchmark/fixed-lean/{user_id}", dependencies=[Depends(require(Scope.RECOMMEND))])
async def fixed_lean(_request: Request) -> Response:
    """Return the fixed list, on the route that the recommendations use."""
    return Response(orjson.dumps(_Fixed.body), media_type="application/json", headers=_HEADERS)


async def _inserted(request: Request) -> Response:
    path, id = request.path_params, uuid7()
    row = {"id": id, "user_id": path["user_id"], "item_id": path["item_id"]}
    await services_of(request).database.run_write(lambda connection: _INSERT.run(connection, row))
    return Response(orjson.dumps({"id": id}), 202, media_type="application/json")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The product's application and the reference endpoints."""
    app = _create_app(settings)
    # Routes are tried one by one, so each reference stands right behind the product's route that it is compared with.
    references = [*lean.routes, *router.routes]
    for product, path in (("/recommendations", "/benchmark/fixed"), ("/interactions/{item_id}", "/benchmark/rows")):
        behind = 1 + next(at for at, route in enumerate(app.router.routes) if _path(route).endswith(product))
        app.router.routes[behind:behind] = [route for route in references if _path(route).startswith(path)]
    return app


def _path(route: BaseRoute) -> str:
    return getattr(route, "path", "")


_create_app = service.app.create_app

if __name__ == "__main__":
    service.app.create_app = create_app
    sys.exit(main())
