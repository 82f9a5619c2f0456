"""Receipts over HTTP, in every form, checked by what did not make them."""

import base64
import hashlib
import json
import re

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from scitt_cose.receipt import verify_receipt

from service.audit.tlog.note import VerifierKey
from service.audit.tlog.proof import LogProof
from service.platform.auth import Scope
from service.receipts.document import Receipt
from service.receipts.page import CSP
from service.receipts.verification import verify
from tests.api.conftest import Api


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
