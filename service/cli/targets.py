"""What `expunge erase` is asked to erase: each target is what it was named as, and never becomes anything wider."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.cli.failures import Refusal
from service.cli.terminal import count

TARGETS_MAX = 1_000_000
"""Most targets of one call: all of them are checked, and held, before the first is sent."""


@dataclass
class RequestedTargets:
    """Distinct targets in the order in which they were named, as the API takes them."""

    interactions: dict[tuple[str, str], None] = field(default_factory=dict)
    users: dict[str, None] = field(default_factory=dict)
    items: dict[str, None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.interactions) + len(self.users) + len(self.items)

    @property
    def whole(self) -> bool:
        """Whether a whole user or item is named: then the reach is more than what is written down."""
        return bool(self.users or self.items)

    def body(self) -> dict[str, Any]:
        """The members of the request."""
        pairs = [{"user_id": user, "item_id": item} for user, item in self.interactions]
        return {"interactions": pairs, "users": list(self.users), "items": list(self.items)}

    def parts(self, size: int) -> Iterator[RequestedTargets]:
        """The same targets in erasures of at most `size` each."""
        named: list[tuple[str, Any]] = [("interactions", pair) for pair in self.interactions]
        named += [("users", user) for user in self.users] + [("items", item) for item in self.items]
        for start in range(0, len(named), size):
            part = RequestedTargets()
            for kind, target in named[start : start + size]:
                getattr(part, kind)[target] = None
            yield part

    def words(self) -> str:
        """`3 interactions and 1 whole user`."""
        kinds = ((self.interactions, "interactions"), (self.users, "whole users"), (self.items, "whole items"))
        named = [count(len(targets), things) for targets, things in kinds if targets]
        return " and ".join(part for part in (", ".join(named[:-1]), *named[-1:]) if part)


def targets_of_arguments(pairs: Sequence[str], users: Sequence[str], items: Sequence[str]) -> RequestedTargets:
    """The targets of USER ITEM ..., --user and --item.

    Raises:
        Refusal: an item is missing, or an id is none. An empty one is what an unset variable of a shell leaves behind.
    """
    if len(pairs) % 2:
        msg = "An interaction needs a user and an item: the last of them has no item. Use --user for a whole user."
        raise Refusal(msg)
    check = id_check()
    for options, what in ((pairs, "USER ITEM"), (users, "--user"), (items, "--item")):
        for place, value in enumerate(options, 1):
            if (fault := check(value)) is not None:
                msg = f"Value {place} of {what} is no id: {fault} Nothing was sent."
                raise Refusal(msg)
    interactions = dict.fromkeys(zip(pairs[::2], pairs[1::2], strict=True))
    return RequestedTargets(interactions, dict.fromkeys(users), dict.fromkeys(items))


def id_check() -> Callable[[str], str | None]:
    """What says why a text is no id that the API takes, without repeating it; None where it is one."""
    from pydantic_core import PydanticCustomError

    from service.platform.ids import check_id

    def fault_of(value: str) -> str | None:
        try:
            check_id(value)
        except PydanticCustomError as error:
            return "it is empty." if not value else error.message()
        return None

    return fault_of


@dataclass(frozen=True)
class ReachSummary:
    """What an erasure would touch, as the service counts it.

    `matched` recorded interactions of `users` users, out of `recorded`; `hidden` of them are shown now. `exact` is
    False where several erasures were counted one by one: what two of them share is counted twice.
    """

    matched: int
    hidden: int
    users: int
    recorded: int
    exact: bool = True

    @classmethod
    def of(cls, documents: Sequence[Mapping[str, Any]]) -> ReachSummary:
        """The reach that the previews of all parts of a call add up to; raises Refusal where one is no preview."""
        try:
            sums = [sum(int(part[name]) for part in documents) for name in ("matched", "hidden", "affected_users")]
            recorded = max(int(part["recorded"]) for part in documents)
        except (KeyError, TypeError, ValueError) as error:
            msg = "The service does not tell how far this reaches. Upgrade it, or name another with --url."
            raise Refusal(msg) from error
        return cls(min(sums[0], recorded), min(sums[1], recorded), sums[2], recorded, len(documents) == 1)

    @property
    def share(self) -> float:
        """Of everything recorded, 0 to 1."""
        return self.matched / self.recorded if self.recorded else 0.0

    def document(self) -> dict[str, Any]:
        """As JSON tells it."""
        return {
            "matched": self.matched,
            "hidden": self.hidden,
            "affected_users": self.users,
            "recorded": self.recorded,
            "share": round(self.share, 6),
            "exact": self.exact,
        }

    def words(self) -> str:
        """`441 of 100,000 recorded interactions (0.44 %), of 120 users`."""
        most = "" if self.exact else "at most "
        return (
            f"{most}{self.matched:,} of {count(self.recorded, 'recorded interactions')} ({self.share:.2%}), "
            f"of {most}{count(self.users, 'users')}"
        ).replace("%", " %")
