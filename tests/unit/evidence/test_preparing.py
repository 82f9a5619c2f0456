"""Proofs of absence are made from SQL before the purge, and kept in a file without an id until the end."""

import json
from pathlib import Path

import pytest

from service.audit.tlog.errors import Unverified
from service.evidence import repository
from service.evidence.absence import AbsenceProof
from service.evidence.commitment import StillTrainedOn
from service.evidence.document import EvidenceRefused, evidence
from service.evidence.preparing import TARGETS_SHOWN_MAX, EvidenceIncomplete, PreparedEvidence, prepare
from service.evidence.verification import BYTES_MAX, verify_evidence
from service.interactions.service import snapshot
from service.platform.canonical import canonical_json
from service.platform.database import Database
from service.platform.tables import interactions, suppressions, users
from tests.factories.domains import Domains
from tests.factories.evidence import DATASET_HASH, Compacted, facts, found


@pytest.fixture
def compacted(database: Database, tmp_path: Path) -> Compacted:
    """A service with data, on both databases."""
    domains = Domains(database)
    domains.record(*((f"canary-u{user}", f"canary-i{item}") for user in range(10) for item in range(10)))
    return Compacted(domains, tmp_path)


@pytest.mark.P8
def test_the_file_is_private_names_nobody_and_is_made_once(compacted: Compacted, tmp_path: Path) -> None:
    """Run again, also after the purge took the ids away, it gives the same; destroyed, it is gone."""
    domains = compacted.domains
    erasure = domains.accept(("canary-u1", "canary-i1"), users=("canary-u2",), items=("canary-i3",))

    first = compacted.prepared(erasure.id)
    domains.database.transact(lambda write: write.execute(interactions.delete()))
    domains.database.transact(lambda write: write.execute(suppressions.delete()))
    again = compacted.prepared(erasure.id)

    [path] = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "canary" not in path.read_text()
    assert domains.identity.user("canary-u2").hex() not in path.read_text()
    assert first.absence(erasure.id) == again.absence(erasure.id)
    assert (first.commitment, first.base, first.dataset_hash) == (again.commitment, 7, DATASET_HASH)
    with pytest.raises(EvidenceIncomplete):
        first.absence("another")
    first.destroy()
    first.destroy()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(EvidenceIncomplete):
        PreparedEvidence(path)


def test_each_erasure_has_its_own_proofs(compacted: Compacted) -> None:
    """Of all its targets; one without any of them on record counts them."""
    domains = compacted.domains
    pair = domains.accept(("canary-u1", "canary-i1"))
    whole = domains.accept(users=("canary-u2", "canary-u3"), items=("canary-i3",))
    nobody = domains.accept(users=("stranger",))

    made = compacted.prepared(pair.id, whole.id, nobody.id)
    each = [made.absence(erasure.id) for erasure in (pair, whole, nobody)]

    assert [(one["targets"], one["shown"], one["never_on_record"]) for one in each] == [(1, 1, 0), (3, 3, 0), (1, 0, 1)]
    [proof] = each[0]["proofs"]
    user, item = compacted.key().user("canary-u1"), compacted.key().item("canary-i1")
    assert AbsenceProof.read(proof).excludes_pair(user, item)
    for erasure in (pair, whole, nobody):
        body = evidence(erasure.id, facts(), made)
        assert verify_evidence(body.text, body.entry, erasure.id).targets == erasure.requested
        assert body.text.encode() == canonical_json(json.loads(body.text))
        with pytest.raises(Unverified, match="another erasure"):
            verify_evidence(body.text, body.entry, "another")


def test_more_targets_than_are_shown_are_counted(compacted: Compacted) -> None:
    """And the evidence stays within its bound."""
    domains = compacted.domains
    domains.record(*((f"v{number}", "canary-i1") for number in range(250)))
    erasure = domains.accept(users=tuple(f"v{number}" for number in range(250)))

    made = compacted.prepared(erasure.id)
    absence = made.absence(erasure.id)
    body = evidence(erasure.id, facts(), made)

    assert (absence["targets"], absence["shown"], absence["beyond_bound"]) == (250, TARGETS_SHOWN_MAX, 150)
    assert len(body.text) < BYTES_MAX
    assert verify_evidence(body.text, body.entry, erasure.id).shown == TARGETS_SHOWN_MAX


def test_long_lists_are_left_out_beyond_the_bound(compacted: Compacted, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted."""
    monkeypatch.setattr("service.evidence.preparing.SHOWN_BYTES_MAX", 2_000)
    erasure = compacted.domains.accept(*((f"canary-u{n}", f"canary-i{n}") for n in range(10)))

    absence = compacted.prepared(erasure.id).absence(erasure.id)

    assert 0 < absence["shown"] < 10
    assert absence["shown"] + absence["beyond_bound"] == 10


@pytest.mark.P9
def test_what_the_base_was_trained_on_is_never_called_absent(compacted: Compacted, tmp_path: Path) -> None:
    """A base that was trained before the erasure was accepted; nothing is kept of it."""
    domains = compacted.domains
    with domains.database.read() as connection:
        data = snapshot(connection)
    erasure = domains.accept(("canary-u1", "canary-i1"))

    with domains.database.read() as connection, pytest.raises(StillTrainedOn):
        prepare(
            connection,
            domains.identity,
            tmp_path / "x.evidence",
            base=1,
            dataset_hash=DATASET_HASH,
            data=data,
            erasure_ids=[erasure.id],
        )
    assert not (tmp_path / "x.evidence").exists()


def test_without_the_ids_of_the_training_data_nothing_is_proven(compacted: Compacted, tmp_path: Path) -> None:
    """Nor with a file that is cut short."""
    domains = compacted.domains
    erasure = domains.accept(users=("canary-u9",))
    with domains.database.read() as connection:
        data = snapshot(connection)
    domains.database.transact(lambda write: write.execute(interactions.delete()))
    domains.database.transact(lambda write: write.execute(users.delete().where(users.c.id == "canary-u1")))

    with domains.database.read() as connection, pytest.raises(EvidenceIncomplete):
        prepare(
            connection,
            domains.identity,
            tmp_path / "x.evidence",
            base=1,
            dataset_hash=DATASET_HASH,
            data=data,
            erasure_ids=[erasure.id],
        )
    (tmp_path / "y.evidence").write_bytes(b'{"base": 1')
    with pytest.raises(EvidenceIncomplete):
        PreparedEvidence(tmp_path / "y.evidence")


def test_evidence_says_what_stays_of_this_erasure_alone(compacted: Compacted) -> None:
    """A tombstone of its own is told, another's is not; long words are cut."""
    erasure = compacted.domains.accept(users=("canary-u2",))
    made = compacted.prepared(erasure.id)
    report = found(home="NOT_CHECKED")
    columns = next(store for store in report["stores"] if store["store"] == "columns")
    place = {"place": "suppressions.user_digest", "kind": "digest", "count": 1, "at": None, "note": "a tombstone"}
    columns["allowed"] = [
        {**place, "erasures": [erasure.id], "erasures_in_all": 1},
        {**place, "place": "other", "erasures": ["other"], "erasures_in_all": 1},
    ]
    next(store for store in report["stores"] if store["store"] == "home")["reason"] = "x" * 9_000

    made_of_it = evidence(erasure.id, facts(search=report), made)
    body = json.loads(made_of_it.text)

    stores = {store["store"]: store for store in body["search"]["stores"]}
    assert [kept["place"] for kept in stores["columns"]["kept"]] == ["suppressions.user_digest"]
    assert len(stores["home"]["reason"]) == 500
    verify_evidence(made_of_it.text, made_of_it.entry, erasure.id)
    domains = compacted.domains
    domains.database.transact(lambda write: repository.store(write, {erasure.id: made_of_it.text}))
    assert domains.database.query(lambda read: repository.find(read, erasure.id)) == made_of_it.text
    assert domains.database.query(lambda read: repository.find(read, "another")) is None


@pytest.mark.P9
def test_what_was_found_of_it_is_never_called_erased(compacted: Compacted) -> None:
    """Of another erasure it may be there still; of nobody by name it may be anybody's."""
    erasure = compacted.domains.accept(users=("canary-u2",))
    made = compacted.prepared(erasure.id)
    with pytest.raises(EvidenceRefused):
        evidence(erasure.id, facts(search={}), made)
    place = {"place": "users.id", "kind": "id", "count": 1, "at": None, "note": None, "spelling": None}
    for erasures, refused in (([erasure.id], True), ([], True), (["another"], False)):
        report = found(columns="PRESENT")
        columns = next(store for store in report["stores"] if store["store"] == "columns")
        columns["places"] = [{**place, "erasures": erasures, "erasures_in_all": len(erasures)}]
        columns["places_in_all"] = 1
        if refused:
            with pytest.raises(EvidenceRefused):
                evidence(erasure.id, facts(search=report), made)
        else:
            made_of_it = evidence(erasure.id, facts(search=report), made)
            verify_evidence(made_of_it.text, made_of_it.entry, erasure.id)
