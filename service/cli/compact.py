"""`expunge compact`: have a running service train its base anew, purge what was erased, and complete the erasures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Annotated, Any

import typer

from service.cli.client import DEFAULT_URL, Key, ServiceClient, Url
from service.cli.context import Json, print_result
from service.cli.failures import INTERRUPTED, Refusal
from service.cli.terminal import Terminal, count, duration

OPEN = ("waiting", "running")
LOOK_S = 0.5
PATIENCE_S = 60.0
"""Of failures to answer in a row, while it waits: a service that is started again is back by then."""


def compact(
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Start it, and do not wait for its end.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    json_file: Json = None,
) -> None:
    """Train the base anew on what remains, purge what was erased, and complete the erasures; needs scope `admin`.

    It runs in the service's compactor; one that waits or runs already is taken. Ctrl-C leaves it running.
    """
    with closing(ServiceClient(url, key)) as client:
        state = client.compact()
        if not no_wait:
            try:
                state = _await(client, str(state["id"]))
            except KeyboardInterrupt:
                msg = f"Compaction {state['id']} goes on: run this again to watch it, or look at `expunge status`."
                raise Refusal(msg, INTERRUPTED) from None
    print_result(json_file, dict(state), _text(state))
    if state["status"] not in (*OPEN, "done"):
        raise Refusal(_why(state))


def _await(client: ServiceClient, compaction_id: str) -> Mapping[str, Any]:
    """Its state at the end."""
    terminal, told, silent_since = Terminal(), None, None
    with terminal.step("Compacting", "s") as progress:
        began = time.monotonic()
        while True:
            elapsed = time.monotonic() - began
            try:
                state = client.compaction(compaction_id)
            except Refusal:
                silent_since = silent_since or elapsed
                if elapsed - silent_since > PATIENCE_S:
                    raise
                time.sleep(LOOK_S)
                continue
            silent_since = None
            problem = state["problem"]
            if problem is not None and problem["code"] != told and state["status"] in OPEN:
                terminal.say(f"Waits: {problem['detail']} {problem['next_step']}")
            told = None if problem is None else problem["code"]
            if state["status"] not in OPEN:
                progress(elapsed, elapsed, note=state["status"])
                return state
            left = (state["progress"] or {}).get("left_s")
            progress(elapsed, None if left is None else elapsed + left, note=_note(state))
            time.sleep(LOOK_S)


def _percent(state: Mapping[str, Any]) -> float:
    return round(100 * float((state["progress"] or {}).get("share") or 0.0), 1)


def _note(state: Mapping[str, Any]) -> str:
    return f"{state['step']}, {_percent(state):g} %" if state["status"] == "running" else "waits for the compactor"


def _text(state: Mapping[str, Any]) -> str:
    if state["status"] in OPEN:
        return f"{state['id']}  {state['status']}, {_percent(state):g} %; {state['links']['self']} tells how far it is."
    if state["status"] != "done":
        return f"{state['id']}  {state['status']} at the step {state['step']}"
    steps = ", ".join(f"{name} {duration(step['seconds'])}" for name, step in state["steps"].items() if step["seconds"])
    before, after = state["base_before"], state["base_after"]
    trained = f"base {after} in place of {before}" if before != after else f"base {after} never learnt what was erased"
    return f"{state['id']}  done: {trained}, {count(state['erasures'], 'erasures')} erased ({steps})."


def _why(state: Mapping[str, Any]) -> str:
    problem = state["problem"]
    if problem is None:
        return f"The compaction is {state['status']}: nothing that serves has changed."
    return f"The compaction is {state['status']}: {problem['detail']} {problem['next_step']}"
