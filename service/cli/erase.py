"""`expunge erase`: ask a running service for erasures."""

from __future__ import annotations

import csv
import gzip
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from service.cli.client import DEFAULT_URL, WAIT_MAX_S, Key, ServiceClient, Url
from service.cli.context import Json, print_result
from service.cli.failures import Refusal
from service.cli.terminal import Terminal, duration
from service.erasures.modes import Mode

TARGETS_MAX = 10_000
OPEN = ("accepted",)


@dataclass
class RequestedTargets:
    """What an erasure names, as the API takes it."""

    interactions: list[tuple[str, str]] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.interactions) + len(self.users) + len(self.items)

    def add(self, user_id: str, item_id: str) -> None:
        """An interaction, or a whole user or item where the other id is empty."""
        if user_id and item_id:
            self.interactions.append((user_id, item_id))
        elif user_id:
            self.users.append(user_id)
        else:
            self.items.append(item_id)

    def body(self) -> dict[str, Any]:
        """The members of the request."""
        pairs = [{"user_id": user, "item_id": item} for user, item in self.interactions]
        return {"interactions": pairs, "users": self.users, "items": self.items}

    def parts(self, size: int) -> Iterator[RequestedTargets]:
        """The same targets in erasures of at most `size` each."""
        named = [(user, item) for user, item in self.interactions]
        named += [(user, "") for user in self.users] + [("", item) for item in self.items]
        for start in range(0, len(named), size):
            part = RequestedTargets()
            for user_id, item_id in named[start : start + size]:
                part.add(user_id, item_id)
            yield part


def erase(
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="[USER ITEM]...", help="Interactions: a user, an item, and so on.")
    ] = None,
    user: Annotated[list[str] | None, typer.Option("--user", metavar="U", help="A whole user; repeatable.")] = None,
    item: Annotated[list[str] | None, typer.Option("--item", metavar="I", help="A whole item; repeatable.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="CSV", help="RequestedTargets: user_id,item_id; an empty one means all of it."),
    ] = None,
    mode: Annotated[Mode, typer.Option("--mode", help="`dislike`: the person also wants less of this.")] = Mode.FORGET,
    reason: Annotated[str | None, typer.Option("--reason", help="Kept with the erasure.")] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait until the model has forgotten it.")
    ] = 0,
    url: Url = DEFAULT_URL,
    key: Key = None,
    json_file: Json = None,
) -> None:
    """Ask a running service to erase interactions, users or items.

    They are hidden when this returns; the model forgets within seconds (--wait waits for that).
    """
    named = list(pairs or ())
    if len(named) % 2:
        msg = "An interaction needs a user and an item: the last of them has no item. Use --user for a whole user."
        raise Refusal(msg)
    targets = RequestedTargets(list(zip(named[::2], named[1::2], strict=True)), list(user or ()), list(item or ()))
    if file is not None:
        read_targets(file, targets)
    if not len(targets):
        msg = "Nothing is named to erase. Give USER ITEM, --user, --item or --file."
        raise Refusal(msg)
    extra = {"mode": mode.value} | ({} if reason is None else {"reason": reason})
    with closing(ServiceClient(url, key)) as client:
        accepted = _send(client, targets, extra)
        states = _await(client, accepted, wait) if wait else accepted
    print_result(json_file, {"erasures": states}, "\n".join(_line(state) for state in states))
    late = [state for state in states if state["status"] in OPEN]
    if wait and late:
        msg = f"{len(late)} of {len(states)} erasures are hidden but not forgotten after {wait:g} s. Ask again later."
        raise Refusal(msg)


def read_targets(path: Path, targets: RequestedTargets) -> None:
    """Add the targets of a CSV file; raises Refusal naming the line."""
    with _open_text(path) as file:
        rows = csv.reader(file)
        try:
            header = next(rows, [])
            if not {"user_id", "item_id"} & set(header):
                msg = f"{path.name} has neither a column user_id nor item_id. Name the columns in the first line."
                raise Refusal(msg)
            for row in rows:
                if row:
                    _add_row(path, rows.line_num, dict(zip(header, row, strict=False)), targets)
        except (csv.Error, UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
            msg = f"{path.name} cannot be read after line {rows.line_num}. Give CSV in UTF-8, as it is or as .gz."
            raise Refusal(msg) from error


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _add_row(path: Path, number: int, row: Mapping[str, str], targets: RequestedTargets) -> None:
    user_id, item_id = row.get("user_id", ""), row.get("item_id", "")
    if not user_id and not item_id:
        msg = f"{path.name}, line {number} names neither a user nor an item. Fill one of them in."
        raise Refusal(msg)
    targets.add(user_id, item_id)


def _send(client: ServiceClient, targets: RequestedTargets, extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = list(targets.parts(TARGETS_MAX))
    if len(parts) == 1:
        return [_request(client, parts[0], extra)]
    accepted = []
    with Terminal().step("Asking", "targets", len(targets)) as progress:
        done = 0
        for part in parts:
            accepted.append(_request(client, part, extra))
            done += len(part)
            progress(done)
    return accepted


def _request(client: ServiceClient, part: RequestedTargets, extra: Mapping[str, Any]) -> dict[str, Any]:
    # With a key of its own a request that has to be repeated is found, not done twice.
    return dict(client.erase({**part.body(), **extra}, idempotency_key=str(uuid.uuid4())))


def _await(client: ServiceClient, accepted: Sequence[Mapping[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """The state of each erasure once all are forgotten, or time is up."""
    deadline = time.monotonic() + seconds
    states = [dict(each) for each in accepted]
    with Terminal().step("Forgetting", "erasures", len(states)) as progress:
        for place, state in enumerate(states):
            while state["status"] in OPEN and time.monotonic() < deadline:
                time.sleep(min(0.2, max(deadline - time.monotonic(), 0)))
                salt = state.get("salt")
                state = {**client.erasure(state["id"]), **({} if salt is None else {"salt": salt})}
            states[place] = state
            progress(place + 1)
    return states


def _line(state: Mapping[str, Any]) -> str:
    text = f"{state['id']}  {state['status']}, {state['requested']} named, {state['matched']} recorded interactions"
    forgotten = state.get("stages", {}).get("forgotten", {}).get("seconds")
    return text if forgotten is None else f"{text}, forgotten after {duration(forgotten)}"


__all__ = ["WAIT_MAX_S", "Mode", "RequestedTargets", "erase", "read_targets"]
