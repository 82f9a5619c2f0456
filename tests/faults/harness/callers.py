"""Who uses the service: erases, reads, writes late, retries, cancels, promotes; all chosen by a seed."""

import hashlib
import http.client
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from tests.faults.harness.history import History, Operation
from tests.faults.harness.world import Pair, World

TIMEOUT_S = 5.0
UNKNOWN = (500, 502, 503, 504, 507)
"""Statuses after which it is not taken for granted that nothing was done."""

WEIGHTS: dict[str, int] = {
    "recommend": 30,
    "subject_access": 14,
    "erase_pair": 9,
    "state": 9,
    "record": 8,
    "late_write": 6,
    "retry": 5,
    "similar": 3,
    "recommend_many": 3,
    "erase_many": 2,
    "cancel": 2,
    "receipt": 2,
    "checkpoint": 2,
    "dislike": 1,
    "erase_user": 1,
    "promote": 1,
    "page": 1,
}


class Caller:
    """One client with a connection to each replica.

    Args:
        number: which caller of a trial this is.
        seed: of the trial.
        world: whose users and items it knows.
        ports: of the replicas.
        token: an admin key.
        history: where every request goes.
        weights: how often it does what.
    """

    def __init__(
        self,
        number: int,
        seed: int,
        world: World,
        ports: Sequence[int],
        token: str,
        history: History,
        weights: Mapping[str, int] = WEIGHTS,
    ) -> None:
        self.number, self.world, self.history = number, world, history
        self._random = random.Random(f"{seed}-{number}")
        self._connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S) for port in ports]
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._names, self._weights = list(weights), list(weights.values())
        self._count = 0
        self._sent: list[dict[str, Any]] = []
        self._unknown: deque[dict[str, Any]] = deque(maxlen=50)
        self._ids: list[str] = []
        self._erased: list[Pair] = []
        self._versions = [1]

    def run(self, until: float, rate: float, most: int | None = None) -> None:
        """Ask at a rate, per second, until an instant of the monotonic clock, or until `most` were asked."""
        due = time.monotonic()
        while time.monotonic() < until and (most is None or self._count < most):
            self.step()
            due = max(due + self._random.expovariate(rate), time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
        for connection in self._connections:
            connection.close()

    def step(self) -> None:
        """Do one thing."""
        action: Callable[[], None] = getattr(self, self._random.choices(self._names, self._weights)[0])
        self._count += 1
        action()

    # -- erasing

    def erase_pair(self) -> None:
        """One interaction."""
        self._erase({"interactions": [self._pair()], "users": [], "items": []})

    def erase_many(self) -> None:
        """Some interactions at once."""
        pairs = sorted({self._pair() for _ in range(self._random.randint(2, 6))})
        self._erase({"interactions": pairs, "users": [], "items": []})

    def erase_user(self) -> None:
        """A whole user, or, more rarely, an item."""
        user, item = self._pair()
        if self._random.random() < 0.1:
            self._erase({"interactions": [], "users": [], "items": [item]})
        else:
            self._erase({"interactions": [], "users": [user], "items": []})

    def dislike(self) -> None:
        """An interaction of which the person wants less."""
        self._erase({"interactions": [self._pair()], "users": [], "items": [], "mode": "dislike"})

    def retry(self) -> None:
        """Ask again with a key that was used, the unanswered ones first."""
        if self._unknown:
            self._erase(self._unknown.popleft(), again=True)
        elif self._sent:
            self._erase(self._random.choice(self._sent), again=True)
        else:
            self.recommend()

    def cancel(self) -> None:
        """Cancel an erasure."""
        if not self._ids:
            return self.erase_pair()
        erasure_id = self._random.choice(self._ids[-20:])
        operation = self._send("cancel", "DELETE", f"/v1/erasures/{erasure_id}", asked={"id": erasure_id})
        self._done(operation)
        return None

    def _erase(self, asked: dict[str, Any], *, again: bool = False) -> None:
        world = self.world
        if not again:
            asked = {**asked, "key": f"{self.number}-{self._count}"}
        body = {
            "interactions": [{"user_id": world.user(u), "item_id": world.item(i)} for u, i in asked["interactions"]],
            "users": [world.user(u) for u in asked["users"]],
            "items": [world.item(i) for i in asked["items"]],
            "mode": asked.get("mode", "forget"),
        }
        operation = self._send("erase", "POST", "/v1/erasures", body, asked, {"Idempotency-Key": asked["key"]})
        answer = operation.got.pop("body", {})
        if operation.outcome == "ok":
            operation.got = {name: answer[name] for name in ("id", "status", "due_at", "replayed")}
            self._ids.append(answer["id"])
            self._sent.append(asked)
            self._erased.extend(asked["interactions"])
            self._erased.extend((user, self._pair()[1]) for user in asked["users"])
        elif operation.outcome == "info":
            self._unknown.append(asked)
        self._done(operation)

    # -- reading

    def recommend(self) -> None:
        """A user's list."""
        user = self._user()
        path = f"/v1/users/{self.world.user(user)}/recommendations?n=20&exclude_seen=false"
        operation = self._send("recommend", "GET", path, asked={"users": [user]})
        self._lists(operation, lambda body: [body])

    def recommend_many(self) -> None:
        """The lists of some users."""
        users = sorted({self._user() for _ in range(5)})
        body = {"users": [self.world.user(each) for each in users], "n": 10, "exclude_seen": False}
        operation = self._send("recommend", "POST", "/v1/recommendations", body, {"users": users})
        self._lists(operation, lambda body: body["results"])

    def _lists(self, operation: Operation, lists: Callable[[Any], Any]) -> None:
        answer = operation.got.pop("body", {})
        if operation.outcome == "ok":
            shown = lists(answer)
            operation.got = {
                "version": shown[0]["model_version"],
                "items": [[_number(each["item_id"]) for each in one["items"]] for one in shown],
            }
            if operation.got["version"] is not None and operation.got["version"] not in self._versions[-3:]:
                self._versions.append(operation.got["version"])
        self._done(operation)

    def similar(self) -> None:
        """Items like an item."""
        item = self._pair()[1]
        operation = self._send(
            "similar", "GET", f"/v1/items/{self.world.item(item)}/similar?n=10", asked={"item": item}
        )
        answer = operation.got.pop("body", {})
        if operation.outcome == "ok":
            operation.got = {"items": [_number(each["item_id"]) for each in answer["items"]]}
        self._done(operation)

    def subject_access(self) -> None:
        """What is recorded of a user."""
        user = self._user()
        path = f"/v1/users/{self.world.user(user)}/interactions?limit=200"
        operation = self._send("history", "GET", path, asked={"user": user})
        answer = operation.got.pop("body", {})
        if operation.outcome == "ok":
            operation.got = {"items": [_number(each["item_id"]) for each in answer["interactions"]]}
        self._done(operation)

    def state(self) -> None:
        """How far an erasure is."""
        if not self._ids:
            return self.recommend()
        erasure_id = self._random.choice(self._ids[-200:])
        operation = self._send("state", "GET", f"/v1/erasures/{erasure_id}", asked={"id": erasure_id})
        answer = operation.got.pop("body", {})
        if operation.outcome == "ok":
            operation.got = {"status": answer["status"], "due_at": answer["due_at"]}
            seconds = [stage["seconds"] for stage in answer["stages"].values() if stage["seconds"] is not None]
            operation.got["least_s"] = min(seconds, default=0.0)
        self._done(operation)
        return None

    def receipt(self) -> None:
        """A receipt: the same state, the same bytes."""
        if not self._ids:
            return self.recommend()
        erasure_id = self._random.choice(self._ids[-200:])
        operation = self._send("receipt", "GET", f"/v1/erasures/{erasure_id}/receipt", asked={"id": erasure_id})
        answer = operation.got.pop("body", None)
        if operation.outcome == "ok":
            operation.got = {
                "statement": _digest(answer["statement"].encode()),
                "whole": _digest(orjson.dumps(answer, option=orjson.OPT_SORT_KEYS)),
            }
        self._done(operation)
        return None

    def checkpoint(self) -> None:
        """The log's signed head."""
        operation = self._send("checkpoint", "GET", "/v1/audit/checkpoint", text=True)
        answer = operation.got.pop("body", "")
        if operation.outcome == "ok":
            _, size, root = answer.split("\n")[:3]
            operation.got = {"size": int(size), "root": root}
        self._done(operation)

    def page(self) -> None:
        """The newest erasures."""
        operation = self._send("page", "GET", "/v1/erasures?limit=50")
        operation.got.pop("body", None)
        self._done(operation)

    # -- writing

    def record(self) -> None:
        """New feedback."""
        user = self._user()
        self._record("record", [(user, self._random.randrange(self.world.n_items)) for _ in range(2)])

    def late_write(self) -> None:
        """Feedback that was erased, from a system that does not know."""
        if not self._erased:
            return self.record()
        return self._record("record", [self._random.choice(self._erased)])

    def _record(self, name: str, pairs: list[Pair]) -> None:
        body = {"interactions": [{"user_id": self.world.user(u), "item_id": self.world.item(i)} for u, i in pairs]}
        operation = self._send(name, "POST", "/v1/interactions", body, {"pairs": pairs})
        answer = operation.got.pop("body", {})
        if operation.outcome == "ok":
            refused = {each["index"] for each in answer["refused"]}
            operation.got = {"taken": [place for place in range(len(pairs)) if place not in refused]}
        self._done(operation)

    def promote(self) -> None:
        """Make some version live: fenced where it holds what was erased."""
        version = self._random.choice(self._versions)
        operation = self._send("promote", "PUT", "/v1/models/aliases/live", {"version": version}, {"version": version})
        operation.got.pop("body", None)
        self._done(operation)

    def compact(self) -> None:
        """Ask for a compaction; one that waits or runs already is this one."""
        operation = self._send("compact", "POST", "/v1/models/compactions")
        operation.got.pop("body", None)
        self._done(operation)

    # -- talking

    def _send(
        self,
        name: str,
        method: str,
        path: str,
        body: object = None,
        asked: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        text: bool = False,
    ) -> Operation:
        connection = self._random.choice(self._connections)
        content = None if body is None else orjson.dumps(body)
        operation = Operation(self.number, name, time.monotonic(), asked=asked or {})
        try:
            connection.request(method, path, content, {**self._headers, **(headers or {})})
            answer = connection.getresponse()
            got = answer.read()
            operation.status = answer.status
            if answer.status < 300:
                operation.got["body"] = got.decode() if text else orjson.loads(got)
                operation.outcome = "ok"
            else:
                operation.outcome = "info" if answer.status in UNKNOWN else "fail"
                operation.got["code"] = orjson.loads(got).get("code")
        except (OSError, http.client.HTTPException, orjson.JSONDecodeError, UnicodeDecodeError):
            connection.close()
        return operation

    def _done(self, operation: Operation) -> None:
        operation.ended = time.monotonic()
        self.history.add(operation)

    def _pair(self) -> Pair:
        return self._random.choice(self.world.pairs)

    def _user(self) -> int:
        # Half of the time somebody of whom something was erased: whatever came back would be seen there.
        if self._erased and self._random.random() < 0.5:
            return self._random.choice(self._erased)[0]
        return self._random.randrange(self.world.n_users)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _number(outside: str) -> int:
    return int(outside.rpartition("-")[2])


class Callers:
    """Callers that run at the same time, in threads."""

    def __init__(self, callers: Sequence[Caller], seconds: float, rate: float, most: int | None = None) -> None:
        until = time.monotonic() + seconds
        each = None if most is None else -(-most // len(callers))
        self._threads = [
            threading.Thread(target=caller.run, args=(until, rate / len(callers), each), name=f"caller-{caller.number}")
            for caller in callers
        ]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    @property
    def busy(self) -> bool:
        """Whether any still asks."""
        return any(thread.is_alive() for thread in self._threads)
