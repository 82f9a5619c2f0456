"""What an erasure names: merged, ordered, committed to."""

import hashlib
import json

import pytest

from service.erasures.modes import Mode
from service.erasures.targets import EVERY, Subjects, TargetKind, fingerprint
from service.platform.identity import Identity

IDENTITY = Identity(b"s" * 32)


def test_what_is_named_twice_counts_once() -> None:
    """And the order of naming does not matter."""
    one = Subjects.of([("u", "b"), ("u", "a"), ("u", "b")], ["x", "x"], ["z", "y"])
    other = Subjects.of([("u", "a"), ("u", "b")], ["x"], ["y", "z"])

    assert one == other
    assert len(one) == 5


def test_targets_name_only_their_side() -> None:
    """A user stands for every item, an item for every user."""
    pair, user, item = Subjects.of([("u", "i")], ["u"], ["i"]).targets(IDENTITY)

    assert (pair.kind, pair.user_digest, pair.item_digest) == (
        TargetKind.INTERACTION,
        IDENTITY.user("u"),
        IDENTITY.item("i"),
    )
    assert (user.kind, user.user_digest, user.item_digest) == (TargetKind.USER, IDENTITY.user("u"), EVERY)
    assert (item.kind, item.user_digest, item.item_digest) == (TargetKind.ITEM, EVERY, IDENTITY.item("i"))


def test_whoever_holds_the_salt_can_compute_the_commitment() -> None:
    """From the documentation alone: SHA-256 over the salt's bytes and the sorted subjects."""
    subjects = Subjects.of([("b", "1"), ("a", "2")], ["é"], [])
    salt = bytes(range(32))

    document = {
        "interactions": [{"item_id": "2", "user_id": "a"}, {"item_id": "1", "user_id": "b"}],
        "items": [],
        "users": ["é"],
    }
    text = json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    assert subjects.commitment(salt) == hashlib.sha256(salt + text).hexdigest()


def test_another_salt_gives_another_commitment() -> None:
    """So equal subjects cannot be linked."""
    subjects = Subjects(users=("u",))

    assert subjects.commitment(b"1" * 32) != subjects.commitment(b"2" * 32)


@pytest.mark.parametrize(
    "other",
    [
        (Subjects(users=("v",)), Mode.FORGET, None),
        (Subjects(items=("u",)), Mode.FORGET, None),
        (Subjects(users=("u", "v")), Mode.FORGET, None),
        (Subjects(interactions=(("u", "u"),)), Mode.FORGET, None),
        (Subjects(users=("u",)), Mode.DISLIKE, None),
        (Subjects(users=("u",)), Mode.FORGET, ""),
    ],
)
def test_a_fingerprint_tells_requests_apart(other: tuple[Subjects, Mode, str | None]) -> None:
    """By targets, mode and reason."""
    subjects, mode, reason = other

    assert fingerprint(subjects.targets(IDENTITY), mode, reason) != fingerprint(
        Subjects(users=("u",)).targets(IDENTITY), Mode.FORGET, None
    )
