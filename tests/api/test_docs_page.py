"""The page of the API's description: everything it needs comes from here, and it may ask for nothing else."""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx

from service.app import create_app
from tests.api.conftest import Api
from tests.serving import serving


class References(HTMLParser):
    """What a page loads, and what it runs or styles in line."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loaded += [str(given[name]) for name in ("src", "href") if name in given]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def policy_of(answer: httpx.Response) -> dict[str, str]:
    parts = answer.headers["content-security-policy"].split("; ")
    return {name: value for name, _, value in (part.partition(" ") for part in parts)}


def test_the_page_loads_from_this_service_alone(api: Api) -> None:
    """No key is needed, no script stands in the page, and every file is there."""
    page = httpx.get(f"{api.url}/docs", timeout=20)
    found = References()
    found.feed(page.text)

    assert page.status_code == 200
    assert not found.inline
    assert not re.findall(r"(?:https?:)?//[a-z]", page.text)
    needed = [one for one in found.loaded if not one.startswith("data:")]
    assert {"docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "docs/start.js", "openapi.json"} == set(needed)
    for one in needed:
        answer = httpx.get(urljoin(f"{api.url}/docs", one), timeout=20)
        assert answer.status_code == 200, one
        assert answer.headers["x-content-type-options"] == "nosniff"
        kind = "javascript" if one.endswith(".js") else "css" if one.endswith(".css") else "json"
        assert kind in answer.headers["content-type"]


def test_its_policy_lets_nothing_in_from_elsewhere(api: Api) -> None:
    """Neither scripts nor styles in line, nor any other host."""
    policy = policy_of(httpx.get(f"{api.url}/docs", timeout=20))

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not [value for value in policy.values() if "unsafe" in value or "http" in value or "*" in value]


def test_its_styles_and_its_start_name_no_other_host(api: Api) -> None:
    """What the large script could ask for, the policy refuses."""
    for name in ("swagger-ui.css", "start.js"):
        text = httpx.get(f"{api.url}/docs/{name}", timeout=20).text
        assert set(re.findall(r"https?://[^/\"')\s]+", text)) <= {"http://www.w3.org"}  # a namespace, not an address


def test_no_other_file_is_served(api: Api) -> None:
    """Neither the package's other files nor any path beside them."""
    for name in ("redoc.standalone.js", "favicon.png", "..%2f__init__.py", "%2e%2e", "nothing"):
        answer = httpx.get(f"{api.url}/docs/{name}", timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), name


def test_without_docs_neither_page_nor_files_are_there(api: Api) -> None:
    """EXPUNGE_DOCS=false."""
    with serving(create_app(api.settings.model_copy(update={"docs": False}))) as url:
        for path in ("/docs", "/docs/start.js", "/openapi.json"):
            assert httpx.get(url + path, timeout=20).status_code == 404
