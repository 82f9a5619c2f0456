"""HTTP as clients expect it, over every route of the description."""

import itertools
import json
import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import select

from service.app import create_app
from service.platform import tables
from service.platform.auth import Scope
from service.platform.conditional import none_match, strong_tags
from service.settings import SettingsError, load_settings
from tests.api.conftest import Api
from tests.api.test_application import OPEN, calls, concrete
from tests.api.test_erasures import forget
from tests.serving import serving

ORIGIN = "https://shop.example"
# What a database, a codec or a parser may stumble over.
HOSTILE = (
    "%00",
    "a%00b",
    "%ED%A0%80",
    "%FF",
    "%C3%28",
    "%EF%B7%90",
    "%0A",
    "%7F",
    "%E2%80%A8",
    "x" * 600,
    "9" * 5000,
    "-1",
    "1e400",
    "%F0%9F%98%80" * 20,
    "'%22;--",
    "..",
    "%2F",
)
ERASURE = "0190b3c6-7c5e-7c1f-9d0a-000000000000"


def raw_paths(path: str, value: str) -> str:
    return re.sub(r"\{[^}]+\}", lambda _: value, path)


def test_no_value_in_a_path_or_a_query_is_a_defect(both: Api) -> None:
    """Whatever is sent, the answer is a sentence of ours; the database never sees what it cannot take."""
    queries = ("n", "exclude", "cursor", "status", "limit", "erasure_id", "mode", "reason", "verbose")
    for method, path, _ in calls(both):
        targets = [raw_paths(path, value) for value in HOSTILE] if "{" in path else []
        plain = raw_paths(path, ERASURE)
        targets += [f"{plain}?{name}={value}" for name in queries for value in HOSTILE[:4]]
        for target in targets:
            answer = both.client.request(method, target)
            expected = {503} if answer.status_code == 503 else set(range(200, 500))
            assert answer.status_code in expected, (method, target[:80], answer.status_code)
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json", (method, target[:80])
                assert answer.json()["code"] != "internal_error"


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/v1/erasures/%00", "path/erasure_id"),
        ("/v1/users/%00/interactions", "path/user_id"),
        ("/v1/items/%00/similar", "path/item_id"),
        ("/v1/models/versions/%00", "path/version"),
        ("/v1/audit/entries?erasure_id=%00", "query/erasure_id"),
        ("/v1/erasures?cursor=%00", "query/cursor"),
        ("/v1/erasures?status=%00", "query/status"),
        ("/v1/users/u/recommendations?exclude=%00", "query/exclude/0"),
        ("/v1/users/u/recommendations?exclude=%ff", "query/exclude"),
    ],
)
def test_each_refusal_names_its_field(both: Api, path: str, pointer: str) -> None:
    """In paths, queries and cursors alike."""
    answer = both.client.get(path)

    assert answer.status_code in (400, 422)
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("headers", "pointer"),
    [
        ([("Idempotency-Key", "")], "header/Idempotency-Key"),
        ([("Idempotency-Key", "k" * 256)], "header/Idempotency-Key"),
        ([("Idempotency-Key", "one"), ("Idempotency-Key", "two")], "header/Idempotency-Key"),
    ],
)
def test_a_header_that_is_refused_is_named(api: Api, headers: list[tuple[str, str]], pointer: str) -> None:
    """By its name, as it is written."""
    answer = api.client.delete("/v1/users/u1", headers=[*api.client.headers.items(), *headers])

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


BODY = "/v1/erasures"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"users": ["u1",]}', "line 1, column 17"),
        (b'{\n  "users": ["u1"],\n  nobody\n}', "line 3, column 3"),
        (b'{"users": ["\xff"]}', "line 1, column 13"),
        (b'{"users": NaN}', "NaN"),
        (b'{"users": [-Infinity]}', "Infinity"),
        (b'{"users": 1e999}', "too large"),
        (b'{"users": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"[" * 100_000, "Nested too deeply"),
        (b'{"users": ["u1"]} trailing', "line 1, column 19"),
    ],
)
def test_malformed_json_is_told_by_its_place(api: Api, content: bytes, said: str) -> None:
    """400, as documented, without a word of what was sent."""
    answer = api.client.post(BODY, content=content, headers={"Content-Type": "application/json"})

    body = answer.json()
    assert (answer.status_code, body["code"]) == (400, "bad_request")
    assert said in body["detail"]
    assert [error["pointer"] for error in body["errors"]] == ["#"]
    assert "nobody" not in answer.text
    assert api.client.get("/v1/erasures").json()["erasures"] == []


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/json; charset=latin-1", None],
)
def test_another_type_of_body_is_refused(api: Api, media_type: str | None) -> None:
    """415, and nothing is read as if it were JSON."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    answer = api.client.post(BODY, content=b'{"users": ["u1"]}', headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert answer.json()["errors"][0]["pointer"] == "header/Content-Type"


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=UTF-8", "application/x+json"])
def test_json_is_read_whatever_its_type_is_called(api: Api, media_type: str) -> None:
    """A byte-order mark is passed over."""
    content = b'\xef\xbb\xbf{"users": ["u1"]}'

    assert api.client.post(BODY, content=content, headers={"Content-Type": media_type}).status_code == 202


def test_an_empty_body_says_that_one_is_needed(api: Api) -> None:
    """422, at the root."""
    answer = api.client.post(BODY)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#"


def test_nobody_without_a_key_has_a_body_read(api: Api) -> None:
    """401 comes before 400, 415 and 422, on every route that takes a body."""
    takes_body = [(method, path) for method, path, operation in calls(api) if "requestBody" in operation]
    assert takes_body
    for method, path in takes_body:
        for content in (b"{", b"{}", b"x" * 1000):
            headers = {"Content-Type": "application/json"}
            answer = httpx.request(method, api.url + concrete(path), content=content, headers=headers, timeout=20)
            assert answer.status_code == 401, (method, path)


def test_malformed_json_is_documented(api: Api) -> None:
    """On every route that takes a body."""
    for method, path, operation in calls(api):
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= set(operation["responses"]), (method, path)


def test_head_is_get_without_its_body(api: Api) -> None:
    """Everywhere, with the same headers."""
    for method, path, _ in calls(api):
        if method != "GET":
            continue
        got, head = (api.client.request(name, concrete(path)) for name in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path
        if path not in ("/metrics", "/readyz"):  # they differ from call to call
            assert abs(int(head.headers["content-length"]) - len(got.content)) <= 1, path
    assert api.client.head("/v1/erasures", headers={"Authorization": "Bearer nonsense"}).status_code == 401
    assert api.client.head("/nowhere").status_code == 404


def test_allow_names_every_method_of_an_address(api: Api) -> None:
    """On 405 and for OPTIONS, which needs no key."""
    by_path: dict[str, set[str]] = {}
    for method, path, _ in calls(api):
        by_path.setdefault(concrete(path), set()).add(method)
    for path, methods in by_path.items():
        expected = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        # An address below a template with a PATCH of its own, such as a preview, is taken for one of those.
        refused = api.client.request("PUT" if path.startswith("/v1/erasures") else "PATCH", path)
        asked = httpx.options(api.url + path, timeout=20)
        assert refused.status_code == 405, path
        assert asked.status_code == 204, path
        assert {*refused.headers["allow"].split(", ")} == {*asked.headers["allow"].split(", ")} == expected, path
    assert httpx.options(api.url + "/nowhere", timeout=20).status_code == 404


@pytest.mark.parametrize("path", ["/v1/erasures/", "//v1/erasures", "/v1//erasures", "/v1/erasures//"])
def test_slashes_too_many_are_not_found_and_say_where_to_go(api: Api, path: str) -> None:
    """No redirect, which would name a host that the caller made up and lose the body."""
    answer = httpx.get(api.url + path, headers={"Host": "evil.example"}, timeout=20)

    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert "/v1/erasures." in answer.json()["detail"]


def test_the_address_meant_is_told_without_its_ids(api: Api) -> None:
    """By the template of its route."""
    answer = api.client.get("/v1/users/canary/interactions/")

    assert "/v1/users/{user_id}/interactions" in answer.json()["detail"]
    assert "canary" not in answer.text


def test_no_other_origin_is_let_in_by_default(api: Api) -> None:
    """No header of CORS comes, and browsers refuse."""
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "DELETE"}
    for answer in (api.client.options("/v1/users/u1", headers=asked), api.client.get("/livez", headers=asked)):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_named_origins_may_call(api: Api) -> None:
    """Preflights are answered before any key is asked for; errors can be read by the page as well."""
    given = api.settings.model_copy(update={"cors_origins": (ORIGIN,)})
    with serving(create_app(given)) as url, httpx.Client(base_url=url, timeout=20) as page:
        page.headers["Origin"] = ORIGIN
        wanted = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization, prefer"}
        preflight = page.options("/v1/users/u1", headers=wanted)
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        assert "DELETE" in preflight.headers["access-control-allow-methods"]

        refused = page.delete("/v1/users/u1")
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        assert "Location" in refused.headers["access-control-expose-headers"]

        stranger = page.options("/v1/users/u1", headers={**wanted, "Origin": "https://evil.example"})
        assert (stranger.status_code, stranger.json()["code"]) == (403, "origin_not_allowed")
        odd = page.options("/v1/users/u1", headers={**wanted, "Access-Control-Request-Headers": "x-odd"})
        assert (odd.status_code, odd.json()["code"]) == (400, "bad_request")


def test_origins_are_read_from_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parted by commas; any origin together with credentials is refused."""
    monkeypatch.setenv("EXPUNGE_CORS_ORIGINS", f"{ORIGIN}, http://localhost:3000")
    assert load_settings().cors_origins == (ORIGIN, "http://localhost:3000")

    for origins, credentials, said in (
        ("*", "true", "EXPUNGE_CORS_CREDENTIALS"),
        ("shop.example", "false", "EXPUNGE_CORS_ORIGINS"),
        (f"{ORIGIN}/", "false", "EXPUNGE_CORS_ORIGINS"),
    ):
        monkeypatch.setenv("EXPUNGE_CORS_ORIGINS", origins)
        monkeypatch.setenv("EXPUNGE_CORS_CREDENTIALS", credentials)
        with pytest.raises(SettingsError, match=said):
            load_settings()


@pytest.mark.parametrize(
    ("field", "matches"),
    [
        ('"v1-a"', True),
        ('W/"v1-a"', True),
        ('"other", W/"v1-a"', True),
        ('"other" ,"v1-a"', True),
        ("*", True),
        ('"v1-ab"', False),
        ('"v1"', False),
        ("v1-a", False),
        ('"xW/"v1-a""', False),
        ("", False),
    ],
)
def test_if_none_match_is_compared_weakly(field: str, matches: bool) -> None:
    """A tag is the same with and without `W/`; part of one is another."""
    assert none_match([field], 'W/"v1-a"') is matches
    assert none_match([field], '"v1-a"') is matches


def test_if_match_is_compared_strongly() -> None:
    """Weak tags never match."""
    assert strong_tags('"v1", W/"v2", "v3"') == {'"v1"', '"v3"'}
    assert strong_tags("v1") == frozenset()


def test_a_replay_tells_the_present_state(both: Api) -> None:
    """And that it is one; nothing is stored twice."""
    headers = {"Idempotency-Key": "k1"}
    first = both.client.delete("/v1/users/u1", headers=headers)
    again = both.client.delete("/v1/users/u1", headers=headers)
    forget(both.database, first.json()["id"])
    later = both.client.delete("/v1/users/u1", headers=headers)
    waited = both.client.delete("/v1/users/u1", headers={**headers, "Prefer": "wait=5"})

    assert (first.status_code, first.json()["status"], first.json()["replayed"]) == (202, "accepted", False)
    assert "idempotency-replayed" not in first.headers
    assert (again.status_code, again.json()["status"], again.json()["replayed"]) == (202, "accepted", True)
    for answer in (later, waited):
        body = answer.json()
        assert (answer.status_code, body["status"], body["replayed"]) == (200, "forgotten", True)
        assert (body["id"], body["version_after"]) == (first.json()["id"], 2)
        assert answer.headers["idempotency-replayed"] == "true"
        assert answer.headers["location"] == first.headers["location"]
    stored = both.database.query(lambda read: read.execute(select(tables.erasures.c.id)).all())
    assert len(stored) == 1


def test_a_replay_of_a_cancelled_erasure_says_so(api: Api) -> None:
    """Who sends it again must not believe that it is under way."""
    headers = {"Idempotency-Key": "k1"}
    first = api.client.delete("/v1/users/u1", headers=headers).json()
    api.client.delete(f"/v1/erasures/{first['id']}").raise_for_status()

    assert api.client.delete("/v1/users/u1", headers=headers).json()["status"] == "cancelled"


ROUTES = {
    ("GET", "/v1/users/{user_id}/recommendations"): Scope.RECOMMEND,
    ("POST", "/v1/recommendations"): Scope.RECOMMEND,
    ("GET", "/v1/items/{item_id}/similar"): Scope.RECOMMEND,
    ("POST", "/v1/interactions"): Scope.WRITE,
    ("GET", "/v1/users/{user_id}/interactions"): Scope.READ,
    ("DELETE", "/v1/users/{user_id}"): Scope.ERASE,
    ("GET", "/v1/audit/entries"): Scope.AUDIT,
    ("PUT", "/v1/models/aliases/live"): Scope.ADMIN,
    ("PATCH", "/v1/erasures/{erasure_id}"): Scope.OFFICER,
}


def test_each_route_takes_its_scope_alone(api: Api) -> None:
    """And its description names it, in words and as what it secures."""
    operations = {(method, path): operation for method, path, operation in calls(api)}
    keys = {scope: api.key(scope) for scope in Scope}
    for (call, scope), given in itertools.product(ROUTES.items(), Scope):
        answer = httpx.request(call[0], api.url + concrete(call[1]), headers=keys[given], timeout=20)
        may = given in (scope, Scope.ADMIN) or (given, scope) == (Scope.OFFICER, Scope.AUDIT)
        assert (answer.status_code != 403) is may, (call, given)
    for (method, path), operation in operations.items():
        if path in OPEN:
            continue
        (scopes,) = (names for one in operation["security"] for names in one.values())
        assert scopes, (method, path)
        assert all(f"`{scope}`" in operation["description"] for scope in scopes), (method, path)
        if (method, path) in ROUTES:
            scope = ROUTES[method, path]
            also = [Scope.OFFICER] if scope is Scope.AUDIT else []
            assert scopes == [scope, *also], (method, path)


def test_ids_that_need_encoding_survive(api: Api) -> None:
    """What is refused is only what names nothing."""
    user = "a b/ü😀?#%"
    body: dict[str, Any] = {"interactions": [{"user_id": user, "item_id": "i"}]}
    api.client.post("/v1/interactions", content=json.dumps(body), headers={"Content-Type": "application/json"})

    shown = api.client.get(f"/v1/users/{quote(user, safe='')}/interactions").json()
    assert [one["item_id"] for one in shown["interactions"]] == ["i"]
