"""Lies about the log as a whole: each is refused by name, offline."""

import asyncio
from collections.abc import Callable

import pytest

from service.audit import repository
from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.errors import Unverified
from service.audit.tlog.note import SignedNote, SigningKey
from service.audit.verification import GrowingTree, read_log, verify_log, write_log
from service.platform.canonical import canonical_json
from tests.attacks.conftest import KEY, LogService

pytestmark = pytest.mark.P7

Entries = list[bytes]


@pytest.fixture
def log(service: LogService) -> tuple[str, str, Entries]:
    """An older head, the newer one, and all entries."""
    _, older = asyncio.run(service.publisher.latest())
    for number in range(300):
        service.domains.accept(users=(f"more-{number}",))
    checkpoint, note = asyncio.run(service.publisher.latest())
    database = service.domains.database
    entries = database.query(lambda connection: repository.entries(connection, 0, checkpoint.size))
    return older, note, entries


def edited(entries: Entries) -> Entries:
    """An entry that says something else."""
    return [*entries[:7], entries[7].replace(b"forget", b"dislike"), *entries[8:]]


def renumbered(entries: Entries) -> Entries:
    """One dropped, and those behind it moved up."""
    rest = [entry.replace(b'"seq":%d,' % (at + 9), b'"seq":%d,' % (at + 8)) for at, entry in enumerate(entries[8:])]
    return [*entries[:7], *rest]


ATTACKS: dict[str, tuple[Callable[[Entries], Entries], str]] = {
    "edited": (edited, "wrong_root"),
    "dropped": (lambda entries: [*entries[:7], *entries[8:]], "wrong_index"),
    "dropped and renumbered": (renumbered, "wrong_root"),
    "truncated": (lambda entries: entries[:-1], "wrong_root"),
    "reordered": (lambda entries: [entries[1], entries[0], *entries[2:]], "wrong_index"),
    "longer": (lambda entries: [*entries, canonical_json({"event": "x", "seq": len(entries) + 1})], "wrong_root"),
    "empty": (lambda entries: [], "wrong_root"),
    "no entries": (lambda entries: [b"[]", *entries[1:]], "malformed_entry"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_log_that_is_not_what_was_signed_is_refused(log: tuple[str, str, Entries], attack: str) -> None:
    """Whatever was done to its entries."""
    lie, code = ATTACKS[attack]
    with pytest.raises(Unverified) as refused:
        verify_log(log[1], lie(log[2]), [KEY.verifier])
    assert refused.value.code == code


def test_the_whole_log_is_believed(log: tuple[str, str, Entries]) -> None:
    """With the head that was kept, and out of its file."""
    older, note, entries = log
    again, lines = read_log(list(write_log(note, entries)))

    found = verify_log(again, lines, [KEY.verifier], older=older)

    assert found.checkpoint.size == len(entries) == 305
    assert found.events == {"erasure.accepted": 305}


@pytest.mark.parametrize("beginning", [0, 3, 4, 5])
def test_a_log_with_another_beginning_is_refused_by_who_kept_a_head(
    log: tuple[str, str, Entries], beginning: int
) -> None:
    """Signed with the log's own key: only the head that was kept tells."""
    older, _, entries = log
    forked = [*entries[:beginning], entries[beginning].replace(b"forget", b"dislike"), *entries[beginning + 1 :]]
    tree = GrowingTree()
    for text in forked:
        tree.append(_leaf(text))
    head = LogCheckpoint(KEY.verifier.name, tree.size, tree.root()).text()
    note = str(SignedNote(head).signed(KEY.sign(head)))

    verify_log(note, forked, [KEY.verifier])
    if beginning < 5:
        with pytest.raises(Unverified) as refused:
            verify_log(note, forked, [KEY.verifier], older=older)
        assert refused.value.code == "not_append_only"
    else:
        verify_log(note, forked, [KEY.verifier], older=older)


def test_a_log_that_shrank_is_refused(log: tuple[str, str, Entries]) -> None:
    """An older copy, shown to who has seen more."""
    older, note, entries = log
    with pytest.raises(Unverified) as refused:
        verify_log(older, entries[:5], [KEY.verifier], older=note)
    assert refused.value.code == "not_append_only"


def test_a_log_under_another_key_is_refused(log: tuple[str, str, Entries]) -> None:
    """Its name is not enough."""
    with pytest.raises(Unverified) as refused:
        verify_log(log[1], log[2], [SigningKey(KEY.verifier.name, b"a" * 32).verifier])
    assert refused.value.code == "unknown_key"


@pytest.mark.parametrize("first", [b"", b"{}\n", b"[1]\n", b'{"format":"expunge-audit/v1","checkpoint":1}\n'])
def test_what_is_no_file_of_a_log_is_refused(first: bytes) -> None:
    """By its first line."""
    with pytest.raises(Unverified) as refused:
        read_log([first])
    assert refused.value.code == "malformed_log"


def _leaf(text: bytes) -> bytes:
    from service.audit.tlog.merkle import leaf_hash

    return leaf_hash(text)
