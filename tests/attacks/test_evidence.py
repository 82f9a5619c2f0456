"""Lies about what is erased: by whoever has a receipt, and by a service that signs and logs them itself."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.audit.tlog.errors import Unverified
from service.evidence.training_key import TrainingKey
from service.evidence.verification import SEARCHED, verify_evidence
from service.platform.canonical import canonical_json
from service.platform.database import Database
from service.receipts.document import Receipt
from service.receipts.verification import Opening, verify
from service.residue.report import ResidueStore
from tests.attacks.conftest import KEY, LogService
from tests.factories.domains import Domains
from tests.factories.evidence import DATASET_HASH, Compacted

pytestmark = [pytest.mark.P7, pytest.mark.P8]


@dataclass(frozen=True)
class Erased:
    """Receipts of erasures: two that are erased, of other targets, and one that is only forgotten."""

    receipt: Receipt
    other: Receipt
    forgotten: Receipt


@pytest.fixture
def service_with_data(sqlite: Database) -> LogService:
    """A service that remembers what some people like."""
    service = LogService(Domains(sqlite))
    service.domains.record(*((f"u{user}", f"i{item}") for user in range(12) for item in range(8) if (user + item) % 3))
    return service


@pytest.fixture
def erased(service_with_data: LogService) -> Erased:
    """Receipts to lie with."""
    service = service_with_data
    ids = [service.issued(user).erasure_id for user in ("u1", "u5", "u3")]
    service.erase(*ids[:2])
    one, other, forgotten = (service.receipt(each) for each in ids)
    return Erased(one, other, forgotten)


def changed(receipt: Receipt, change: Callable[[dict[str, Any]], object]) -> Receipt:
    """The evidence says something else."""
    body = json.loads(receipt.evidence or "")
    change(body)
    return replace(receipt, evidence=canonical_json(body).decode())


def store(body: dict[str, Any], name: str) -> dict[str, Any]:
    """What is said of one store."""
    return next(each for each in body["search"]["stores"] if each["store"] == name)


def drop(body: dict[str, Any], name: str = "write_ahead_log") -> None:
    """Say nothing of a store."""
    body["search"]["stores"].remove(store(body, name))


def present(body: dict[str, Any]) -> None:
    """Something was found."""
    store(body, "database_files")["verdict"] = "PRESENT"


def widen(body: dict[str, Any]) -> None:
    """A gap between values that are no neighbours."""
    [proof] = body["absence"]["proofs"]
    proof["high"] = base64.b64encode(b"\xff" * 32).decode()


def reverse(body: dict[str, Any]) -> None:
    """A gap with nothing in it."""
    [proof] = body["absence"]["proofs"]
    proof["low"], proof["high"] = proof["high"], proof["low"]


# By whoever has the receipt and no key: whatever it is, the log has another hash.
EDITED: Mapping[str, Callable[[Erased], Receipt]] = {
    "evidence edited": lambda s: changed(s.receipt, lambda body: body.update(dataset_hash="0" * 64)),
    "evidence edited in spaces alone": lambda s: replace(s.receipt, evidence=(s.receipt.evidence or "") + " "),
    "evidence left out": lambda s: replace(s.receipt, evidence=None),
    "evidence of another erasure": lambda s: replace(s.receipt, evidence=s.other.evidence),
    "evidence where nothing is erased": lambda s: replace(s.forgotten, evidence=s.receipt.evidence),
    "store dropped": lambda s: changed(s.receipt, drop),
    "present hidden": lambda s: changed(
        s.receipt, lambda body: store(body, "process_logs").update(verdict="GONE", reason=None)
    ),
    "gap widened": lambda s: changed(s.receipt, widen),
    "proof swapped": lambda s: changed(
        s.receipt, lambda body: body["absence"].update(proofs=json.loads(s.other.evidence or "")["absence"]["proofs"])
    ),
}


@pytest.mark.parametrize("attack", EDITED)
def test_evidence_that_is_not_what_was_logged_is_refused(erased: Erased, stand_alone: ModuleType, attack: str) -> None:
    """By both verifiers, under one name."""
    lie = EDITED[attack](erased)

    with pytest.raises(Unverified) as refused:
        verify(lie, [KEY.verifier])
    with pytest.raises(stand_alone.Refused, match="wrong_evidence"):
        stand_alone.verify(json.loads(lie.json()), str(KEY.verifier))

    assert refused.value.code == "wrong_evidence"


def test_the_truth_is_believed(erased: Erased, stand_alone: ModuleType) -> None:
    """By both; the receipt is final, exact, and says what was and what was not searched."""
    for receipt in (erased.receipt, erased.other):
        again = Receipt.parse(receipt.json())
        found = verify(again, [KEY.verifier])
        statement = stand_alone.verify(json.loads(receipt.json()), str(KEY.verifier))

        assert again == receipt
        assert found.statement == statement
        assert (statement["status"], statement["final"], statement["notice"]) == ("erased", True, None)
        assert found.evidence is not None
        assert found.absence is not None
        assert (found.absence.targets, found.absence.shown) == (1, 1)
        assert store(dict(found.evidence), "process_logs")["verdict"] == "NOT_CHECKED"
    assert verify(erased.forgotten, [KEY.verifier]).evidence is None


# By the service itself, which signs and logs what is not so: it contradicts itself.
LIES: Mapping[str, tuple[Callable[[dict[str, Any]], object], dict[str, Any], set[str]]] = {
    "present and erased": (present, {}, {"contradiction"}),
    "store dropped": (drop, {}, {"contradiction"}),
    "store twice": (lambda body: body["search"]["stores"].append(store(body, "home")), {}, {"contradiction"}),
    "another verdict": (lambda body: store(body, "home").update(verdict="FINE"), {}, {"contradiction"}),
    "not searched, no reason": (lambda body: store(body, "home").update(verdict="NOT_CHECKED"), {}, {"contradiction"}),
    "gap widened": (widen, {}, {"wrong_absence"}),
    "gap reversed": (reverse, {}, {"wrong_absence"}),
    "proofs left out": (lambda body: body["absence"].update(proofs=[]), {}, {"wrong_absence"}),
    "counted twice": (lambda body: body["absence"].update(shown=2), {}, {"wrong_absence"}),
    "never counted": (lambda body: body["absence"].update(never_on_record=5), {}, {"wrong_absence"}),
    "fewer targets": (
        lambda body: body["absence"].update(targets=0, shown=0, proofs=[]),
        {},
        {"contradiction"},
    ),
    "proof of another tree": (
        lambda body: body["absence"]["proofs"][0].update(tree="items"),
        {},
        {"wrong_absence"},
    ),
    "proof of another base": (
        lambda body: body["commitment"]["users"].update(root="ab" * 32),
        {"commitment": {}},
        {"contradiction"},
    ),
    "data set of another base": (lambda body: body.update(dataset_hash="0" * 64), {}, {"contradiction"}),
    "another base": (lambda body: None, {"base_after": 9}, {"contradiction"}),
    "evidence of another erasure": (lambda body: body.update(erasure_id="other"), {}, {"contradiction"}),
    "another format": (lambda body: body.update(format="mine/v1"), {}, {"contradiction"}),
}


@pytest.mark.parametrize("name", LIES)
def test_a_service_that_logs_a_lie_is_refused(
    service_with_data: LogService, stand_alone: ModuleType, name: str
) -> None:
    """What it says contradicts itself, or proves nothing."""
    service, (lie, entry, names) = service_with_data, LIES[name]
    erasure_id = service.issued("u1").erasure_id
    service.erase(erasure_id, lie=lie, **entry)
    receipt = service.receipt(erasure_id)

    with pytest.raises(Unverified) as refused:
        verify(receipt, [KEY.verifier])
    with pytest.raises(stand_alone.Refused) as refused_elsewhere:
        stand_alone.verify(json.loads(receipt.json()), str(KEY.verifier))

    assert refused.value.code in names
    assert str(refused_elsewhere.value) in names


def test_proofs_of_another_base_are_refused(service_with_data: LogService, stand_alone: ModuleType) -> None:
    """The roots are the logged ones, and the proofs of a base that was trained on something else."""
    service, erasure_id = service_with_data, service_with_data.issued("u1").erasure_id
    older: list[Any] = []

    def note(body: dict[str, Any]) -> None:
        older.append(body["absence"])

    other = service.issued("u2").erasure_id
    service.erase(other, lie=note)
    service.domains.record(("new", "i1"))
    service.erase(erasure_id, lie=lambda body: body.update(absence=older[0]))
    receipt = service.receipt(erasure_id)

    with pytest.raises(Unverified) as refused:
        verify(receipt, [KEY.verifier])
    with pytest.raises(stand_alone.Refused, match="wrong_absence"):
        stand_alone.verify(json.loads(receipt.json()), str(KEY.verifier))
    assert refused.value.code == "wrong_absence"


@dataclass(frozen=True)
class Audit:
    """A receipt, its opening, and the key that an auditor was given."""

    receipt: Receipt
    opening: Opening
    key: TrainingKey


def audited(service: LogService, *pairs: tuple[str, str], swap: bool = False, **targets: tuple[str, ...]) -> Audit:
    """An erasure of several kinds of targets that is erased; with `swap` the proofs are of other ones."""
    erasure = service.domains.accept(*pairs, **targets)
    other = service.domains.accept(users=("u11",), items=("i7",))
    proofs: list[Any] = []
    for each in (other, erasure):
        service.forget(each.id)
    service.erase(other.id, lie=lambda body: proofs.append(body["absence"]["proofs"]))
    service.erase(erasure.id, lie=(lambda body: body["absence"].update(proofs=proofs[0])) if swap else None)
    assert erasure.salt is not None
    listed = [{"user_id": user, "item_id": item} for user, item in pairs]
    opening = Opening(erasure.salt, listed, **{name: list(given) for name, given in targets.items()})
    key = TrainingKey.derived(service.domains.identity, 7, DATASET_HASH)
    return Audit(service.receipt(erasure.id), opening, key)


def test_with_the_training_key_it_is_shown_of_these_ids(service_with_data: LogService) -> None:
    """Users, items and pairs whose user stays; who was never on record is counted."""
    audit = audited(
        service_with_data, ("u5", "i5"), ("u6", "i1"), ("u5", "i3"), users=("u1", "stranger"), items=("i2",)
    )

    found = verify(audit.receipt, [KEY.verifier], opening=audit.opening, training_key=audit.key)

    assert found.absence is not None
    assert (found.absence.targets, found.absence.shown, found.absence.named) == (6, 5, 5)
    evidence = json.loads(audit.receipt.evidence or "")
    assert evidence["absence"]["never_on_record"] == 1
    assert [proof["tree"] for proof in evidence["absence"]["proofs"]] == ["items", "users", "users", "users"]


def test_with_the_training_key_swapped_proofs_are_refused(service_with_data: LogService) -> None:
    """They hold, and are of somebody else."""
    audit = audited(service_with_data, users=("u1",), items=("i2",), swap=True)

    verify(audit.receipt, [KEY.verifier], opening=audit.opening)
    with pytest.raises(Unverified) as refused:
        verify(audit.receipt, [KEY.verifier], opening=audit.opening, training_key=audit.key)
    assert refused.value.code == "wrong_absence"


def test_the_key_of_another_base_is_refused(service_with_data: LogService) -> None:
    """Its hash is in the log."""
    audit = audited(service_with_data, users=("u1",))
    other = Compacted(service_with_data.domains, Path()).key(8)

    with pytest.raises(Unverified) as refused:
        verify(audit.receipt, [KEY.verifier], opening=audit.opening, training_key=other)
    assert refused.value.code == "wrong_training_key"


@pytest.mark.P8
def test_it_names_nobody(service_with_data: LogService) -> None:
    """Neither an id nor a digest by which the service or the base knows one who is gone."""
    identity = service_with_data.domains.identity
    audit = audited(service_with_data, ("u5", "i3"), users=("u1",), items=("i2",))

    text = audit.receipt.json().decode()

    values = (
        identity.user("u1"),
        identity.item("i2"),
        audit.key.user("u1"),
        audit.key.item("i2"),
        audit.key.item("i3"),
    )
    for value in values:
        assert value.hex() not in text
        assert base64.b64encode(value).decode().rstrip("=") not in text
        assert base64.b64encode(value[:15]).decode() not in text
    assert str(audit.key) not in text
    assert '"u1"' not in text


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=10,
)
_SHAPED = st.fixed_dictionaries(
    {
        "format": st.just("expunge-evidence/v1"),
        "erasure_id": st.just("e"),
        "search": st.one_of(_JSON, st.fixed_dictionaries({"stores": st.one_of(_JSON, st.lists(_JSON, max_size=3))})),
        "absence": _JSON,
        "commitment": _JSON,
    }
)


@settings(max_examples=100)
@given(st.one_of(_JSON, _SHAPED), st.booleans())
def test_whatever_is_presented_is_refused_and_not_crashed_on(value: Any, logged: bool) -> None:
    """Random documents, also such as were logged: only Unverified."""
    from hashlib import sha256

    text = json.dumps(value)
    entry = {"evidence": sha256(text.encode()).hexdigest() if logged else "0" * 64}
    if logged and isinstance(value, dict):
        entry |= {name: value.get(name) for name in ("commitment",)}
    with pytest.raises(Unverified):
        verify_evidence(text, entry, "e")


def test_half_a_character_is_refused(erased: Erased) -> None:
    """JSON can hold what no text can."""
    for member in ("statement", "evidence", "checkpoint", "signature"):
        document = json.loads(erased.receipt.json()) | {member: "\ud800"}
        with pytest.raises(Unverified) as refused:
            Receipt.parse(json.dumps(document))
        assert refused.value.code == "malformed_receipt"


def test_each_store_of_the_search_has_a_verdict(stand_alone: ModuleType) -> None:
    """What verifiers ask for is what the search tells of."""
    assert set(SEARCHED) == {store.value for store in ResidueStore}
    assert " ".join(sorted(SEARCHED)) == stand_alone.STORES
