"""Any sequence of calls over HTTP, with real batches of the worker in between, against a reference of plain sets."""

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from service.app import create_app
from service.platform.auth import Scope, create_key
from service.platform.clock import SystemClock
from service.settings import Settings, load_settings
from tests.conftest import PostgresServer
from tests.factories.workers import (
    OPEN_GATE,
    PAIRS,
    QUICK,
    Home,
    copy_template,
    engine_of,
    fill,
    item,
    opened,
    pipeline_of,
    teach,
    user,
    waiting,
)
from tests.serving import serving

Pair = tuple[str, str]
Place = Callable[[], Settings]
# Some that the model knows, and some that nobody knows yet.
USERS = (user(0), user(4), user(5), "ç/neu 👩‍🚀")
ITEMS = (item(0), item(4), item(5), item(8), "neu/ï%2F")
PAIR = st.tuples(st.sampled_from(USERS), st.sampled_from(ITEMS))
LEGAL = {
    "accepted": {"accepted", "forgotten", "cancelled", "refused", "needs_attention"},
    "needs_attention": {"needs_attention", "accepted", "cancelled", "refused"},
    "forgotten": {"forgotten"},
    "cancelled": {"cancelled"},
    "refused": {"refused"},
}


@dataclass
class Asked:
    """An erasure as the reference sees it."""

    body: dict[str, Any]
    key: str
    status: str = "accepted"
    held: bool = False
    extended: bool = False
    decided: bool = False

    def covers(self, pair: Pair) -> bool:
        """Whether one of its targets covers a pair."""
        named = {(each["user_id"], each["item_id"]) for each in self.body["interactions"]}
        return pair in named or pair[0] in self.body["users"] or pair[1] in self.body["items"]

    def targets(self) -> int:
        """How many it names."""
        pairs = {(each["user_id"], each["item_id"]) for each in self.body["interactions"]}
        return len(pairs) + len(set(self.body["users"])) + len(set(self.body["items"]))

    def is_about(self, user_id: str) -> bool:
        """Whether it hides anything of a user, or the whole of them."""
        return user_id in self.body["users"] or any(each["user_id"] == user_id for each in self.body["interactions"])


@dataclass
class Reference:
    """What was recorded and what was asked for. `kept`: a hold or a refusal kept pairs on record, out of sight."""

    recorded: set[Pair] = field(default_factory=lambda: {(user(u), item(i)) for u, i in PAIRS})
    erasures: dict[str, Asked] = field(default_factory=dict)
    log: int = 0
    kept: bool = False

    def hidden(self, pair: Pair) -> bool:
        """Whether an erasure that was not cancelled covers a pair."""
        return any(asked.covers(pair) for asked in self.erasures.values() if asked.status != "cancelled")

    def unwanted(self, pair: Pair) -> bool:
        """Whether a pair or its item was erased: then the item is not recommended to that user.

        Whoever was erased whole is nobody, and is shown what is popular.
        """
        others = (asked for asked in self.erasures.values() if asked.status != "cancelled")
        return any(replace(asked, body=asked.body | {"users": []}).covers(pair) for asked in others)

    def visible(self, user_id: str) -> set[str]:
        """What is recorded of a user and hidden by nothing."""
        return {i for u, i in self.recorded if u == user_id and not self.hidden((u, i))}


class Machine(RuleBasedStateMachine):
    """A running API and the worker's pipeline on a learnt home, beside the reference."""

    ids = Bundle("ids")

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.stack, self.reference, self.engine = ExitStack(), Reference(), None
        given = place()
        self.home: Home = self.stack.enter_context(opened(given))
        url = self.stack.enter_context(serving(create_app(given)))
        now = SystemClock().now()
        key = self.home.database.transact(lambda write: create_key(write, "", frozenset({Scope.ADMIN}), now))
        headers = {"Authorization": f"Bearer {key.token}"}
        self.client = self.stack.enter_context(httpx.Client(base_url=url, timeout=60, headers=headers))
        self.folder = given.home

    def teardown(self) -> None:
        """End it all."""
        self.stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize()
    def work_first(self) -> None:
        """The base goes live."""
        with pipeline_of(self.home) as pipeline:
            pipeline.run(())

    @rule(pairs=st.lists(PAIR, min_size=1, max_size=4))
    def record(self, pairs: list[Pair]) -> None:
        """New feedback: what is hidden is refused, late or not; the rest is recorded."""
        refused = [place for place, pair in enumerate(pairs) if self.reference.hidden(pair)]
        new = {pair for pair in pairs if not self.reference.hidden(pair)} - self.reference.recorded
        body = {"interactions": [{"user_id": u, "item_id": i} for u, i in pairs]}

        answer = self.client.post("/v1/interactions", json=body)

        if len(refused) == len(pairs):
            assert answer.status_code == 409, answer.text
            return
        assert answer.status_code == 200, answer.text
        assert answer.json()["recorded"] == len(new)
        assert [each["index"] for each in answer.json()["refused"]] == refused
        self.reference.recorded |= new

    @rule(
        target=ids,
        pairs=st.lists(PAIR, max_size=3),
        users=st.lists(st.sampled_from(USERS), max_size=1),
        items=st.lists(st.sampled_from(ITEMS), max_size=1),
        mode=st.sampled_from(["forget", "forget", "dislike"]),
    )
    def erase_many(self, pairs: list[Pair], users: list[str], items: list[str], mode: str) -> Any:
        """A bulk: matched tells the truth; naming nothing is refused."""
        body = {
            "interactions": [{"user_id": u, "item_id": i} for u, i in pairs],
            "users": users,
            "items": items,
            "mode": mode,
        }
        asked = Asked(body, key=f"key-{len(self.reference.erasures)}")

        answer = self.client.post("/v1/erasures", json=body, headers={"Idempotency-Key": asked.key})

        if not asked.targets():
            assert answer.json()["code"] == "no_targets", answer.text
            return multiple()
        return self._accepted(answer, asked)

    @rule(target=ids, pair=PAIR)
    def erase_a_pair(self, pair: Pair) -> Any:
        """One interaction, by its path."""
        path = f"/v1/users/{quote(pair[0], safe='')}/interactions/{quote(pair[1], safe='')}"
        body = {"interactions": [{"user_id": pair[0], "item_id": pair[1]}], "users": [], "items": []}
        return self._accepted(self.client.delete(path), Asked(body, key=""))

    @rule(target=ids, user_id=st.sampled_from(USERS))
    def erase_a_user(self, user_id: str) -> Any:
        """A whole user, by their path."""
        body = {"interactions": [], "users": [user_id], "items": []}
        return self._accepted(self.client.delete(f"/v1/users/{quote(user_id, safe='')}"), Asked(body, key=""))

    def _accepted(self, answer: httpx.Response, asked: Asked) -> str:
        assert answer.status_code == 202, answer.text
        told = answer.json()
        assert (told["status"], told["requested"]) == ("accepted", asked.targets())
        covered = sum(map(asked.covers, self.reference.recorded))
        assert told["matched"] == covered or self.reference.kept
        assert told["salt"]
        self.reference.erasures[told["id"]] = asked
        self.reference.log += 1
        return str(told["id"])

    @rule(erasure_id=ids)
    def retry(self, erasure_id: str) -> None:
        """The same key and body: the same erasure, as it is now; another body: refused, and nothing is done."""
        asked = self.reference.erasures[erasure_id]
        if not asked.key:
            return
        headers = {"Idempotency-Key": asked.key}

        same = self.client.post("/v1/erasures", json=asked.body, headers=headers)
        other = self.client.post("/v1/erasures", json=asked.body | {"users": ["another"]}, headers=headers)

        assert (same.status_code, same.json()["id"], same.json()["replayed"]) == (200, erasure_id, True)
        assert same.json()["status"] == asked.status
        assert other.json()["code"] == "idempotency_key_reused"

    @rule(erasure_id=ids)
    def cancel(self, erasure_id: str) -> None:
        """Only what is accepted is cancelled; what it alone hid is shown again."""
        asked = self.reference.erasures[erasure_id]

        answer = self.client.delete(f"/v1/erasures/{erasure_id}")

        if asked.status == "accepted":
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
            asked.status = "cancelled"
            self.reference.log += 1
        else:
            assert answer.status_code in {200, 409}, answer.text
            assert answer.status_code == 409 or asked.status == "cancelled"

    @rule()
    def work(self) -> None:
        """A batch of the worker: whatever is accepted is forgotten, and taken off the record unless something holds."""
        batch = waiting(self.home)
        open_ = {id for id, asked in self.reference.erasures.items() if asked.status == "accepted"}
        assert {each.id for each in batch} == open_
        if self.engine is None:
            self.engine = engine_of(self.home)
        with pipeline_of(self.home, self.engine) as pipeline:
            assert pipeline.run(batch) == []
        for id in open_:
            self.reference.erasures[id].status = "forgotten"
            self.reference.log += 1
        self._take_off_the_record()

    def _take_off_the_record(self) -> None:
        known = self.reference.erasures.values()
        held = [asked for asked in known if asked.held]
        done = [asked for asked in known if asked.status == "forgotten"]
        self.reference.recorded = {
            pair
            for pair in self.reference.recorded
            if any(asked.covers(pair) for asked in held) or not any(asked.covers(pair) for asked in done)
        }

    @rule(erasure_id=ids, held=st.booleans())
    def hold(self, erasure_id: str, held: bool) -> None:
        """A legal hold, set and lifted: the worker leaves it alone meanwhile; twice changes nothing."""
        asked = self.reference.erasures[erasure_id]

        answer = self.client.patch(f"/v1/erasures/{erasure_id}", json={"legal_hold": held})

        if held and asked.status == "cancelled":
            assert answer.status_code == 409, answer.text
            return
        assert answer.status_code == 200, answer.text
        assert answer.json()["legal_hold"] is held
        if held != asked.held:
            asked.held, self.reference.kept = held, True
            self.reference.log += 1
            if asked.status == ("accepted" if held else "needs_attention"):
                asked.status = "needs_attention" if held else "accepted"
                self.reference.log += 1

    @rule(erasure_id=ids, outcome=st.sampled_from(["refused", "partial"]))
    def decide(self, erasure_id: str, outcome: str) -> None:
        """A refusal, whole or in part: nothing is shown again."""
        asked = self.reference.erasures[erasure_id]
        body = {"decision": {"outcome": outcome, "ground": "17(3)(e)"}}

        answer = self.client.patch(f"/v1/erasures/{erasure_id}", json=body)

        possible = not asked.decided and (
            asked.status == "forgotten" if outcome == "partial" else asked.status in {"accepted", "needs_attention"}
        )
        assert answer.status_code == (200 if possible else 409), answer.text
        if possible:
            asked.decided, self.reference.kept = True, True
            self.reference.log += 1
            if outcome == "refused":
                asked.status = "refused"

    @rule(erasure_id=ids)
    def extend(self, erasure_id: str) -> None:
        """Once, while it is not over."""
        asked = self.reference.erasures[erasure_id]
        until = (datetime.now(UTC) + timedelta(days=50)).isoformat()
        body = {"extension": {"until": until, "reason": "words", "ground": "complexity"}}

        answer = self.client.patch(f"/v1/erasures/{erasure_id}", json=body)

        possible = not (asked.extended or asked.decided or asked.status == "cancelled")
        assert answer.status_code == (200 if possible else 409), answer.text
        asked.extended |= possible
        self.reference.log += possible

    @rule(number=st.integers(1, 6))
    def swap(self, number: int) -> None:
        """Another version is asked to be live: one that holds what was accepted is refused."""
        before = self.client.get("/v1/models/aliases/live").json()["version"]

        answer = self.client.put("/v1/models/aliases/live", json={"version": number})

        assert answer.status_code in {200, 404, 409}, answer.text
        version = self.client.get(f"/v1/models/versions/{number}")
        if answer.status_code == 200 and number != before:
            forgotten = [id for id, asked in self.reference.erasures.items() if asked.status == "forgotten"]
            last = max(
                (self.client.get(f"/v1/erasures/{id}").json()["versions"]["after"] or 0 for id in forgotten), default=0
            )
            assert number >= last, (number, last)
            self.reference.log += 1
        elif answer.status_code == 404:
            assert version.status_code == 404

    @rule(user_id=st.sampled_from(USERS))
    def search(self, user_id: str) -> None:
        """The erasures of a user are found, whatever became of them, but for cancelled ones."""
        answer = self.client.post("/v1/erasures/search", json={"user_id": user_id}, params={"limit": 500})

        found = {each["id"] for each in answer.json()["erasures"]}
        wanted = {
            id
            for id, asked in self.reference.erasures.items()
            if asked.is_about(user_id) and asked.status != "cancelled"
        }
        assert found == wanted

    @invariant()
    def nothing_erased_is_shown(self) -> None:
        """P3 and P4: a person's record, recommendations and similar items."""
        for user_id in USERS:
            path = f"/v1/users/{quote(user_id, safe='')}"
            visible = self.reference.visible(user_id)
            assert {each["item_id"] for each in self._get(f"{path}/interactions")["interactions"]} == visible
            for seen in ("true", "false"):
                answer = self._get(f"{path}/recommendations?n=40&exclude_seen={seen}")
                served = {each["item_id"] for each in answer["items"]}
                assert not {i for i in served if self.reference.unwanted((user_id, i))}
                assert seen == "false" or not served & visible

    @invariant()
    def a_status_tells_the_truth(self) -> None:
        """P9: of each erasure, and of the lists."""
        for id, asked in self.reference.erasures.items():
            told = self._get(f"/v1/erasures/{id}")
            assert (told["status"], told["legal_hold"]) == (asked.status, asked.held)
        counts = Counter(asked.status for asked in self.reference.erasures.values())
        for status in LEGAL:
            page = self._get(f"/v1/erasures?status={status}&limit=500")
            assert len(page["erasures"]) == counts[status]

    @invariant()
    def the_log_only_grows(self) -> None:
        """P7: by one entry for each thing that happened to an erasure, and for each move of `live`."""
        entries = self._get("/v1/audit/entries?limit=1000")["entries"]
        assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
        of_erasures = [entry for entry in entries if entry["event"].startswith("erasure.")]
        moved = [entry for entry in entries if not entry["event"].startswith("erasure.")]
        assert len(entries) >= self.reference.log
        assert len(of_erasures) + len(moved) == len(entries)

    def _get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


def options(examples: int, steps: int, **more: Any) -> settings:
    """Settings of a run."""
    checks = list(HealthCheck)
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=checks,
        database=None,
        **more,
    )


def on_sqlite(template: Path) -> Place:
    """A copy of the learnt home for each sequence."""

    def place() -> Settings:
        return copy_template(template, Path(tempfile.mkdtemp(prefix="expunge-")))

    return place


@contextmanager
def on_postgresql(server: PostgresServer) -> Iterator[Place]:
    """The same with a copy of a learnt database."""
    folder = Path(tempfile.mkdtemp(prefix="expunge-"))
    server.run("CREATE DATABASE learnt")
    with opened(load_settings(home=folder, database_url=server.url("learnt"), **QUICK, **OPEN_GATE)) as home:
        fill(home)
        teach(home)
    made: list[str] = []

    def place() -> Settings:
        for name in made:
            server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        made[:] = [f"t{os.urandom(6).hex()}"]
        server.run(f"CREATE DATABASE {made[0]} TEMPLATE learnt")
        return copy_template(folder, Path(tempfile.mkdtemp(prefix="expunge-")), database_url=server.url(made[0]))

    try:
        yield place
    finally:
        server.run(*(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in [*made, "learnt"]))
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.P2
@pytest.mark.P3
@pytest.mark.P4
@pytest.mark.P9
@pytest.mark.timeout(600)
def test_no_sequence_of_calls_breaks_a_promise(template: Path) -> None:
    """Hypothesis looks for one that does, the same way each time, and shows the shortest."""
    run_machine(lambda: Machine(on_sqlite(template)), settings=options(8, 20, derandomize=True))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_long_sequence_does_either(kind: str, template: Path, request: pytest.FixtureRequest) -> None:
    """For long, from a seed that is printed; TEST_SEED replays it."""
    chosen = int(os.environ.get("TEST_SEED") or random.randrange(1 << 32))
    print(f"TEST_SEED={chosen}")
    with ExitStack() as stack:
        if kind == "sqlite":
            place = on_sqlite(template)
        else:
            place = stack.enter_context(on_postgresql(request.getfixturevalue("postgres_server")))
        run_machine(seed(chosen)(lambda: Machine(place)), settings=options(60, 50))  # type: ignore[arg-type]
