"""Receipts over HTTP, in every form, checked by what did not make them."""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from scitt_cose.receipt import verify_receipt

from service.audit.tlog.note import VerifierKey
from service.audit.tlog.proof import LogProof
from service.cli import main
from service.platform.auth import Scope
from service.platform.identity import load_identity
from service.platform.tables import erasure_evidence, versions
from service.receipts.document import Receipt
from service.receipts.page import CSP
from service.receipts.verification import verify
from tests.api.conftest import Api
from tests.factories.domains import Domains
from tests.factories.evidence import BASE, DATASET_HASH, Compacted


def log_key(api: Api) -> VerifierKey:
    """The log's public key."""
    return VerifierKey.parse(httpx.get(f"{api.url}/v1/audit/keys").json()["keys"][0]["vkey"])


def accepted(api: Api) -> str:
    """The path of an erasure."""
    for number in range(5):
        api.client.delete(f"/v1/users/u{number}").raise_for_status()
    document = api.client.delete("/v1/users/canary").json()
    assert document["links"]["receipt"] == f"{document['links']['self']}/receipt"
    return str(document["links"]["self"])


@pytest.mark.P7
def test_a_receipt_verifies_without_the_service(api: Api) -> None:
    """Not final while the erasure is only accepted; final when it is cancelled."""
    path = accepted(api)
    first = Receipt.parse(api.client.get(f"{path}/receipt").content)
    api.client.delete(path).raise_for_status()
    last = Receipt.parse(api.client.get(f"{path}/receipt.json").content)

    statements = [verify(each, [log_key(api)]).statement for each in (first, last)]

    assert [(each["status"], each["final"]) for each in statements] == [("accepted", False), ("cancelled", True)]
    assert statements[0]["notice"]
    assert statements[0]["out_of_scope"]
    assert "canary" not in first.json().decode()


@pytest.mark.P7
def test_its_proof_verifies_as_a_cose_receipt(api: Api) -> None:
    """RFC 9942, with an implementation of others; for another leaf it does not."""
    path = accepted(api)
    receipt = Receipt.parse(api.client.get(f"{path}/receipt").content)
    data = api.client.get(f"{path}/receipt.cose").content
    public = Ed25519PublicKey.from_public_bytes(log_key(api).public)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    found = verify_receipt(data, leaf_entry_hex=receipt.entries[-1].text.encode().hex(), log_public_key_pem=pem)
    other = verify_receipt(data, leaf_entry_hex=b"another".hex(), log_public_key_pem=pem)

    assert (found.ok, found.errors) == (True, [])
    assert found.subject == f"erasure:{path.rpartition('/')[2]}"
    assert not other.ok


@pytest.mark.P7
def test_its_proof_verifies_as_a_proof_of_the_log(api: Api) -> None:
    """The entry is in its extra data."""
    path = accepted(api)

    proof = LogProof.parse(api.client.get(f"{path}/receipt.tlog-proof").text)

    assert proof.extra is not None
    assert proof.verify(proof.extra, [log_key(api)]).size >= 6
    assert json.loads(proof.extra)["event"] == "erasure.accepted"


def test_people_read_a_page_without_scripts(api: Api) -> None:
    """Its own style and nothing else; the policy that goes with it allows just that."""
    path = accepted(api)

    response = api.client.get(f"{path}/receipt.html")

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == CSP
    text = response.text
    assert "Receipt, not final" in text
    assert "What this does not cover" in text
    assert not re.search(r"<script|http|src=|\son\w+=|canary", text)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in CSP


@pytest.fixture
def erased(api: Api, tmp_path: Path) -> str:
    """The path of an erasure that is erased: a user with likes, and one of another's."""
    identity = load_identity(api.settings)
    domains = Domains(api.database, settings=api.settings, identity=identity)
    domains.record(*((f"canary-{user}", f"canary-i{item}") for user in range(8) for item in range(6)))
    named = {"users": ["canary-1"], "interactions": [{"user_id": "canary-2", "item_id": "canary-i1"}]}
    document = api.client.post("/v1/erasures", json=named).raise_for_status().json()
    (tmp_path / "opening").write_text(json.dumps(named | {"salt": document["salt"]}))
    Compacted(domains, tmp_path).erase(document["id"])
    return str(document["links"]["self"])


@pytest.mark.P7
@pytest.mark.P8
def test_the_receipt_of_what_is_erased_is_final_and_has_evidence(api: Api, erased: str) -> None:
    """Exact, with what was searched and what was not; it names nobody, and comes again to the byte."""
    receipt = Receipt.parse(api.client.get(f"{erased}/receipt").content)
    found = verify(receipt, [log_key(api)])

    assert (found.statement["status"], found.statement["final"]) == ("erased", True)
    assert found.statement["guarantee"]["kind"] == "exact"
    assert found.evidence is not None
    assert found.absence is not None
    assert (found.absence.targets, found.absence.shown) == (2, 2)
    assert found.entries[-1]["body"]["evidence"] == hashlib.sha256((receipt.evidence or "").encode()).hexdigest()
    assert "canary" not in receipt.json().decode()
    assert Receipt.parse(api.client.get(f"{erased}/receipt.json").content) == receipt


def test_the_page_of_what_is_erased_tells_all_of_it(api: Api, erased: str) -> None:
    """In plain words, with what was not searched and why."""
    text = api.client.get(f"{erased}/receipt.html").text

    for words in (
        "Final receipt",
        "What the model was trained on",
        "Of 2 targets named, 2 are proven not to be in it.",
        "Model trained from scratch",
        "What was searched",
        "Logs of the service",
        "not searched",
        "It is not kept by the service.",
        "What the search does not reach",
        "What this does not cover",
        DATASET_HASH,
    ):
        assert words in text
    assert not re.search(r"<script|http|src=|\son\w+=|canary", text)


def test_other_forms_prove_that_it_is_erased(api: Api, erased: str) -> None:
    """The last entry of the log about it, with the hash of the evidence."""
    receipt = Receipt.parse(api.client.get(f"{erased}/receipt").content)
    proof = LogProof.parse(api.client.get(f"{erased}/receipt.tlog-proof").text)
    data = api.client.get(f"{erased}/receipt.cose").content
    public = Ed25519PublicKey.from_public_bytes(log_key(api).public)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    assert proof.extra is not None
    proof.verify(proof.extra, [log_key(api)])
    assert json.loads(proof.extra)["event"] == "erasure.erased"
    assert verify_receipt(data, leaf_entry_hex=receipt.entries[-1].text.encode().hex(), log_public_key_pem=pem).ok


def test_an_auditor_checks_it_by_name(
    api: Api, erased: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the training key that an officer gave out, and what the caller kept; with another base's, it is refused."""
    (tmp_path / "receipt").write_bytes(api.client.get(f"{erased}/receipt").content)
    manifest = {"dataset_hash": DATASET_HASH}
    for number in (BASE, BASE + 1):
        row = {
            "version": number,
            "kind": "base",
            "status": "ready",
            "base": number,
            "erasure_seq": 0,
            "manifest": manifest,
            "created_at": datetime(2026, 11, 25, tzinfo=UTC),
        }
        api.database.transact(lambda write, row=row: write.execute(versions.insert().values(**row)))
    home = ("--home", str(api.settings.home))
    for number in (BASE, BASE + 1):
        assert main([*home, "audit", "training-key", "--base", str(number)]) == 0
        (tmp_path / f"key{number}").write_text(capsys.readouterr().out)
    words = ["receipt", "verify", str(tmp_path / "receipt"), "--key", str(log_key(api))]
    opening = ["--opening", str(tmp_path / "opening")]

    assert main([*words, *opening, "--training-key", str(tmp_path / f"key{BASE}")]) == 0
    told = capsys.readouterr().out
    assert main([*words, *opening, "--training-key", str(tmp_path / f"key{BASE + 1}")]) == 1
    other = capsys.readouterr().err
    assert main([*words, "--training-key", str(tmp_path / f"key{BASE}")]) == 1
    unnamed = capsys.readouterr().err
    assert main([*words, *opening, "--training-key", str(tmp_path / "opening")]) == 1
    no_key = capsys.readouterr().err
    assert main([*home, "audit", "training-key", "--base", "99"]) == 1

    assert "is erased." in told
    assert "2 of 2 targets shown to be absent" in told
    assert "they are the targets of the opening given" in told
    assert "not searched     process_logs: It is not kept by the service." in told
    assert "REFUSED (wrong_training_key)" in other
    assert "--opening" in unnamed
    assert "holds no training key" in no_key
    assert "There is no base 99." in capsys.readouterr().err


def test_evidence_that_is_gone_is_told(api: Api, erased: str) -> None:
    """A receipt without it would prove nothing."""
    api.database.transact(lambda write: write.execute(erasure_evidence.delete()))

    response = api.client.get(f"{erased}/receipt")

    assert (response.status_code, response.json()["code"]) == (500, "log_damaged")


def test_a_receipt_of_nothing_is_refused(api: Api) -> None:
    """As the erasure itself is."""
    for form in ("", ".json", ".html", ".cose", ".tlog-proof"):
        response = api.client.get(f"/v1/erasures/0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e/receipt{form}")
        assert (response.status_code, response.json()["code"]) == (404, "erasure_not_found")


def test_a_key_gets_its_own_receipts_and_an_officer_all(api: Api) -> None:
    """Another key's is not even there."""
    path = accepted(api)
    stranger, officer = api.key(Scope.ERASE), api.key(Scope.OFFICER)
    for form in ("", ".json", ".html", ".cose", ".tlog-proof"):
        url = f"{api.url}{path}/receipt{form}"
        statuses = [
            httpx.get(url, headers=headers).status_code for headers in ({}, api.key(Scope.RECOMMEND), stranger, officer)
        ]
        assert statuses == [401, 403, 404, 200]
