"""The audit log over HTTP."""

import base64
import hashlib
import json

import httpx
import pytest
import rfc8785
from tlog_scales import signing, tlog
from tlog_scales.reader import TilesReader

from service.audit import repository
from service.audit.schemas import AuditPage, ConsistencyProof, InclusionProof
from service.platform.auth import Scope
from tests.api.conftest import Api


def test_every_transition_is_told_in_order(api: Api) -> None:
    """Acceptance and cancellation, found by the erasure's own link."""
    first = api.client.delete("/v1/users/u1").json()
    api.client.delete("/v1/items/a").raise_for_status()
    api.client.delete(first["links"]["self"]).raise_for_status()

    page = AuditPage.model_validate_json(api.client.get("/v1/audit/entries").content)
    own = api.client.get(first["links"]["audit"]).json()["entries"]

    assert [entry.event for entry in page.entries] == ["erasure.accepted", "erasure.accepted", "erasure.cancelled"]
    assert [entry.seq for entry in page.entries] == [1, 2, 3]
    assert [entry["seq"] for entry in own] == [1, 3]
    assert own[0]["body"]["targets"] == {"interactions": 0, "items": 0, "users": 1}


@pytest.mark.P7
def test_anybody_can_compute_the_leaf_of_an_entry(api: Api) -> None:
    """From what is shown, without its hash: canonical JSON, a zero byte before it, SHA-256."""
    api.client.delete("/v1/users/u1").raise_for_status()

    entry = api.client.get("/v1/audit/entries").json()["entries"][0]

    leaf = entry.pop("leaf_hash")
    assert hashlib.sha256(b"\0" + rfc8785.dumps(entry)).hexdigest() == leaf


def test_pages_are_followed_by_their_links(api: Api) -> None:
    """Of all entries, and of those of one erasure."""
    first = api.client.delete("/v1/users/u1").json()
    for number in range(4):
        api.client.delete(f"/v1/users/v{number}").raise_for_status()
    api.client.delete(first["links"]["self"]).raise_for_status()

    def follow(path: str | None) -> list[int]:
        seen: list[int] = []
        while path is not None:
            page = api.client.get(path).json()
            seen += [entry["seq"] for entry in page["entries"]]
            path = page["next"]
        return seen

    assert follow("/v1/audit/entries?limit=4") == [1, 2, 3, 4, 5, 6]
    assert follow(f"/v1/audit/entries?limit=1&erasure_id={first['id']}") == [1, 6]


@pytest.mark.P8
def test_the_log_says_nothing_of_a_person(api: Api) -> None:
    """Neither an id nor the reason that somebody gave."""
    body = {
        "interactions": [{"user_id": "canary-1", "item_id": "canary-2"}],
        "users": ["canary-3"],
        "reason": "canary-4",
    }
    api.client.post("/v1/erasures", json=body).raise_for_status()

    assert "canary" not in api.client.get("/v1/audit/entries").text


def test_the_log_is_for_auditors(api: Api) -> None:
    """The scope audit, or admin."""
    with httpx.Client(base_url=api.url) as caller:
        statuses = [
            caller.get("/v1/audit/entries", headers=headers).status_code
            for headers in ({}, api.key(Scope.ERASE, Scope.RECOMMEND), api.key(Scope.AUDIT), api.key(Scope.ADMIN))
        ]

    assert statuses == [401, 403, 200, 200]


@pytest.mark.parametrize(
    ("query", "code"),
    [("cursor=AAAA", "invalid_cursor"), ("limit=0", "invalid_request"), ("limit=1001", "invalid_request")],
)
def test_a_page_that_makes_no_sense_is_refused(api: Api, query: str, code: str) -> None:
    """With what is wrong."""
    response = api.client.get(f"/v1/audit/entries?{query}")

    assert (response.status_code, response.json()["code"]) == (422, code)


class Tiles:
    """The log over HTTP, for a reader that nobody here wrote."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def get(self, *path: str) -> bytes | None:
        response = self.api.client.get("/v1/audit/" + "/".join(path))
        return response.content if response.status_code == 200 else None


def keys_of(api: Api) -> list[signing.Vkey]:
    """The log's keys, without an API key."""
    published = httpx.get(f"{api.url}/v1/audit/keys").json()
    return [signing.Vkey.from_string(key["vkey"]) for key in published["keys"]]


@pytest.mark.P7
def test_a_reader_of_tiled_logs_verifies_the_whole_log(api: Api) -> None:
    """Checkpoint, tiles and bundles of entries: C2SP's layout, its own implementation."""
    body = {"interactions": [], "users": ["u"]}
    for _ in range(300):
        api.client.post("/v1/erasures", json=body).raise_for_status()

    reader = TilesReader(Tiles(api))
    checkpoint = reader.get_checkpoint()

    checkpoint.verify(keys_of(api)[0])
    assert checkpoint.size == 300
    assert reader.calculate_root_hash() == checkpoint.root_hash
    entry = json.loads(reader.get_entry(299))
    assert (entry["seq"], entry["event"]) == (300, "erasure.accepted")
    proof = reader.get_inclusion_proof(299, 300)
    proof.check(hashlib.sha256(b"\0" + reader.get_entry(299)).digest(), checkpoint.root_hash)


@pytest.mark.P7
def test_proofs_verify_elsewhere(api: Api) -> None:
    """Inclusion and consistency, as the API gives them."""
    for number in range(20):
        api.client.delete(f"/v1/users/u{number}").raise_for_status()
    older = tlog.Checkpoint.from_text(api.client.get("/v1/audit/checkpoint").text)
    api.client.delete("/v1/users/last").raise_for_status()

    included = InclusionProof.model_validate_json(api.client.get("/v1/audit/proofs/inclusion?index=7").content)
    grown = ConsistencyProof.model_validate_json(api.client.get("/v1/audit/proofs/consistency?old_size=20").content)

    newer = tlog.Checkpoint.from_text(grown.checkpoint)
    newer.verify(keys_of(api)[0])
    hashes = [base64.b64decode(each) for each in grown.hashes]
    tlog.ConsistencyProof(20, 21, hashes).check(older.root_hash, newer.root_hash)
    path = [base64.b64decode(each) for each in included.hashes]
    tlog.InclusionProof(7, included.size, path).check(base64.b64decode(included.leaf_hash), newer.root_hash)


def test_keys_are_public_and_the_rest_is_for_auditors(api: Api) -> None:
    """What others check with is no secret."""
    jwks = httpx.get(f"{api.url}/v1/audit/jwks.json").json()
    assert [key["crv"] for key in jwks["keys"]] == ["Ed25519"]
    for path in ("checkpoint", "tile/0/000", "proofs/inclusion?index=0", "proofs/consistency?old_size=0"):
        assert httpx.get(f"{api.url}/v1/audit/{path}").status_code == 401
        assert httpx.get(f"{api.url}/v1/audit/{path}", headers=api.key(Scope.ERASE)).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tile/0/000", 404),  # not full
        ("tile/0/000.p/4", 404),
        ("tile/0/000.p/3", 200),
        ("tile/entries/000.p/3", 200),
        ("tile/1/000", 404),
        ("tile/64/000", 422),
        ("tile/x/000", 422),
        ("tile/0/nonsense", 404),
        ("tile/0/x999/x999/x999/x999/x999/x999/999", 404),
        ("proofs/inclusion?index=3", 422),
        ("proofs/inclusion?index=-1", 422),
        ("proofs/inclusion", 422),
        ("proofs/consistency?old_size=4", 422),
        ("proofs/consistency?old_size=1&size=9", 422),
        ("proofs/consistency?old_size=99999999999999999999", 422),
    ],
)
def test_what_the_log_has_not_is_told(api: Api, path: str, status: int) -> None:
    """Tiles that are not full yet, entries and sizes that never were."""
    for number in range(3):
        api.client.delete(f"/v1/users/u{number}").raise_for_status()

    response = api.client.get(f"/v1/audit/{path}")

    assert response.status_code == status
    assert status == 200 or response.headers["content-type"] == "application/problem+json"


def test_the_latest_stamped_head_is_told(api: Api) -> None:
    """None where no authority was asked; else the head and the stamp beside it."""
    none = api.client.get("/v1/audit/timestamp")
    api.client.delete("/v1/users/u1").raise_for_status()
    note = api.client.get("/v1/audit/checkpoint").text
    size = int(note.split("\n")[1])
    api.database.transact(lambda write: repository.set_timestamp(write, size, b"stamp"))
    told = api.client.get("/v1/audit/timestamp").json()

    assert (none.status_code, none.json()["code"]) == (404, "not_found")
    assert told == {"size": size, "checkpoint": note, "timestamp": base64.b64encode(b"stamp").decode()}
