import asyncio
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends
from sqlalchemy import LargeBinary, String, select

from service.platform import auth
from service.platform.auth import (
    Authenticator,
    KeyFacts,
    Principal,
    Scope,
    create_key,
    ensure_first_key,
    list_keys,
    require,
    revoke_key,
)
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.platform.dependencies import Admin, Auditor, Eraser, Reader, Recommender, Writer
from service.platform.problem import Unauthenticated
from service.platform.tables import api_keys
from tests.unit.platform.conftest import Serve

NOW = SystemClock().now()

router = APIRouter()


@router.get("/recommend")
async def recommend(caller: Recommender) -> str:
    return caller.key_id


@router.get("/read")
async def read(caller: Reader) -> str:
    return caller.key_id


@router.get("/write")
async def write(caller: Writer) -> str:
    return caller.key_id


@router.get("/erase")
async def erase(caller: Eraser) -> str:
    return caller.key_id


@router.get("/audit")
async def audit(caller: Auditor) -> str:
    return caller.key_id


@router.get("/officer")
async def officer(caller: Annotated[Principal, Depends(require(Scope.OFFICER))]) -> str:
    return caller.key_id


@router.get("/admin")
async def admin(caller: Admin) -> str:
    return caller.key_id


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def new_token(database: Database, *scopes: Scope) -> str:
    return database.transact(lambda write: create_key(write, "test", frozenset(scopes), NOW)).token


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope not in (Scope.OFFICER, Scope.ADMIN)])
def test_a_key_opens_what_its_scope_says_and_nothing_else(serve: Serve, scope: Scope):
    """403 names the scope that is missing."""
    client = serve(router)
    headers = bearer(new_token(serve.services.database, scope))

    for path in Scope:
        response = client.get(f"/{path}", headers=headers)
        assert response.status_code == (200 if path == scope else 403)
        if path != scope:
            assert response.json()["code"] == "scope_missing"
            assert f"`{path}`" in response.json()["detail"]


def test_an_admin_key_opens_everything(serve: Serve):
    """`admin` implies the others."""
    client = serve(router)
    headers = bearer(new_token(serve.services.database, Scope.ADMIN))

    assert [client.get(f"/{path}", headers=headers).status_code for path in Scope] == [200] * len(Scope)


def test_an_officer_reads_the_log_and_sees_every_keys_erasures():
    """And cancels none of them but its own; `admin` both sees and cancels all."""
    officer, admin, plain = (Principal("k", frozenset({scope})) for scope in (Scope.OFFICER, Scope.ADMIN, Scope.ERASE))

    assert officer.may(Scope.AUDIT)
    assert not any(officer.may(scope) for scope in Scope if scope not in (Scope.OFFICER, Scope.AUDIT))
    assert [(each.sees_only, each.cancels_only) for each in (officer, admin, plain)] == [
        (None, "k"),
        (None, None),
        ("k", "k"),
    ]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Basic ZXhwXzp4",
        "Bearer exp_unknown",
        "exp_bare",
        "Bearer exp_\xe9",
    ],
)
def test_without_a_valid_key_nothing_opens(serve: Serve, header: str | None):
    """401, with the scheme to use; the token is not repeated."""
    client = serve(router)

    response = client.get("/recommend", headers={} if header is None else {"Authorization": header.encode("latin-1")})

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["code"] == "unauthenticated"
    assert "unknown" not in response.json()["instance"]


def test_the_scheme_is_read_in_any_case(serve: Serve):
    """`bearer` is `Bearer`."""
    client = serve(router)
    token = new_token(serve.services.database, Scope.ADMIN)

    assert client.get("/recommend", headers={"Authorization": f"bearer {token}"}).status_code == 200


def test_a_revoked_key_is_refused_within_five_seconds(sqlite: Database):
    """A verified key is remembered that long, on the monotonic clock."""
    made = sqlite.transact(lambda write: create_key(write, "x", frozenset({Scope.ADMIN}), NOW))
    now = 1000.0
    authenticator = Authenticator(sqlite, lambda: now)

    async def ask() -> Principal:
        return await authenticator.principal(f"Bearer {made.token}")

    assert asyncio.run(ask()).key_id == made.key_id
    assert sqlite.transact(lambda write: revoke_key(write, made.key_id, NOW))
    now += 5.001

    with pytest.raises(Unauthenticated):
        asyncio.run(ask())


def test_a_key_that_was_verified_is_not_looked_up_again(sqlite: Database):
    """The hot path asks the database once in five seconds."""
    token = new_token(sqlite, Scope.ADMIN)
    authenticator = Authenticator(sqlite)
    first = asyncio.run(authenticator.principal(f"Bearer {token}"))
    sqlite.close()

    assert asyncio.run(authenticator.principal(f"Bearer {token}")) is first


@pytest.mark.P10
def test_the_memory_of_verified_keys_is_bounded(sqlite: Database, monkeypatch: pytest.MonkeyPatch):
    """The oldest goes; it is verified again when it comes back."""
    monkeypatch.setattr(auth, "CACHE_SIZE", 3)
    authenticator = Authenticator(sqlite)
    tokens = [new_token(sqlite, Scope.ADMIN) for _ in range(5)]

    async def ask_all() -> None:
        for token in [*tokens, tokens[0]]:
            await authenticator.principal(f"Bearer {token}")

    asyncio.run(ask_all())

    assert len(authenticator._verified) == 3


def test_tokens_that_are_not_known_are_not_remembered(sqlite: Database):
    """Nobody fills the memory with guesses."""
    authenticator = Authenticator(sqlite)

    with pytest.raises(Unauthenticated):
        asyncio.run(authenticator.principal("Bearer exp_guess"))

    assert authenticator._verified == {}


def test_the_first_admin_key_is_made_once(database: Database):
    """A second start shows none."""
    first = database.transact(lambda write: ensure_first_key(write, NOW))
    second = database.transact(lambda write: ensure_first_key(write, NOW))

    assert first is not None
    assert second is None
    principal = asyncio.run(Authenticator(database).principal(f"Bearer {first.token}"))
    assert principal == Principal(first.key_id, frozenset({Scope.ADMIN}))


def test_the_token_itself_is_stored_nowhere(database: Database):
    """Its SHA-256 is."""
    made = database.transact(lambda write: create_key(write, "x", frozenset({Scope.ERASE}), NOW))

    row = database.query(lambda read: read.execute(select(api_keys)).one())

    stored = [
        value for column, value in zip(api_keys.c, row, strict=True) if isinstance(column.type, String | LargeBinary)
    ]
    assert made.token not in stored
    assert made.token.encode() not in stored
    assert made.token.startswith("exp_")
    assert len(made.token) == 47


def test_keys_can_be_listed_and_revoked(database: Database):
    """Revoking twice, or what is not there, says so."""
    made = database.transact(lambda write: create_key(write, "x", frozenset({Scope.ERASE, Scope.AUDIT}), NOW))

    assert database.transact(lambda write: revoke_key(write, made.key_id, NOW)) is True
    assert database.transact(lambda write: revoke_key(write, made.key_id, NOW)) is False
    assert database.transact(lambda write: revoke_key(write, "none", NOW)) is False
    expected = KeyFacts(made.key_id, "x", frozenset({Scope.AUDIT, Scope.ERASE}), NOW, NOW)
    assert database.query(list_keys) == [expected]
