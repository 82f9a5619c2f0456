"""`expunge erase`: ask a running service for erasures."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.client import DEFAULT_URL, Key, ServiceClient, Url
from service.cli.context import Json, print_result
from service.cli.failures import Refusal
from service.cli.target_file import read_target_file
from service.cli.targets import ReachSummary, RequestedTargets, targets_of_arguments
from service.cli.terminal import Terminal, count, duration
from service.erasures.modes import Mode

PART_MAX = 10_000
"""Targets of one erasure; more of them become several."""
ASK_ABOVE = 100
"""Interactions, named or reached, that are erased without asking."""
ASK_ABOVE_SHARE = 0.1
"""The same as a share of everything recorded, for whole users and items in a small data set."""
OPEN = ("accepted",)
QUEUED = "queued"  # what needs nothing to be done


def erase(
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="[USER ITEM]...", help="Interactions: a user, an item, and so on.")
    ] = None,
    user: Annotated[list[str] | None, typer.Option("--user", metavar="U", help="A whole user; repeatable.")] = None,
    item: Annotated[list[str] | None, typer.Option("--item", metavar="I", help="A whole item; repeatable.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="CSV",
            help="Targets under the header user_id,item_id; a field left empty means all of the other. -: stdin.",
        ),
    ] = None,
    strip: Annotated[bool, typer.Option("--strip", help="Take white space off the ids of --file.")] = False,
    mode: Annotated[Mode, typer.Option("--mode", help="`dislike`: the person also wants less of this.")] = Mode.FORGET,
    reason: Annotated[
        str | None, typer.Option("--reason", help="For whoever handles the erasure; kept until it is forgotten.")
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Tell how far it would reach; store and erase nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, however far it reaches.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait until the model has forgotten it.")
    ] = 0,
    url: Url = DEFAULT_URL,
    key: Key = None,
    json_file: Json = None,
) -> None:
    """Ask a running service to erase interactions, users or items.

    They are hidden when this returns; the model forgets within seconds (--wait waits for that). What reaches beyond
    100 interactions, or by whole users and items a tenth of everything, is asked for first.
    """
    targets = _targets(pairs or (), user or (), item or (), file, strip)
    extra = {"mode": mode.value} | ({} if reason is None else {"reason": reason})
    with closing(ServiceClient(url, key)) as client:
        reach = _reach(client, targets, extra) if preview or targets.whole or len(targets) > ASK_ABOVE else None
        if preview:
            assert reach is not None
            _tell_preview(json_file, targets, reach)
            return
        if reach is not None:
            _ask(targets, reach, yes)
        accepted = list[dict[str, Any]]()
        try:
            _send(client, targets, extra, accepted)
        except Refusal as refusal:
            if not accepted:
                raise
            # What was accepted stays so, and its salts are shown only now.
            print_result(json_file, {"erasures": accepted}, "\n".join(_line(state) for state in accepted))
            msg = f"{refusal} Accepted before that: {count(len(accepted), 'erasures')}, told on standard output."
            raise Refusal(msg) from refusal
        states = _await(client, accepted, wait) if wait else accepted
    document = {"erasures": states} | ({} if reach is None else {"reach": reach.document()})
    print_result(json_file, document, "\n".join(_line(state) for state in states))
    late = [state for state in states if state["status"] in OPEN]
    if wait and late:
        msg = f"{len(late)} of {len(states)} erasures are hidden but not forgotten after {wait:g} s. Ask again later."
        raise Refusal(msg)


def _targets(
    pairs: Sequence[str], users: Sequence[str], items: Sequence[str], file: Path | None, strip: bool
) -> RequestedTargets:
    targets = targets_of_arguments(pairs, users, items)
    if file is not None:
        listed = read_target_file(file, strip=strip)
        targets.interactions |= listed.interactions
        targets.users |= listed.users
        targets.items |= listed.items
    if not len(targets):
        msg = "Nothing is named to erase. Give USER ITEM, --user, --item or --file."
        raise Refusal(msg)
    return targets


def _reach(client: ServiceClient, targets: RequestedTargets, extra: Mapping[str, Any]) -> ReachSummary:
    return ReachSummary.of([client.preview({**part.body(), **extra}) for part in targets.parts(PART_MAX)])


def _ask(targets: RequestedTargets, reach: ReachSummary, yes: bool) -> None:
    """Tell how far an erasure reaches; beyond the bound, go on only if somebody says so."""
    terminal = Terminal()
    what = f"{targets.words()}: {reach.words()}"
    small = max(len(targets), reach.matched) <= ASK_ABOVE and not (targets.whole and reach.share > ASK_ABOVE_SHARE)
    if small or yes:
        terminal.say(f"Erasing {what}.")
    elif sys.stdin.isatty():
        terminal.say(f"This erases {what}.")
        typer.confirm("Go on?", abort=True, err=True)
    else:
        msg = f"This would erase {what}. Nothing was sent: look at it with --preview, then say --yes."
        raise Refusal(msg)


def _tell_preview(json_file: Path | None, targets: RequestedTargets, reach: ReachSummary) -> None:
    named = {kind: len(getattr(targets, kind)) for kind in ("interactions", "users", "items")}
    text = (
        f"Would erase {targets.words()}: {reach.words()}.\n"
        f"{reach.hidden:,} of these are shown now and would be hidden at once. Nothing was stored."
    )
    print_result(json_file, {"targets": named, "reach": reach.document()}, text)


def _send(
    client: ServiceClient, targets: RequestedTargets, extra: Mapping[str, Any], accepted: list[dict[str, Any]]
) -> None:
    """Ask for the erasures one after another; each is in `accepted` as soon as it is accepted."""
    parts = list(targets.parts(PART_MAX))
    if len(parts) == 1:
        accepted.append(_request(client, parts[0], extra))
        return
    with Terminal().step("Asking", "targets", len(targets)) as progress:
        done = 0
        for part in parts:
            accepted.append(_request(client, part, extra))
            done += len(part)
            progress(done)


def _request(client: ServiceClient, part: RequestedTargets, extra: Mapping[str, Any]) -> dict[str, Any]:
    # With a key of its own a request that has to be repeated is found, not done twice.
    return dict(client.erase({**part.body(), **extra}, idempotency_key=str(uuid.uuid4())))


def _await(client: ServiceClient, accepted: Sequence[Mapping[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """The state of each erasure once all are forgotten, or time is up."""
    deadline = time.monotonic() + seconds
    states = [dict(each) for each in accepted]
    terminal, told = Terminal(), set[str]()
    with terminal.step("Forgetting", "erasures", len(states)) as progress:
        for place, state in enumerate(states):
            while state["status"] in OPEN and time.monotonic() < deadline:
                time.sleep(min(0.2, max(deadline - time.monotonic(), 0)))
                salt = state.get("salt")
                state = {**client.erasure(state["id"]), **({} if salt is None else {"salt": salt})}
                waits = state.get("waiting_for") or {}
                if waits.get("code", QUEUED) not in {QUEUED, *told}:
                    told.add(waits["code"])
                    terminal.say(f"Waits: {waits['detail']} {waits['next_step']}")
            states[place] = state
            progress(place + 1)
    return states


def _line(state: Mapping[str, Any]) -> str:
    text = f"{state['id']}  {state['status']}, {state['requested']} named, {state['matched']} recorded interactions"
    forgotten = state.get("stages", {}).get("forgotten", {}).get("seconds")
    if forgotten is not None:
        return f"{text}, forgotten after {duration(forgotten)}"
    waits = state.get("waiting_for")
    return text if waits is None else f"{text}; waits: {waits['detail']} {waits['next_step']}"
