"""P1 to P10 over a history and over what is there in the end."""

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import select

from model_store import StoreError
from service.audit.verification import GrowingTree
from service.platform import tables
from service.platform.clock import SystemClock
from service.worker import invariants
from tests.factories.workers import Home
from tests.faults.harness.history import History, Operation

FOREVER = float("inf")
FORGOTTEN = "erasure.forgotten"
DONE = ("forgotten", "erased", "refused")
ORDER = {"accepted": 0, "needs_attention": 0, "forgotten": 1, "erased": 2, "cancelled": 3, "refused": 3}


@dataclass
class Verdict:
    """What did not hold. The three figures are those of the promises; `broken` says in words what was seen."""

    lost: int = 0
    duplicated: int = 0
    stale_reads: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def violations(self) -> int:
        """How much did not hold."""
        return len(self.broken)

    def note(self, promise: str, text: str) -> None:
        """A promise was broken."""
        self.broken.append(f"{promise}: {text}")


@dataclass
class _Asked:
    """One erasure as its caller sees it: all requests with one key."""

    key: str
    asked: dict[str, Any]
    requests: list[Operation] = field(default_factory=list)

    @property
    def answered(self) -> list[Operation]:
        return [each for each in self.requests if each.outcome == "ok"]

    @property
    def ids(self) -> set[str]:
        return {each.got["id"] for each in self.answered}

    @property
    def promised_at(self) -> float:
        """From when on it must be hidden."""
        return min((each.ended for each in self.answered), default=FOREVER)


def judge(history: History, place: Home) -> Verdict:
    """Whether the promises held, once everything has come to rest."""
    verdict = Verdict()
    erasures = _erasures(history)
    rows = {row.id: row for row in place.rows(select(tables.erasures))}
    cancels = _cancels(history)
    _nothing_lost(verdict, erasures, rows, cancels)
    _nothing_twice(verdict, erasures, rows, place)
    _nothing_shown(verdict, history, erasures, rows, cancels)
    _answers_whole(verdict, history, place)
    _statuses_true(verdict, history, rows)
    _log_whole(verdict, history, place)
    _receipts_same(verdict, history)
    _at_rest(verdict, place)
    return verdict


def at_rest(place: Home) -> bool:
    """Whether nothing waits any more."""
    waiting = select(tables.erasures.c.id).where(tables.erasures.c.status == "accepted").limit(1)
    compacting = select(tables.compactions.c.id).where(tables.compactions.c.finished_at.is_(None)).limit(1)
    if place.rows(compacting):
        return False
    running = select(tables.batches.c.id).where(tables.batches.c.finished_at.is_(None)).limit(1)
    return not place.rows(waiting) and not place.rows(running) and place.store.alias("live") == place.alias()


def _erasures(history: History) -> list[_Asked]:
    found: dict[str, _Asked] = {}
    for operation in history.named("erase"):
        key = operation.asked["key"]
        found.setdefault(key, _Asked(key, operation.asked)).requests.append(operation)
    return list(found.values())


def _cancels(history: History) -> dict[str, float]:
    """When each erasure was first asked to be cancelled."""
    first: dict[str, float] = {}
    for operation in history.named("cancel"):
        erasure_id = operation.asked["id"]
        first[erasure_id] = min(first.get(erasure_id, FOREVER), operation.begun)
    return first


def _nothing_lost(verdict: Verdict, erasures: list[_Asked], rows: dict[str, Any], cancels: dict[str, float]) -> None:
    """P1: what was accepted is on record and has come to its end."""
    for erasure in erasures:
        for erasure_id in erasure.ids:
            row = rows.get(erasure_id)
            fine = row is not None and (row.status in DONE or (row.status == "cancelled" and erasure_id in cancels))
            if not fine:
                verdict.lost += 1
                status = "not on record" if row is None else f"{row.status} ({row.needs})"
                verdict.note("P1", f"the erasure of key {erasure.key} is {status}")


def _nothing_twice(verdict: Verdict, erasures: list[_Asked], rows: dict[str, Any], place: Home) -> None:
    """P2: one key one erasure, and each told of once."""
    known: set[str] = set()
    for erasure in erasures:
        known |= erasure.ids
        # What is erased took its key along: who asks again then asks anew.
        if len(erasure.ids) > 1 and not any(rows[each].status == "erased" for each in erasure.ids if each in rows):
            verdict.duplicated += 1
            verdict.note("P2", f"key {erasure.key} was answered with {len(erasure.ids)} erasures")
    unknown, unanswered = len(rows.keys() - known), sum(not erasure.ids for erasure in erasures)
    if unknown > unanswered:
        verdict.duplicated += unknown - unanswered
        verdict.note("P2", f"{unknown} erasures that nobody was told of, and only {unanswered} requests without answer")
    entry = tables.audit_entries.c
    told = Counter((row.event, row.erasure_id) for row in place.rows(select(entry.event, entry.erasure_id)))
    for erasure_id, row in rows.items():
        for event, wanted in (("accepted", True), ("forgotten", row.status in ("forgotten", "erased"))):
            count = told[f"erasure.{event}", erasure_id]
            if count != int(wanted) and not (event == "forgotten" and row.status == "refused"):
                verdict.duplicated += max(0, count - 1)
                verdict.note("P2", f"the log tells {count} times that an erasure was {event}; it is {row.status}")


def _nothing_shown(
    verdict: Verdict, history: History, erasures: list[_Asked], rows: dict[str, Any], cancels: dict[str, float]
) -> None:
    """P3, P4: after its 202 no read shows what an erasure covers, and no write brings it back."""
    hidden = _Hidden()
    for erasure in erasures:
        for erasure_id in erasure.ids:
            status = rows[erasure_id].status if erasure_id in rows else ""
            end = cancels.get(erasure_id, FOREVER) if status == "cancelled" else FOREVER
            hidden.add(erasure.asked, erasure.promised_at, end)
    for operation in history:
        if operation.outcome != "ok":
            continue
        if operation.name == "record":
            back = [
                pair
                for place, pair in enumerate(operation.asked["pairs"])
                if place in operation.got["taken"] and hidden.pair(*pair, operation, whole_user=True)
            ]
            for _ in back:
                verdict.note("P4", "an interaction that was erased was recorded again without consent")
            continue
        shown = list(_shown(operation))
        stale = [
            (user, item) for user, item in shown if hidden.pair(user, item, operation, operation.name == "history")
        ]
        if stale:
            verdict.stale_reads += 1
            verdict.note("P3", f"{operation.name} showed {len(stale)} erased items")


def _shown(operation: Operation) -> Iterable[tuple[int | None, int]]:
    """The user, if any, and item of everything that a read shows."""
    match operation.name:
        case "recommend":
            for user, items in zip(operation.asked["users"], operation.got["items"], strict=True):
                yield from ((user, item) for item in items)
        case "history":
            yield from ((operation.asked["user"], item) for item in operation.got["items"])
        case "similar":
            yield from ((None, item) for item in (operation.asked["item"], *operation.got["items"]))


class _Hidden:
    """What must not be seen, and from when to when."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
        self._users: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self._items: dict[int, list[tuple[float, float]]] = defaultdict(list)

    def add(self, asked: dict[str, Any], begin: float, end: float) -> None:
        for user, item in asked["interactions"]:
            self._pairs[user, item].append((begin, end))
        for user in asked["users"]:
            self._users[user].append((begin, end))
        for item in asked["items"]:
            self._items[item].append((begin, end))

    def pair(self, user: int | None, item: int, during: Operation, whole_user: bool) -> bool:
        """Whether it was hidden for the whole of an operation."""
        spans = list(self._items.get(item, ()))
        if user is not None:
            spans += self._pairs.get((user, item), ())
            spans += self._users.get(user, ()) if whole_user else ()
        return any(begin <= during.begun and during.ended <= end for begin, end in spans)


def _answers_whole(verdict: Verdict, history: History, place: Home) -> None:
    """P5: no answer but those that are described, and only from versions that were published."""
    versions = {row.version for row in place.rows(select(tables.versions.c.version))}
    for operation in history:
        if operation.status == 500:
            verdict.note("P5", f"{operation.name} was answered with 500 ({operation.got.get('code')})")
        version = operation.got.get("version") if operation.name == "recommend" else None
        if version is not None and version not in versions:
            verdict.note("P5", f"an answer came from version {version}, which was never published")


def _statuses_true(verdict: Verdict, history: History, rows: dict[str, Any]) -> None:
    """P9: a status never goes back, a deadline never moves by itself, and no stage takes less than no time."""
    seen: dict[str, list[Operation]] = defaultdict(list)
    for operation in history.named("state", "erase"):
        if operation.outcome == "ok":
            seen[operation.got.get("id") or operation.asked["id"]].append(operation)
    for erasure_id, operations in seen.items():
        if len({each.got["due_at"] for each in operations}) > 1:
            verdict.note("P9", "a deadline moved by itself")
        if any(each.got.get("least_s", 0.0) < 0 for each in operations):
            verdict.note("P9", "a stage took less than no time")
        highest, ended = -1, 0.0
        for each in sorted(operations, key=lambda operation: operation.ended):
            place = ORDER[each.got["status"]]
            if each.begun > ended and place < highest:
                verdict.note("P9", f"a status went back to {each.got['status']}")
            if place > highest:
                highest, ended = place, each.ended
        if erasure_id in rows and ORDER[rows[erasure_id].status] < highest:
            verdict.note("P9", f"a status went back to {rows[erasure_id].status} in the end")


def _log_whole(verdict: Verdict, history: History, place: Home) -> None:
    """P7: every head that anybody was given is a head of the log as it is now; it never shrank."""
    seen: dict[int, set[str]] = defaultdict(set)
    for operation in history.named("checkpoint"):
        if operation.outcome == "ok":
            seen[operation.got["size"]].add(operation.got["root"])
    entry = tables.audit_entries.c
    tree, expected = GrowingTree(), {0: GrowingTree().root()}
    leaves = place.rows(select(entry.seq, entry.leaf_hash).order_by(entry.seq))
    for count, row in enumerate(leaves, 1):
        if row.seq != count:
            verdict.note("P7", "the log has a gap")
            return
        tree.append(row.leaf_hash)
        if count in seen:
            expected[count] = tree.root()
    (head,) = place.rows(select(tables.audit_head.c.size))
    if head.size != len(leaves):
        verdict.note("P7", "the log's head and its entries disagree")
    for size, roots in seen.items():
        if roots != {base64.b64encode(expected[size]).decode()} if size in expected else True:
            verdict.note("P7", f"a head of size {size} was given out that is none of this log")


def _receipts_same(verdict: Verdict, history: History) -> None:
    """P7: a receipt of the same state has the same bytes, whoever makes it again and when."""
    seen: dict[str, set[str]] = defaultdict(set)
    for operation in history.named("receipt"):
        if operation.outcome == "ok":
            seen[operation.got["statement"]].add(operation.got["whole"])
    for receipts in seen.values():
        if len(receipts) > 1:
            verdict.note("P7", f"one state of an erasure has {len(receipts)} receipts")


def _at_rest(verdict: Verdict, place: Home) -> None:
    """P5, P6, P9, P10: the live version lacks exactly what was forgotten; nothing is left over anywhere."""
    for rule, count in invariants.check_all(place.database, place.store, SystemClock()).items():
        if count:
            verdict.note("P9", f"the invariant {rule} is broken {count} times")
    live = place.alias()
    if live is None:
        verdict.note("P5", "nothing is live")
        return
    try:
        place.store.verify("versions", live)
    except StoreError as error:
        verdict.note("P5", f"the live version is refused: {type(error).__name__}")
        return
    for degrees, expected in _degrees(place, live):
        if not np.array_equal(degrees, expected):
            verdict.note("P6", "the live version is not the base less exactly what was forgotten")
    users, items, pairs = _forgotten(place)
    recorded = place.rows(select(tables.interactions.c.user_key, tables.interactions.c.item_key))
    left = sum(r.user_key in users or r.item_key in items or (r.user_key, r.item_key) in pairs for r in recorded)
    if left:
        verdict.note("P4", f"{left} interactions are still on record that were forgotten")
    rows = place.rows(select(tables.versions.c.version, tables.versions.c.status))
    if place.store.numbers("versions") != sorted(row.version for row in rows if row.status != "purged"):
        verdict.note("P5", "the store and SQL disagree about which versions there are")
    if [path for path in (place.store.root / "versions").iterdir() if path.name.startswith(".")]:
        verdict.note("P10", "half written versions are left in the store")


def never_ahead(place: Home) -> list[str]:
    """What breaks P5 or P9 at this instant, whatever has just died; nobody may be at work."""
    live = place.alias()
    if live is None:
        return ["P5: nothing is live"]
    try:
        place.store.verify("versions", live)
    except StoreError as error:
        return [f"P5: the live version is refused: {type(error).__name__}"]
    broken = []
    if any((degrees > expected).any() for degrees, expected in _degrees(place, live)):
        broken.append("P9: the live version holds what is called forgotten")
    table, entry = tables.erasures.c, tables.audit_entries.c
    forgotten = Counter(row.id for row in place.rows(select(table.id).where(table.status == "forgotten")))
    told = Counter(row.erasure_id for row in place.rows(select(entry.erasure_id).where(entry.event == FORGOTTEN)))
    if forgotten - told or any(count > 1 for count in told.values()):
        broken.append("P2: the log and the statuses disagree")
    return broken


def _degrees(place: Home, live: int) -> list[tuple[Any, Any]]:
    """Of users and of items: the live version's degrees, and those of its base less what is called forgotten."""
    users, items, pairs = _forgotten(place)
    base = place.store.open("versions", _base_of(place, live), "base.safetensors")
    tensors = place.store.open("versions", live, "embeddings.safetensors")
    user_keys, item_keys = tensors["user_keys"], tensors["item_keys"]
    edges = [(int(user_keys[u]), int(item_keys[i])) for u, i in base["edges"].T]
    remaining = [(u, i) for u, i in edges if u not in users and i not in items and (u, i) not in pairs]
    found = []
    for side, (keys, degrees) in enumerate(
        ((user_keys, tensors["user_degrees"]), (item_keys, tensors["item_degrees"]))
    ):
        count = Counter(pair[side] for pair in remaining)
        found.append((degrees, np.array([count[int(key)] for key in keys])))
    return found


def _base_of(place: Home, version: int) -> int:
    (row,) = place.rows(select(tables.versions.c.base).where(tables.versions.c.version == version))
    return int(row.base)


def _forgotten(place: Home) -> tuple[set[int], set[int], set[tuple[int, int]]]:
    """Keys of the users, the items and the pairs that the live version must have forgotten."""
    target, erasure = tables.erasure_targets.c, tables.erasures.c
    rows = place.rows(
        select(target.kind, target.user_key, target.item_key)
        .join_from(tables.erasure_targets, tables.erasures)
        .where(erasure.status == "forgotten")
    )
    users = {row.user_key for row in rows if row.kind == "user"}
    items = {row.item_key for row in rows if row.kind == "item"}
    return users, items, {(row.user_key, row.item_key) for row in rows if row.kind == "interaction"}
