"""What the OpenAPI document says, asked of a running service by schemathesis: every call, well-formed and not.

The document's `default` answer is taken out first, so that each status must be described by itself. Hypothesis runs
from a fixed seed in `make test`; `make faults` runs longer, from seeds that it prints.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import schemathesis
from schemathesis import engine
from schemathesis.engine import events

from service.app import create_app
from service.platform.auth import Scope, create_key
from service.platform.clock import SystemClock
from service.platform.redis import ErasureStream
from tests.factories.workers import copy_template, opened, worker_of, working
from tests.serving import serving

PHASES = ("examples", "coverage", "fuzzing", "stateful")
POSITIVE = "positive_data_acceptance"
# What is well-formed and yet refused, for a reason that no schema can tell: by code and, of `invalid_request`, detail.
RULES = {
    "invalid_cursor": "",
    "alias_moved": "",
    "idempotency_key_reused": "",
    "commitment_mismatch": "",
    "no_consent": "",
    "invalid_request": (
        "The log has ",
        "latest",
        "less than or equal to 9223372036854775807",
    ),  # the latter: JSON has floats
}


@dataclass(frozen=True)
class Answered:
    """One answer: to what, with which status, and what was wrong with it."""

    operation: str
    status: int
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Described:
    """A running service, its document, and a key for each scope."""

    url: str
    document: dict[str, Any]
    keys: dict[Scope | None, str]

    def answers(self, scope: Scope | None, *phases: str, examples: int, seed: int = 9) -> list[Answered]:
        """Call everything with the key of a scope, none for None, in these phases."""
        config = {
            "base-url": self.url,
            "headers": {"Authorization": f"Bearer {self.keys[scope]}"} if scope is not None else {},
            "continue-on-failure": True,
            "seed": seed,
            "generation": {"max-examples": examples, "database": "none", "no-shrink": True},
            # A DELETE of an erasure or a compaction cancels it: it is there to read afterwards.
            "checks": {"use_after_free": {"enabled": False}},
            "phases": {phase: {"enabled": phase in phases} for phase in PHASES},
        }
        schema = schemathesis.openapi.from_dict(self.document, config=schemathesis.Config.from_dict(config))
        found = list[Answered]()
        for event in engine.from_schema(schema).execute():
            assert not isinstance(event, events.NonFatalError | events.FatalError), event
            if isinstance(event, events.ScenarioFinished):
                found.extend(answers_of(event.recorder))
        return found

    def operations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each operation of the document by its label."""
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                yield f"{method.upper()} {path}", operation


def answers_of(recorder: Any) -> Iterator[Answered]:
    """What was answered in one scenario."""
    for case_id, node in recorder.cases.items():
        interaction = recorder.interactions.get(case_id)
        if interaction is None or interaction.response is None:
            continue
        response = interaction.response
        wrong = [
            f"{check.name}: {check.failure_info.failure}\n{node.value.as_curl_command()[:2000]}\n{response.text[:1000]}"
            for check in recorder.checks.get(case_id, ())
            if check.failure_info is not None and not (check.name == POSITIVE and is_a_rule(response.content))
        ]
        yield Answered(node.value.operation.label, response.status_code, tuple(wrong))


def is_a_rule(problem: bytes) -> bool:
    """Whether a refusal is for a reason that no schema can tell."""
    told = orjson.loads(problem)
    return told["code"] in RULES and any(
        detail in str(told.get("errors", "")) for detail in RULES[told["code"]] or [""]
    )


def wrong(answers: list[Answered]) -> dict[str, str]:
    """An answer of each operation that was wrong."""
    return {answer.operation: answer.wrong[0] for answer in answers if answer.wrong}


@contextmanager
def described(template: Path, home: Path, redis_url: str, **changes: Any) -> Iterator[Described]:
    """The API on a copy of a learnt home, and a worker beside it."""
    settings = copy_template(template, home, redis_url=redis_url, stream=f"openapi:{home.name}", **changes)
    app = create_app(settings)
    document = deepcopy(app.openapi())
    for methods in document["paths"].values():
        for operation in methods.values():
            del operation["responses"]["default"]
    stream = ErasureStream(redis_url, stream=settings.stream, group=settings.group, consumer="worker")
    with opened(settings) as place, serving(app) as url, working(worker_of(place, stream)):
        now = SystemClock().now()
        keys: dict[Scope | None, str] = {
            scope: place.database.transact(lambda write, scope=scope: create_key(write, scope, {scope}, now)).token  # type: ignore[misc,arg-type]
            for scope in Scope
        }
        yield Described(url, document, keys)
    stream.close()


@pytest.fixture
def service(template: Path, home: Path, redis_url: str) -> Iterator[Described]:
    """On SQLite, with a small model."""
    with described(template, home, redis_url) as made:
        yield made


@pytest.mark.timeout(600)
def test_every_answer_is_as_it_is_described(service: Described) -> None:
    """No 5xx; no status, media type, header or body that is not described; what breaks a schema is refused."""
    answers = service.answers(Scope.ADMIN, "examples", "coverage", "stateful", examples=12)

    assert wrong(answers) == {}
    assert {answer.operation for answer in answers} == {label for label, _ in service.operations()}


def test_a_key_may_call_what_is_said_of_its_scopes(service: Described) -> None:
    """With the key of each scope and with none: 403 and 401 exactly where the document says so."""
    for scope in (*Scope, None):
        for answer in service.answers(scope, "examples", examples=1):
            assert not answer.wrong, answer.wrong
            security = dict(service.operations())[answer.operation].get("security", [])
            scopes = {Scope.ADMIN, *(given for one in security for names in one.values() for given in names)}
            if not security:
                assert answer.status not in {401, 403}, (scope, answer)
            elif scope is None:
                assert answer.status == 401, (scope, answer)
            else:
                assert (answer.status == 403) == (scope not in scopes), (scope, answer)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_answer_is_as_it_is_described_for_long(
    kind: str, template: Path, home: Path, redis_url: str, request: pytest.FixtureRequest
) -> None:
    """The same with all that is random, from a seed that is printed; TEST_SEED replays it."""
    seed = int(os.environ.get("TEST_SEED") or random.randrange(1 << 32))
    print(f"TEST_SEED={seed}")
    with described(template, home, redis_url) as service:
        assert wrong(service.answers(Scope.ADMIN, *PHASES, examples=300, seed=seed)) == {}
