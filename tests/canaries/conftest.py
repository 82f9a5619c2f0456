"""A small service of real processes that is called in every way with ids that can be told from all else."""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis

from service.cli import main
from service.platform.embedded import EmbeddedValkey
from service.platform.identity import load_identity
from service.settings import Settings, load_settings
from tests.canaries.needles import forms, forms_of_bytes
from tests.factories.workers import OPEN_GATE

# Letters beyond ASCII, quotes, a slash, a space: each form of them differs.
USER, OTHER_USER = 'Zoë "canary" 7f3a9c/user one', "Zoë 'canary' 51bd02/user+two"
UNKNOWN_USER, ITEM, UNKNOWN_ITEM = "Zoë canary 90ee41?user three", "Ünder canary c4417b/item", "canary 3de8f0 itëm"
REASON, IDEMPOTENCY_KEY = "Zoë canary a55e77 moved away", "canary-2b6d90-key"
N_USERS, N_ITEMS = 40, 30
WAIT_S = 60.0


@dataclass
class Story:
    """What a service that was called with canaries left behind; it has ended."""

    home: Path
    settings: Settings
    needles: dict[str, dict[str, bytes]] = field(default_factory=dict)
    log: bytes = b""
    metrics: dict[str, bytes] = field(default_factory=dict)
    problems: list[tuple[str, bytes]] = field(default_factory=list)
    redis: dict[str, bytes] = field(default_factory=dict)
    exports: dict[str, bytes] = field(default_factory=dict)
    files_while_running: set[str] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture(scope="session")
def story() -> Iterator[Story]:
    """Import, train, serve, call, erase, stop: once for all tests here, which only look at what is left."""
    folder = Path(tempfile.mkdtemp(prefix="expunge-"))
    try:
        yield _told(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _told(folder: Path) -> Story:
    home, data = folder / "home", folder / "data"
    _write_data(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_TORCH_THREADS", "1")
        for words in (
            ("import", "--data", str(data)),
            ("train", "--dimension", "8", "--batch-size", "256", "--epochs", "3", "--no-pretrain"),
            ("pretrain", "--steps", "2"),
        ):
            assert main(["--home", str(home), *words]) == 0
    story = Story(home, load_settings(home=home))
    identity = load_identity(story.settings)
    ids = {"user": USER, "other user": OTHER_USER, "unknown user": UNKNOWN_USER}
    story.needles = {name: forms(text) for name, text in ids.items()}
    story.needles |= {"item": forms(ITEM), "unknown item": forms(UNKNOWN_ITEM)}
    story.needles |= {"reason": forms(REASON), "idempotency key": forms(IDEMPOTENCY_KEY)}
    story.needles |= {f"digest of {name}": forms_of_bytes(identity.user(text)) for name, text in ids.items()}
    story.needles |= {"digest of item": forms_of_bytes(identity.item(ITEM))}
    _serve(story)
    return story


def _write_data(folder: Path) -> None:
    """Two communities; the canaries are users and an item like others."""
    folder.mkdir()
    users = [USER, OTHER_USER, *(f"u{n:03d}" for n in range(N_USERS))]
    items = [ITEM, *(f"i{n:03d}" for n in range(N_ITEMS))]
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "item_id"))
        for u, user in enumerate(users):
            writer.writerows((user, item) for i, item in enumerate(items) if (u + i) % 2 == 0 and (3 * u + i) % 5)
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("item_id", "title"), (ITEM, "A title")])


def _serve(story: Story) -> None:
    settings = {"EXPUNGE_LOG_LEVEL": "debug", "EXPUNGE_LOG_REQUESTS": "1", "EXPUNGE_LOG_FORMAT": "json"}
    settings |= {f"EXPUNGE_{name.upper()}": str(value) for name, value in OPEN_GATE.items()}
    settings |= {"EXPUNGE_TORCH_THREADS": "1", "EXPUNGE_METRICS_PORT": "0", "EXPUNGE_SWEEP_SECONDS": "0.5"}
    log = story.home.with_name("log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "--home", str(story.home), "serve", "--port", "0"],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        try:
            url, key = _address(process)
            with closing(httpx.Client(base_url=url, timeout=20, headers={"Authorization": f"Bearer {key}"})) as client:
                story.needles["API key"] = forms(key)
                _call(story, client)
                _look(story, client, log)
        finally:
            process.terminate()
            try:
                process.wait(WAIT_S)
            finally:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
    story.log = log.read_bytes()
    story.files = {name: (story.home / name).read_bytes() for name in _files(story.home)}


def _address(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    url, key = "", ""
    for line in process.stdout:
        if line.startswith("Admin key"):
            key = line.split()[2]
        if line.startswith("API "):
            url = line.split()[1]
        if url and key:
            return url, key
    pytest.fail("The service ended before it answered.")


def _call(story: Story, client: httpx.Client) -> None:
    """Every kind of call that takes an id, well-formed and not."""
    user, other, unknown, item = (quote(id, safe="") for id in (USER, OTHER_USER, UNKNOWN_USER, ITEM))
    pair = {"user_id": USER, "item_id": ITEM}
    erasure = {"interactions": [pair], "users": [UNKNOWN_USER], "items": [UNKNOWN_ITEM], "reason": REASON}
    headers = {"Idempotency-Key": IDEMPOTENCY_KEY}
    unexpected: list[tuple[str, str, int, str]] = []

    def ask(method: str, path: str, expect: tuple[int, ...], **options: Any) -> httpx.Response:
        answer = client.request(method, path, **options)
        if answer.status_code not in expect:
            unexpected.append((method, path, answer.status_code, answer.text))
        if answer.status_code >= 400:
            heads = repr(sorted(answer.headers.items())).encode()
            story.problems.append((f"{method} {path}: {answer.status_code}", answer.content + heads))
        return answer

    # Reading and recording.
    for each in (user, unknown):
        ask("GET", f"/v1/users/{each}/recommendations?n=3&exclude={item}", (200,))
        ask("GET", f"/v1/users/{each}/interactions?limit=1", (200,))
    ask("POST", "/v1/recommendations", (200,), json={"users": [USER, UNKNOWN_USER], "n": 2})
    ask("GET", f"/v1/items/{item}/similar", (200,))
    ask(
        "POST",
        "/v1/interactions",
        (200, 201),
        json={"interactions": [{"user_id": OTHER_USER, "item_id": UNKNOWN_ITEM}]},
    )
    # Erasing: accepted, again, previewed, followed, cancelled too late.
    ask("POST", "/v1/erasures/preview", (200,), json=erasure)
    accepted = ask("POST", "/v1/erasures", (200, 202), json=erasure, headers=headers).json()
    story.needles["salt"] = forms(accepted["salt"]) | forms_of_bytes(bytes.fromhex(accepted["salt"]))
    ask("POST", "/v1/erasures", (200, 202), json=erasure, headers=headers)
    ask("POST", "/v1/erasures", (409, 422), json=erasure | {"reason": "other"}, headers=headers)
    ask("DELETE", f"/v1/users/{other}", (200, 202), params={"reason": REASON}, headers={"Prefer": "wait=20"})
    ask("DELETE", f"/v1/items/{item}", (200, 202), headers={"Prefer": "wait=20"})
    second = ask("DELETE", f"/v1/users/{other}/interactions/{item}", (202,)).json()
    ask("DELETE", f"/v1/erasures/{second['id']}", (200, 409))
    _await_forgotten(client, accepted["id"])
    ask("DELETE", f"/v1/erasures/{accepted['id']}", (409,))
    kept = {name: erasure[name] for name in ("interactions", "users", "items")} | {"salt": accepted["salt"]}
    path = f"/v1/erasures/{accepted['id']}/residue"
    story.exports["search for residue"] = ask("POST", path, (200,), json=kept).content
    ask("POST", path, (422,), json=kept | {"users": [OTHER_USER]})
    ask("POST", path, (422,), json=kept | {"salt": USER})
    for name in ("", "/receipt", "/receipt.html", "/receipt.tlog-proof", "/residue"):
        story.exports[f"erasure{name}"] = ask("GET", f"/v1/erasures/{accepted['id']}{name}", (200,)).content
    ask("POST", "/v1/interactions", (409, 422), json={"interactions": [pair]})  # a late write
    ask("POST", "/v1/erasures/search", (422,), json={"users": [USER], "user_id": USER})
    story.exports["search"] = ask(
        "POST", "/v1/erasures/search", (200,), json={"user_id": USER, "item_id": ITEM}
    ).content
    # What is refused, with the ids where they do not belong.
    ask("GET", f"/v1/users/{user}/recommendations?n=0&unknown={user}", (400, 422))
    ask("GET", f"/v1/users/{user}/interactions?cursor={user}", (400, 422))
    ask("GET", f"/v1/users/{user}/nothing", (404,))
    ask("GET", f"/{user}/{item}", (404,))
    ask("GET", f"/v1/erasures/{user}", (404, 422))
    ask("GET", f"/v1/erasures?cursor={user}&status={item}", (400, 422))
    ask("GET", f"/v1/audit/entries?erasure_id={user}", (400, 422))
    ask("GET", f"/v1/items/{quote(UNKNOWN_ITEM, safe='')}/similar", (404, 409, 422))
    ask("PATCH", f"/v1/users/{user}", (405,))
    ask("POST", "/v1/erasures", (422,), json={"users": [{"id": USER}], USER: ITEM, "mode": ITEM})
    ask("POST", "/v1/erasures", (422,), json={"users": [USER + "\x00", USER * 40]})
    ask("POST", "/v1/erasures", (400, 422), content=f'{{"users": ["{USER}'.encode(), headers=_JSON)
    ask("POST", "/v1/erasures", (415,), content=USER.encode(), headers={"Content-Type": "text/plain"})
    ask("POST", "/v1/interactions", (422,), json={"interactions": [{"user_id": USER, "item_id": [ITEM]}]})
    ask("POST", "/v1/interactions", (413,), content=b'{"x":"' + USER.encode() * 100_000 + b'"}', headers=_JSON)
    ask("DELETE", f"/v1/users/{other}", (400, 422), params={"mode": USER, "reason": REASON * 30})
    ask("DELETE", f"/v1/users/{other}", (202,), headers={"Prefer": quote(f"wait={USER}")})
    ask("GET", f"/v1/users/{user}/recommendations", (401,), headers={"Authorization": f"Bearer {quote(USER)}"})
    ask("PUT", "/v1/models/aliases/live", (422,), json={"version": USER})
    assert unexpected == []


_JSON = {"Content-Type": "application/json"}


def _await_forgotten(client: httpx.Client, erasure_id: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        state = client.get(f"/v1/erasures/{erasure_id}").json()
        if state["status"] == "forgotten":
            return
        time.sleep(0.1)
    pytest.fail("The erasure was not forgotten in time.")


def _look(story: Story, client: httpx.Client, log: Path) -> None:
    """What can be seen of a running service: metrics of both processes, Redis, the log's export."""
    story.metrics["api"] = client.get("/metrics").content
    story.metrics["worker"] = httpx.get(f"http://127.0.0.1:{_worker_port(log)}/metrics", timeout=20).content
    export, key = story.home.with_name("audit.jsonl"), client.headers["Authorization"].removeprefix("Bearer ")
    assert main(["audit", "export", str(export), "--url", str(client.base_url), "--key", key]) == 0
    story.exports["audit export"] = export.read_bytes()
    story.exports["audit entries"] = client.get("/v1/audit/entries?limit=1000").content
    with closing(redis.Redis.from_url(EmbeddedValkey(story.home).url, protocol=2)) as server:
        keys = server.keys("*")
        story.redis = {name.decode(): name + b"\n" + (server.dump(name) or b"") for name in keys}
    story.files_while_running = set(_files(story.home))


def _worker_port(log: Path) -> int:
    for line in log.read_text(encoding="utf-8").splitlines():
        if '"monitor.started"' in line:
            return int(line.partition('"port":')[2].partition(",")[0].rstrip("}"))
    pytest.fail("The worker did not say where its metrics are.")


def _files(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
