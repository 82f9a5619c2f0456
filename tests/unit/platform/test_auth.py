import asyncio
from datetime import datetime, timedelta
from typing import Annotated, Any

import pytest
import structlog
from fastapi import APIRouter, Depends
from sqlalchemy import LargeBinary, String, select

from service.platform import auth, metrics
from service.platform.auth import (
    Authenticator,
    KeyFacts,
    KeyRefused,
    NewKey,
    Principal,
    Scope,
    create_key,
    ensure_first_key,
    list_keys,
    require,
    revoke_key,
    rotate_key,
)
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.platform.dependencies import Admin, Auditor, Eraser, Reader, Recommender, Writer
from service.platform.problem import StorageFull, Unauthenticated
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
    return database.transact(lambda write: create_key(write, "", frozenset(scopes), NOW)).token


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
    officer, admin, plain = (
        Principal("k", frozenset({scope}), "o") for scope in (Scope.OFFICER, Scope.ADMIN, Scope.ERASE)
    )

    assert officer.may(Scope.AUDIT)
    assert not any(officer.may(scope) for scope in Scope if scope not in (Scope.OFFICER, Scope.AUDIT))
    assert [(each.sees_only, each.cancels_only) for each in (officer, admin, plain)] == [
        (None, "o"),
        (None, None),
        ("o", "o"),
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
    assert principal == Principal(first.key_id, frozenset({Scope.ADMIN}), first.key_id)


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
    expected = KeyFacts(made.key_id, made.key_id, "x", frozenset({Scope.AUDIT, Scope.ERASE}), NOW, revoked_at=NOW)
    assert database.query(list_keys) == [expected]


def make(database: Database, label: str, at: datetime = NOW, days: float | None = None, *scopes: Scope) -> NewKey:
    expires_at = None if days is None else at + timedelta(days=days)
    given = frozenset(scopes or (Scope.ERASE,))
    return database.transact(lambda write: create_key(write, label, given, at, expires_at))


def facts_of(database: Database, made: NewKey) -> KeyFacts:
    return next(each for each in database.query(list_keys) if each.key_id == made.key_id)


class SteppedClock:
    """A clock that a test moves."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


def test_a_label_has_two_keys_that_work_and_no_third(database: Database):
    """Both belong to one owner; the refusal says what to do; a revoked or an expired key makes room."""
    first, second = make(database, "shop"), make(database, "shop", NOW, 1)

    with pytest.raises(KeyRefused, match=r"2 keys that work.*Revoke the one"):
        make(database, "shop")

    assert facts_of(database, first).owner == facts_of(database, second).owner == first.key_id
    third = make(database, "shop", NOW + timedelta(days=1))
    assert database.transact(lambda write: revoke_key(write, first.key_id, NOW))
    fourth = make(database, "shop", NOW + timedelta(days=1))
    assert {facts_of(database, each).owner for each in (third, fourth)} == {first.key_id}


def test_a_key_that_replaces_a_revoked_one_is_of_the_same_owner(database: Database):
    """A key that leaked is revoked first: the next one still sees what it asked for."""
    leaked = make(database, "shop")
    database.transact(lambda write: revoke_key(write, leaked.key_id, NOW))

    assert facts_of(database, make(database, "shop", NOW + timedelta(seconds=1))).owner == leaked.key_id


def test_keys_without_a_label_or_with_another_have_nothing_in_common(database: Database):
    """Each is an owner of its own, and there may be any number."""
    made = [make(database, label) for label in ("", "", "", "shop", "Shop")]

    assert [facts_of(database, each).owner for each in made] == [each.key_id for each in made]


def test_rotating_makes_a_second_key_with_the_same_scopes_and_lifetime(database: Database):
    """Counted from now, or as it is asked for."""
    old = make(database, "shop", NOW, 30, Scope.ERASE, Scope.READ)
    later = NOW + timedelta(days=20)

    before, new = database.transact(lambda write: rotate_key(write, "shop", later))

    found = facts_of(database, new)
    assert before.key_id == old.key_id
    assert (found.scopes, found.owner) == (frozenset({Scope.ERASE, Scope.READ}), old.key_id)
    assert found.expires_at == later + timedelta(days=30)
    with pytest.raises(KeyRefused, match="2 keys that work"):
        database.transact(lambda write: rotate_key(write, "shop", later))


@pytest.mark.parametrize("label", ["", "nobody", "gone"])
def test_what_does_not_work_is_not_rotated(database: Database, label: str):
    """No key of that label, an expired one, or keys that have no label."""
    make(database, "")
    make(database, "gone", NOW - timedelta(days=2), 1)

    with pytest.raises(KeyRefused, match="No key that works has this label"):
        database.transact(lambda write: rotate_key(write, label, NOW))


def test_an_expired_key_is_refused_at_its_instant(sqlite: Database):
    """Though it was verified a second ago. A stranger learns no more than of an unknown key; the operator does."""
    clock = SteppedClock(NOW)
    made = make(sqlite, "shop", NOW, 1)
    authenticator = Authenticator(sqlite, clock.monotonic, clock=clock)

    async def ask(token: str) -> Principal:
        return await authenticator.principal(f"Bearer {token}")

    clock.at += timedelta(days=1) - timedelta(seconds=1)
    assert asyncio.run(ask(made.token)).key_id == made.key_id
    clock.at += timedelta(seconds=1)
    counted = metrics.auth_failures_total.labels("expired")._value.get()
    with structlog.testing.capture_logs() as told:
        refusals = []
        for token in (made.token, made.token, "exp_unknown"):
            with pytest.raises(Unauthenticated) as refused:
                asyncio.run(ask(token))
            refusals.append(refused.value.detail)

    assert len(set(refusals)) == 1
    assert metrics.auth_failures_total.labels("expired")._value.get() == counted + 2
    assert [(each["event"], each["key_id"]) for each in told] == [("auth.key_expired", made.key_id)]


def test_the_last_use_is_written_once_a_minute(database: Database, monkeypatch: pytest.MonkeyPatch):
    """However often a key is verified, and by however many processes."""
    clock = SteppedClock(NOW)
    made = make(database, "shop")
    writes = 0
    write = database.run_write

    async def counted(unit: Any) -> Any:
        nonlocal writes
        writes += 1
        return await write(unit)

    monkeypatch.setattr(database, "run_write", counted)

    async def use(seconds: int) -> None:
        authenticators = [Authenticator(database, clock.monotonic, clock=clock) for _ in range(2)]
        for _ in range(seconds // 10 + 1):
            for each in authenticators:
                await each.principal(f"Bearer {made.token}")
                await each.stop()
            clock.at += timedelta(seconds=10)

    assert facts_of(database, made).last_used_at is None
    asyncio.run(use(50))
    assert (writes, facts_of(database, made).last_used_at) == (1, NOW)
    asyncio.run(use(10))
    assert (writes, facts_of(database, made).last_used_at) == (2, NOW + timedelta(minutes=1))


def test_a_request_does_not_wait_for_the_last_use_nor_fail_with_it(sqlite: Database, monkeypatch: pytest.MonkeyPatch):
    """The database may be full: who may call is known all the same."""
    made = make(sqlite, "shop")
    authenticator = Authenticator(sqlite)
    written = asyncio.Event()

    async def full(unit: Any) -> Any:
        await written.wait()
        raise StorageFull

    monkeypatch.setattr(sqlite, "run_write", full)

    async def use() -> Principal:
        found = await authenticator.principal(f"Bearer {made.token}")
        written.set()
        await authenticator.stop()
        return found

    assert asyncio.run(use()).key_id == made.key_id
    assert facts_of(sqlite, made).last_used_at is None
