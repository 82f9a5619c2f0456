"""What must be true of a home: at any instant, and after everything has come to rest."""

from collections import Counter
from collections.abc import Callable, Iterable, Set
from typing import Any

from sqlalchemy import func, select

from model_store import RequestFacts
from service.platform import tables
from service.platform.clock import SystemClock
from service.worker import invariants
from tests.factories.workers import N_ITEMS, N_USERS, PAIRS, Home

Pairs = set[tuple[int, int]]


def accept_some(place: Home) -> set[str]:
    """A pair, a whole user, a pair that only validation held or nobody, and another pair."""
    return {
        place.accept(place.learnt[0]),
        place.accept(users=[3]),
        place.accept((900, 1)),
        place.accept(place.learnt[40]),
    }


def all_forgotten(place: Home, ids: Iterable[str]) -> Callable[[], bool]:
    """Whether these erasures are forgotten."""
    return lambda: {place.status(each) for each in ids} == {"forgotten"}


def check_never_ahead(home: Home) -> None:
    """P5, P9: whatever has just died, the live version is whole and lacks all that is called forgotten."""
    live = home.alias()
    assert live is not None
    home.store.verify("versions", live)
    remaining = set(home.learnt) - covered(home, "forgotten")
    users, items = home.degrees(live)
    for user, count in Counter(user for user, _ in remaining).items():
        assert users[user] <= count, f"user {user} has more in the live version than what was not forgotten"
    for item, count in Counter(item for _, item in remaining).items():
        assert items[item] <= count
    told = Counter(row.erasure_id for row in forgotten_entries(home))
    assert told == Counter(ids_of(home, "forgotten")), "the log and the statuses disagree"


def check_at_rest(home: Home, accepted: Set[str], cancelled: Set[str] = frozenset()) -> None:
    """P1, P2, P5, P7, P9, after everything has been forgotten: nothing lost, nothing twice, nothing left over."""
    statuses = {each: home.status(each) for each in accepted | cancelled}
    assert {each for each, status in statuses.items() if status == "forgotten"} == accepted
    assert {each for each, status in statuses.items() if status == "cancelled"} == cancelled
    assert Counter(row.erasure_id for row in forgotten_entries(home)) == Counter(accepted)
    _check_log(home)
    _check_model(home)
    _check_store(home)
    assert home.recorded() == set(PAIRS) - covered(home, "forgotten")
    assert not home.rows(select(tables.batches.c.id).where(tables.batches.c.finished_at.is_(None)))
    assert set(invariants.check_all(home.database, home.store, SystemClock()).values()) == {0}


def covered(home: Home, status: str) -> Pairs:
    """Numbers of the planted pairs that erasures of a status cover."""
    target, erasure = tables.erasure_targets.c, tables.erasures.c
    rows = home.rows(
        select(target.kind, target.user_key, target.item_key)
        .join_from(tables.erasure_targets, tables.erasures)
        .where(erasure.status == status)
    )
    users = {row.user_key - 1 for row in rows if row.kind == "user" and row.user_key}
    items = {row.item_key - 1 for row in rows if row.kind == "item" and row.item_key}
    named = {(row.user_key - 1, row.item_key - 1) for row in rows if row.kind == "interaction" and row.user_key}
    return {pair for pair in PAIRS if pair in named or pair[0] in users or pair[1] in items}


def ids_of(home: Home, status: str) -> list[str]:
    """Ids of the erasures of a status, in the order of accepting."""
    table = tables.erasures.c
    return [row.id for row in home.rows(select(table.id).where(table.status == status).order_by(table.seq))]


def forgotten_entries(home: Home) -> list[Any]:
    """Entries that tell of an erasure being forgotten."""
    table = tables.audit_entries.c
    return home.rows(select(table.erasure_id).where(table.event == "erasure.forgotten"))


def _check_log(home: Home) -> None:
    table = tables.audit_entries.c
    row = home.one(select(func.count().label("n"), func.min(table.seq).label("low"), func.max(table.seq).label("high")))
    head = home.one(select(tables.audit_head.c.size)).size
    assert (row.n, row.low, row.high) == (head, 1, head)


def _check_model(home: Home) -> None:
    """The live version is the base less exactly what was forgotten, and its manifest names exactly these erasures."""
    live = home.alias()
    assert live is not None
    manifest = home.store.verify("versions", live)
    remaining = set(home.learnt) - covered(home, "forgotten")
    users, items = home.degrees(live)
    by_user, by_item = Counter(user for user, _ in remaining), Counter(item for _, item in remaining)
    assert users.tolist() == [by_user[user] for user in range(N_USERS)]
    assert items.tolist() == [by_item[item] for item in range(N_ITEMS)]
    if manifest.facts.kind == "forgotten":
        batch = home.one(select(tables.batches.c.id).where(tables.batches.c.version == live)).id
        of_it = tables.erasures.c.batch_id <= batch
        wanted = select(tables.erasures.c.id).where(tables.erasures.c.status == "forgotten", of_it)
        ids = [row.id for row in home.rows(wanted.order_by(tables.erasures.c.batch_id, tables.erasures.c.seq))]
        assert manifest.facts.requests == RequestFacts.of(ids)


def _check_store(home: Home) -> None:
    rows = home.rows(select(tables.versions.c.version, tables.versions.c.status))
    kept = sorted(row.version for row in rows if row.status != "purged")
    assert home.store.numbers("versions") == kept
    assert home.store.alias("live") == home.alias("live")
    folders = [path.name for path in (home.store.root / "versions").iterdir()]
    assert not [name for name in folders if name.startswith(".")]
