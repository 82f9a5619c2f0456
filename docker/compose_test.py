"""`make compose-test`: the whole of docker-compose.yml in real containers, one story from an empty machine to a crash.

Exit code 0: everything below was seen. 1: something was not. 3: this machine lacks what it takes, and nothing was run.
"""

import csv
import gzip
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from compose_stack import ROOT, Accepted, Engine, Failed, Missing, Stack, eventually, require, run, running

# Large enough that the gate measures more than noise.
N_USERS, N_ITEMS, N_COMMUNITIES = 800, 400, 8
SECRETS = ("EXPUNGE_SECRET_KEY", "POSTGRES_PASSWORD")


def main() -> int:
    """Tell the story and what was seen of it."""
    try:
        engine = Engine.find()
    except Missing as error:
        print(f"compose-test cannot run here: {error}.", file=sys.stderr)
        return 3
    folder = Path(tempfile.mkdtemp(prefix="expunge-compose-"))
    write_data(folder / "data")
    started = time.monotonic()
    try:
        with running(engine, folder, folder / "data") as stack:
            for chapter in STORY:
                began = time.monotonic()
                chapter(stack)
                print(f"{time.monotonic() - began:6.1f} s  {(chapter.__doc__ or '').splitlines()[0]}", flush=True)
    except Failed as error:
        print(f"FAILED: {error}\nWhat the containers said: {folder / 'containers.log'}", file=sys.stderr)
        return 1
    print(f"compose-test: {len(STORY)} passed, 0 failed, in {time.monotonic() - started:.0f} s with {engine.program}")
    return 0


def write_data(folder: Path) -> None:
    """A data set with planted communities, ids with slashes, spaces and other scripts among them."""
    folder.mkdir()
    chance = random.Random(7)
    rows = [
        (user(u), item(i))
        for u in range(N_USERS)
        for i in sorted(chance.sample(range(N_ITEMS), 200))
        if i % N_COMMUNITIES == u % N_COMMUNITIES or chance.random() < 0.05
    ]
    chance.shuffle(rows)
    cut = len(rows) // 10
    for name, part in (("test", rows[:cut]), ("train", rows[cut:])):
        with gzip.open(folder / f"{name}.csv.gz", "wt", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("user_id", "item_id"), *part])
    # Containers run as another user.
    folder.parent.chmod(0o755)
    folder.chmod(0o755)


def user(number: int) -> str:
    """The id of a user."""
    return f"user/{number} ☃"


def item(number: int) -> str:
    """The id of an item."""
    return f"item {number}"


def path_of(user_id: str, item_id: str | None = None) -> str:
    """The REST path of a user, or of one interaction."""
    tail = "" if item_id is None else f"/interactions/{quote(item_id, safe='')}"
    return f"/v1/users/{quote(user_id, safe='')}{tail}"


def refuses_missing_secrets(stack: Stack) -> None:
    """compose refuses to begin without the secrets"""
    given = dict(stack.environment)
    for name in SECRETS:
        stack.environment.pop(name)
        try:
            stack.compose("config")
        except Failed as refusal:
            require(name in str(refusal), f"the refusal does not name {name}")
        else:
            msg = f"compose accepts that {name} is missing"
            raise Failed(msg)
        finally:
            stack.environment[name] = given[name]


def comes_up(stack: Stack) -> None:
    """the image is built, the schema is made, all parts are healthy, none runs as root"""
    stack.compose("build", "api")
    stack.up()
    for service in ("api", "worker"):
        eventually(f"{service} is healthy", partial(stack.healthy, service))
        require(stack.inside(service, "id", "-u").strip() == "10001", f"{service} runs as another user than 10001")
        require(not writes(stack, service, "/opt/expunge"), f"{service} can write outside its volume")
    require(stack.call("GET", "/livez").status == 200, "the API does not answer on the published port")
    require(stack.call("GET", "/readyz").status == 503, "ready without a model")
    require(stack.call("GET", "/v1/audit/entries").status == 401, "an answer without a key")


def writes(stack: Stack, service: str, folder: str) -> bool:
    """Whether a container can write to a folder."""
    script = f"touch {folder}/probe 2>/dev/null && echo written || true"
    return "written" in stack.inside(service, "sh", "-c", script)


def trains(stack: Stack) -> None:
    """a data set is imported, a model and its encoder are trained, the API becomes ready"""
    stack.key = make_key(stack)
    stack.compose("--profile", "train", "run", "--rm", "--no-deps", "train")
    eventually("the API is ready", lambda: stack.call("GET", "/readyz").status == 200)


def make_key(stack: Stack) -> str:
    """An admin key, made by the command inside the container."""
    said = stack.inside("api", "expunge", "keys", "create", "--scope", "admin", "--label", "compose-test")
    tokens = [word for word in said.replace('"', " ").split() if word.startswith("exp_")]
    require(tokens, "the command showed no key")
    return tokens[0]


def erases(stack: Stack) -> None:
    """an erasure over REST is hidden at once and forgotten by a new version"""
    someone = user(3)
    before = recommended(stack, someone)
    require(len(before) == 10, "fewer than ten recommendations")
    # Several, as one that was kept for validation was never learnt, and needs no new version.
    chosen = interactions(stack, someone)[:3]
    pairs = [{"user_id": someone, "item_id": each} for each in chosen]
    answer = stack.call("POST", "/v1/erasures", {"interactions": pairs})
    require(answer.status == 202, f"the erasure was answered with {answer.status}: {answer.body}")
    require(answer.body["matched"] == len(chosen), "the erasure matched something else than these interactions")
    require(not set(chosen) & set(interactions(stack, someone)), "an erased interaction is still shown")
    require(not set(chosen) & set(recommended(stack, someone)), "an erased item is recommended")
    state = forgotten(stack, answer.body["id"])
    require(state["version_after"] > state["version_before"], f"no new version forgot it: {state}")
    eventually("the new version answers", lambda: version(stack, someone) == state["version_after"])
    stack.accepted.append(Accepted(answer.body["id"], someone, chosen[0]))


def interactions(stack: Stack, user_id: str) -> list[str]:
    """Ids of the items that are recorded for a user."""
    answer = stack.call("GET", f"{path_of(user_id)}/interactions")
    require(answer.status == 200, f"subject access was answered with {answer.status}: {answer.body}")
    return [each["item_id"] for each in answer.body["interactions"]]


def recommended(stack: Stack, user_id: str) -> list[str]:
    """Ids of a user's ten items; what was seen is not left out, so that erased ones would show."""
    answer = stack.call("GET", f"{path_of(user_id)}/recommendations?n=10&exclude_seen=false")
    require(answer.status == 200, f"recommendations were answered with {answer.status}: {answer.body}")
    return [each["item_id"] for each in answer.body["items"]]


def version(stack: Stack, user_id: str) -> int:
    """The version that answers."""
    number: int = stack.call("GET", f"{path_of(user_id)}/recommendations?n=1").body["model_version"]
    return number


def forgotten(stack: Stack, erasure_id: str) -> dict[str, Any]:
    """The state of an erasure once it is forgotten."""

    def look() -> dict[str, Any]:
        answer = stack.call("GET", f"/v1/erasures/{erasure_id}")
        return answer.body if answer.status == 200 and answer.body["status"] == "forgotten" else {}

    return eventually(f"erasure {erasure_id} is forgotten", look, 120)


def accept(stack: Stack, number: int) -> None:
    """Have an erasure of one interaction of a user accepted, and remember it."""
    someone = user(number)
    chosen = interactions(stack, someone)[0]
    answer = stack.call("DELETE", path_of(someone, chosen))
    require(answer.status == 202, f"an erasure was answered with {answer.status}: {answer.body}")
    stack.accepted.append(Accepted(answer.body["id"], someone, chosen))


def all_forgotten(stack: Stack) -> None:
    """Wait until every erasure so far is forgotten, and make sure that none shows."""
    for each in stack.accepted:
        forgotten(stack, each.id)
        require(each.item_id not in interactions(stack, each.user_id), "an erased interaction came back")
        require(each.item_id not in recommended(stack, each.user_id), "an erased item is recommended")


def survives_worker(stack: Stack) -> None:
    """without a worker erasures are accepted and hidden; a killed worker comes back and forgets them"""
    stack.kill("worker")
    for number in range(10, 20):
        accept(stack, number)
    stack.start("worker")
    all_forgotten(stack)


def survives_worker_at_work(stack: Stack) -> None:
    """a worker killed five times in the middle of its work loses nothing and does nothing twice"""
    for number in range(20, 25):
        accept(stack, number)
        time.sleep(0.15)  # Into the batch, wherever that is now: another place each time.
        stack.kill("worker")
        stack.start("worker")
    all_forgotten(stack)


def survives_stream(stack: Stack) -> None:
    """without the stream erasures are accepted; it may come back, and it may come back empty"""
    stack.kill("valkey")
    accept(stack, 30)
    require(stack.call("GET", "/readyz").status == 200, "not ready without the stream")
    stack.start("valkey")
    all_forgotten(stack)
    stack.inside("valkey", "valkey-cli", "FLUSHALL")
    accept(stack, 31)
    all_forgotten(stack)


def survives_api(stack: Stack) -> None:
    """a killed API comes back with everything that it had accepted"""
    accept(stack, 40)
    stack.kill("api")
    require(stack.call("GET", "/livez").status == 0, "the API answers though it was killed")
    stack.start("api")
    eventually("the API is ready", lambda: stack.call("GET", "/readyz").status == 200)
    all_forgotten(stack)


def survives_database(stack: Stack) -> None:
    """a database killed under load recovers, and API and worker connect again by themselves"""
    accept(stack, 50)
    stack.kill("postgres")
    refused = stack.call("DELETE", path_of(user(51), item(51)))
    require(refused.status == 503, f"without a database an erasure was answered with {refused.status}")
    stack.start("postgres")
    eventually("the API is ready", lambda: stack.call("GET", "/readyz").status == 200)
    accept(stack, 52)
    all_forgotten(stack)


def survives_power_cut(stack: Stack) -> None:
    """everything killed at once comes up again with every erasure, in any order"""
    accept(stack, 60)
    stack.kill("api", "worker", "valkey", "postgres")
    stack.start("worker", "api", "valkey", "postgres")
    eventually("the API is ready", lambda: stack.call("GET", "/readyz").status == 200, 120)
    all_forgotten(stack)


def log_is_whole(stack: Stack) -> None:
    """the audit log has no gap, and accepted and forgotten entries once for each erasure"""
    entries, page = [], stack.call("GET", "/v1/audit/entries?limit=100").body
    entries.extend(page["entries"])
    while page["next"]:
        page = stack.call("GET", page["next"]).body
        entries.extend(page["entries"])
    require([entry["seq"] for entry in entries] == list(range(1, len(entries) + 1)), "the log has a gap")
    for event in ("erasure.accepted", "erasure.forgotten"):
        told = [entry["erasure_id"] for entry in entries if entry["event"] == event]
        expected = [each.id for each in stack.accepted]
        require(sorted(told) == sorted(expected), f"{event}: {len(told)} entries for {len(expected)} erasures")


def is_monitored(stack: Stack) -> None:
    """Prometheus scrapes API and worker, has loaded every rule, and finds no promise broken"""
    eventually("both are scraped", lambda: scraped(stack) == {"expunge-api", "expunge-worker"})
    groups = stack.monitoring("/api/v1/rules")["groups"]
    rules = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    written = {
        line.split("alert:")[1].strip()
        for line in (ROOT / "docker" / "alerts.yml").read_text().splitlines()
        if "- alert:" in line
    }
    require(set(rules) == written, f"rules that Prometheus has not loaded: {written - set(rules)}")
    eventually("every rule was evaluated", lambda: rule_health(stack) == {"ok"})
    eventually("one worker holds the lease", lambda: asked(stack, "sum(expunge_worker_lease_held)") == 1)
    require(asked(stack, "sum(expunge_invariant_violations_total)") == 0, "an invariant was violated")


def asked(stack: Stack, expression: str) -> float | None:
    """The one value of an expression, None where Prometheus has none yet."""
    result = stack.monitoring("/api/v1/query?query=" + quote(expression))["result"]
    return float(result[0]["value"][1]) if result else None


def scraped(stack: Stack) -> set[str]:
    """Jobs that have a target which answers."""
    targets = (stack.monitoring("/api/v1/targets") or {}).get("activeTargets", [])
    return {target["labels"]["job"] for target in targets if target["health"] == "up"}


def rule_health(stack: Stack) -> set[str]:
    """What Prometheus says of its rules."""
    groups = stack.monitoring("/api/v1/rules")["groups"]
    return {rule["health"] for group in groups for rule in group["rules"]}


def alerts_when_worker_is_gone(stack: Stack) -> None:
    """a worker that stays away raises its alert, and the alert goes when it is back"""
    stack.kill("worker")
    eventually("ExpungeWorkerDown fires", lambda: "ExpungeWorkerDown" in firing(stack), 150)
    stack.start("worker")
    eventually("ExpungeWorkerDown is over", lambda: "ExpungeWorkerDown" not in firing(stack), 60)


def firing(stack: Stack) -> set[str]:
    """Alerts that fire now."""
    alerts = (stack.monitoring("/api/v1/alerts") or {}).get("alerts", [])
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def stops_cleanly(stack: Stack) -> None:
    """on SIGTERM API and worker end by themselves"""
    for service in ("api", "worker"):
        run(stack.engine.program, "stop", "--time", "30", stack.container(service))
        code = run(stack.engine.program, "inspect", "-f", "{{.State.ExitCode}}", stack.container(service)).strip()
        require(code in ("0", "143"), f"{service} ended with {code}")


STORY: Sequence[Callable[[Stack], None]] = (
    refuses_missing_secrets,
    comes_up,
    trains,
    erases,
    survives_worker,
    survives_worker_at_work,
    survives_stream,
    survives_api,
    survives_database,
    survives_power_cut,
    log_is_whole,
    is_monitored,
    alerts_when_worker_is_gone,
    stops_cleanly,
)

if __name__ == "__main__":
    sys.exit(main())
