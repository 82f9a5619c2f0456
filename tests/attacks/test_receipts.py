"""Lies about an erasure, against both verifiers: the service's and the stand-alone one."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import leaf_hash
from service.audit.tlog.note import SignedNote, SigningKey
from service.platform.canonical import canonical_json
from service.receipts.document import Receipt, ReceiptEntry
from service.receipts.verification import Opening, verify
from tests.attacks.conftest import KEY, Issued, LogService

pytestmark = pytest.mark.P7

ATTACKER = SigningKey(KEY.verifier.name, b"a" * 32)


@dataclass(frozen=True)
class Scene:
    """What an attacker has: receipts of the service, and of another one."""

    issued: Issued
    accepted: Issued
    other: Issued
    foreign: Issued
    held: Issued
    refused: Issued


@pytest.fixture
def scene(service: LogService, other_service: LogService) -> Scene:
    """Receipts to lie with."""
    accepted = service.issued("ana", forgotten=False)
    service.forget(accepted.erasure_id)
    issued = replace(accepted, receipt=service.receipt(accepted.erasure_id))
    held, refused = service.issued("eve", forgotten=False), service.issued("dan", forgotten=False)
    service.decide(held.erasure_id, held=True)
    service.decide(refused.erasure_id, held=False)
    held, refused = (replace(each, receipt=service.receipt(each.erasure_id)) for each in (held, refused))
    return Scene(issued, accepted, service.issued("bob"), other_service.issued("ana"), held, refused)


def edited(receipt: Receipt, **members: Any) -> Receipt:
    """The statement says something else."""
    return replace(receipt, statement=canonical_json({**json.loads(receipt.statement), **members}).decode())


def signed(receipt: Receipt, key: SigningKey = KEY) -> Receipt:
    """Signed anew."""
    return replace(receipt, signature=key.sign(receipt.statement + "\n").line())


def entry(receipt: Receipt, at: int, **members: Any) -> Receipt:
    """An entry of the log says something else."""
    entries = list(receipt.entries)
    text = canonical_json({**json.loads(entries[at].text), **members}).decode()
    entries[at] = ReceiptEntry(entries[at].index, text, entries[at].hashes)
    return replace(receipt, entries=tuple(entries))


def lonely(receipt: Receipt, key: SigningKey) -> Receipt:
    """A log of its own about the last entry alone."""
    text = receipt.entries[-1].text
    head = LogCheckpoint(key.verifier.name, 1, leaf_hash(text.encode())).text()
    note = str(SignedNote(head).signed(key.sign(head)))
    return replace(receipt, entries=(ReceiptEntry(0, text, ()),), checkpoint=note)


Attack = Callable[[Scene], Receipt]
# What an attacker does who has not the log's key, and then one who has it but not the log.
ATTACKS: Mapping[str, tuple[Attack, set[str]]] = {
    "edited": (lambda s: edited(s.accepted.receipt, status="erased", final=True), {"wrong_signature"}),
    "edited in spaces alone": (
        lambda s: replace(s.issued.receipt, statement=s.issued.receipt.statement.replace(",", ", ", 1)),
        {"wrong_signature"},
    ),
    "re-signed": (
        lambda s: signed(edited(s.accepted.receipt, status="erased", final=True), ATTACKER),
        {"unknown_key"},
    ),
    "key swapped": (
        lambda s: replace(
            s.issued.receipt,
            signature=s.issued.receipt.signature.replace(
                base64.b64encode(KEY.verifier.key_id)[:4].decode(),
                base64.b64encode(ATTACKER.verifier.key_id)[:4].decode(),
            ),
        ),
        {"unknown_key", "wrong_signature"},
    ),
    "forged": (lambda s: s.foreign.receipt, {"unknown_key"}),
    "log swapped": (
        lambda s: replace(s.issued.receipt, checkpoint=s.foreign.receipt.checkpoint),
        {"unknown_key"},
    ),
    "entry edited": (lambda s: entry(s.issued.receipt, 1, event="erasure.erased"), {"wrong_proof"}),
    "head edited": (
        lambda s: replace(s.issued.receipt, checkpoint=s.issued.receipt.checkpoint.replace("\n", "\n1", 1)),
        {"wrong_signature"},
    ),
    "older head": (
        lambda s: replace(s.issued.receipt, checkpoint=s.accepted.receipt.checkpoint),
        {"wrong_index", "wrong_proof"},
    ),
    "statement of another": (
        lambda s: replace(s.issued.receipt, statement=s.other.receipt.statement, signature=s.other.receipt.signature),
        {"missing_entries", "other_erasure"},
    ),
    "entries of another": (
        lambda s: replace(s.issued.receipt, entries=s.other.receipt.entries, checkpoint=s.other.receipt.checkpoint),
        {"missing_entries", "other_erasure"},
    ),
    "dropped": (lambda s: replace(s.issued.receipt, entries=s.issued.receipt.entries[:1]), {"missing_entries"}),
    "truncated": (lambda s: replace(s.issued.receipt, entries=s.issued.receipt.entries[1:]), {"missing_entries"}),
    "reordered": (
        lambda s: replace(s.issued.receipt, entries=s.issued.receipt.entries[::-1]),
        {"missing_entries"},
    ),
    "doubled": (lambda s: replace(s.issued.receipt, entries=s.issued.receipt.entries * 2), {"missing_entries"}),
    "signed and never logged": (
        lambda s: signed(edited(s.accepted.receipt, status="erased", final=True)),
        {"contradiction"},
    ),
    "signed with another commitment": (
        lambda s: signed(edited(s.issued.receipt, commitment="0" * 64)),
        {"contradiction"},
    ),
    "signed with other instants": (
        lambda s: signed(edited(s.issued.receipt, reached={"accepted": "2020-01-01T00:00:00.000000Z"})),
        {"contradiction"},
    ),
    "signed as final too soon": (lambda s: signed(edited(s.issued.receipt, final=True)), {"contradiction"}),
    "signed with a refusal that never was": (
        lambda s: signed(edited(s.issued.receipt, final=True, decision={"outcome": "partial"})),
        {"contradiction"},
    ),
    "signed with the refusal left out": (
        lambda s: signed(edited(s.refused.receipt, decision=None)),
        {"contradiction"},
    ),
    "signed with another ground": (
        lambda s: signed(
            edited(
                s.refused.receipt,
                decision={**json.loads(s.refused.receipt.statement)["decision"], "ground": "17(3)(a)"},
            )
        ),
        {"contradiction"},
    ),
    "signed with the hold left out": (
        lambda s: signed(edited(s.held.receipt, legal_hold=False)),
        {"contradiction"},
    ),
    "signed with the extension left out": (
        lambda s: signed(edited(s.held.receipt, extension=None)),
        {"contradiction"},
    ),
    "signed with another deadline": (
        lambda s: signed(edited(s.held.receipt, due_at="2027-01-20T12:00:00.000000Z")),
        {"contradiction"},
    ),
    "signed with an entry left out": (
        lambda s: signed(
            edited(
                replace(s.issued.receipt, entries=s.issued.receipt.entries[1:]),
                entries=[s.issued.receipt.entries[1].index],
            )
        ),
        {"contradiction"},
    ),
    "forked": (lambda s: signed(edited(lonely(s.issued.receipt, KEY), entries=[0])), {"wrong_index"}),
    "forked by another": (lambda s: lonely(s.issued.receipt, ATTACKER), {"unknown_key"}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_lie_is_refused_by_its_name(scene: Scene, stand_alone: ModuleType, attack: str) -> None:
    """By the service's verifier and by the one that shares no code with it."""
    lie, names = ATTACKS[attack]
    receipt = lie(scene)

    with pytest.raises(Unverified) as refused:
        verify(receipt, [KEY.verifier])
    with pytest.raises(stand_alone.Refused) as refused_elsewhere:
        stand_alone.verify(json.loads(receipt.json()), str(KEY.verifier))

    assert refused.value.code in names
    assert str(refused_elsewhere.value) in names


def test_the_truth_is_believed(scene: Scene, stand_alone: ModuleType) -> None:
    """By both, with what the caller kept; read again from its file."""
    for issued in (scene.issued, scene.accepted, scene.other, scene.held, scene.refused):
        receipt = Receipt.parse(issued.receipt.json())
        found = verify(
            receipt, [KEY.verifier], erasure_id=issued.erasure_id, opening=Opening(issued.salt, users=issued.users)
        )
        opening = {"salt": issued.salt, "users": list(issued.users)}
        statement = stand_alone.verify(json.loads(issued.receipt.json()), str(KEY.verifier), opening)

        assert receipt == issued.receipt
        assert found.statement == statement
        assert found.opened
        assert statement["erasure_id"] == issued.erasure_id
    assert [json.loads(each.receipt.statement)["status"] for each in (scene.issued, scene.accepted)] == [
        "forgotten",
        "accepted",
    ]
    held, refused = (json.loads(each.receipt.statement) for each in (scene.held, scene.refused))
    assert (held["status"], held["legal_hold"], held["final"]) == ("needs_attention", True, False)
    assert held["due_at"] == held["extension"]["until"]
    assert (refused["status"], refused["decision"]["outcome"], refused["final"]) == ("refused", "refused", True)


def test_a_receipt_from_before_there_were_decisions_verifies_still(scene: Scene, stand_alone: ModuleType) -> None:
    """It says nothing of extension, decision and hold: there is none."""
    statement = json.loads(scene.issued.receipt.statement)
    rest = {name: statement[name] for name in statement.keys() - {"extension", "decision", "legal_hold"}}
    old = signed(replace(scene.issued.receipt, statement=canonical_json(rest).decode()))

    assert verify(old, [KEY.verifier]).statement == rest
    assert stand_alone.verify(json.loads(old.json()), str(KEY.verifier)) == rest


def test_a_receipt_replayed_for_another_erasure_is_refused(scene: Scene) -> None:
    """It names the erasure that it is about."""
    with pytest.raises(Unverified) as refused:
        verify(scene.other.receipt, [KEY.verifier], erasure_id=scene.issued.erasure_id)
    assert refused.value.code == "other_erasure"


@pytest.mark.parametrize("opening", [{"salt": "00" * 32, "users": ["ana"]}, {"users": ["bob"]}, {"items": ["ana"]}])
def test_it_is_about_nothing_else(scene: Scene, stand_alone: ModuleType, opening: dict[str, Any]) -> None:
    """Neither with another salt nor with other targets."""
    given_ = {"salt": scene.issued.salt, **opening}
    with pytest.raises(Unverified) as refused:
        verify(scene.issued.receipt, [KEY.verifier], opening=Opening(**given_))
    assert refused.value.code == "wrong_commitment"
    with pytest.raises(stand_alone.Refused, match="wrong_commitment"):
        stand_alone.verify(json.loads(scene.issued.receipt.json()), str(KEY.verifier), given_)


def test_made_again_it_has_the_same_bytes(service: LogService) -> None:
    """Also after the log has grown and its head was signed anew."""
    issued = service.issued("ana")
    for number in range(300):
        service.domains.accept(users=(f"later-{number}",))
    service.issued("later")

    assert service.receipt(issued.erasure_id) == issued.receipt


def test_after_a_change_of_the_key_the_new_one_alone_is_enough(service: LogService, stand_alone: ModuleType) -> None:
    """Also for what was erased before: the change is an entry of the log, so there is a head that the new key signs."""
    issued = service.issued("ana")
    service.domains.clock.step(60)
    renewed = LogService(service.domains, SigningKey(KEY.verifier.name, b"n" * 32))

    again = renewed.receipt(issued.erasure_id)

    verify(issued.receipt, [KEY.verifier])
    verify(again, [renewed.key.verifier])
    stand_alone.verify(json.loads(again.json()), str(renewed.key.verifier))
    for number in range(5):
        service.domains.accept(users=(f"later-{number}",))
    assert renewed.receipt(issued.erasure_id) == again
    assert "audit.key_changed" in [entry["event"] for entry in service.domains.log()]


@pytest.mark.P8
def test_it_names_nobody(service: LogService) -> None:
    """Neither an id nor a digest of one."""
    issued = service.issued("canary-ana")
    identity = service.domains.identity

    text = issued.receipt.json().decode()

    assert "canary" not in text
    assert identity.user("canary-ana").hex() not in text
    assert issued.salt not in text


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=12,
)
_MEMBERS = ("format", "statement", "signature", "entries", "checkpoint", "index", "entry", "hashes")
_SHAPED = st.fixed_dictionaries(dict.fromkeys(_MEMBERS[1:5], _JSON)).map(
    lambda rest: {"format": "expunge-receipt/v1", **rest}
)


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=200), _JSON.map(lambda value: json.dumps(value).encode())))
def test_whatever_is_presented_is_refused_and_not_crashed_on(data: bytes) -> None:
    """Random bytes and random documents."""
    with pytest.raises(Unverified):
        verify(Receipt.parse(data), [KEY.verifier])


@settings(max_examples=200)
@given(_SHAPED)
def test_whatever_has_the_shape_of_a_receipt_is_refused(document: dict[str, Any]) -> None:
    """As above."""
    with pytest.raises(Unverified):
        verify(Receipt.parse(json.dumps(document)), [KEY.verifier])
