"""Talking to a running service over REST, with every refusal as one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from service.cli.failures import Refusal
from service.cli.unreachable import explain_foreign, explain_unreachable, proxy_for

if TYPE_CHECKING:
    import httpx

WAIT_MAX_S = 30

Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="EXPUNGE_URL", help="Where the service answers.", show_default="http://127.0.0.1:8080"
    ),
]
Key = Annotated[str | None, typer.Option("--key", envvar="EXPUNGE_API_KEY", help="API key, exp_...")]

DEFAULT_URL = "http://127.0.0.1:8080"


class ServiceClient:
    """A service over REST. Every method raises Refusal when the service is away or says no."""

    def __init__(self, url: str, key: str | None, timeout_s: float = 10.0) -> None:
        import httpx

        self._httpx = httpx
        headers = {} if key is None else {"Authorization": f"Bearer {_sent_as(key)}"}
        self._url, self._timeout_s = url.strip().rstrip("/"), timeout_s
        try:
            self._proxy = proxy_for(self._url)
            # The environment's proxies are chosen above: to this machine itself there is none.
            verify = httpx.create_ssl_context() if self._url.startswith("https:") else False
            self._http = httpx.Client(
                base_url=self._url,
                headers=headers,
                timeout=timeout_s,
                proxy=self._proxy,
                trust_env=False,
                verify=verify,
            )
        except ImportError as error:
            msg = f"The proxy of the environment is of a kind that needs another package ({error.name or 'SOCKS'})."
            raise Refusal(msg) from error
        except OSError as error:
            msg = f"The certificates of SSL_CERT_FILE cannot be read ({error.strerror})."
            raise Refusal(msg) from error
        except (httpx.InvalidURL, ValueError) as error:
            msg = "That is no URL of a service, or of a proxy. Give one as http://127.0.0.1:8080."
            raise Refusal(msg) from error

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def ready(self) -> Mapping[str, Any]:
        """The readiness document, whether or not the service is ready."""
        return self._json(self._send("GET", "/readyz", params={"verbose": "1"}))

    def recommendations(self, user_id: str, n: int = 10, *, exclude_seen: bool = True) -> Mapping[str, Any]:
        """The top n items of a user."""
        params = {"n": n, "exclude_seen": str(exclude_seen).lower()}
        return self._ok("GET", f"/v1/users/{quote(user_id, safe='')}/recommendations", params=params)

    def interactions(self, user_id: str) -> list[Mapping[str, Any]]:
        """Everything that is recorded of a user."""
        return list(self.pages(f"/v1/users/{quote(user_id, safe='')}/interactions", "interactions"))

    def erase(
        self, body: Mapping[str, Any], *, idempotency_key: str | None = None, wait_s: int = 0
    ) -> Mapping[str, Any]:
        """Ask for an erasure, and wait up to `wait_s` (at most 30) seconds until the model has forgotten it."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        if wait_s:
            headers["Prefer"] = f"wait={min(wait_s, WAIT_MAX_S)}"
        return self._ok("POST", "/v1/erasures", json=body, headers=headers, timeout=10.0 + min(wait_s, WAIT_MAX_S))

    def preview(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """How far an erasure of this body would reach; nothing is stored."""
        return self._ok("POST", "/v1/erasures/preview", json=body, timeout=60.0)

    def erasure(self, erasure_id: str) -> Mapping[str, Any]:
        """How far an erasure is."""
        return self._ok("GET", f"/v1/erasures/{erasure_id}")

    def owed(self, before: str) -> list[Mapping[str, Any]]:
        """The erasures that are still to be erased, by a `due_at` before an instant (RFC 3339); the earliest first."""
        found = self.pages("/v1/erasures", "erasures", {"due_before": before, "limit": 500})
        return sorted(found, key=lambda erasure: (erasure["due_at"], erasure["id"]))

    def held(self) -> list[Mapping[str, Any]]:
        """The erasures under legal hold, the newest first."""
        return list(self.pages("/v1/erasures", "erasures", {"legal_hold": "true", "limit": 500}))

    def version(self, number: int) -> Mapping[str, Any]:
        """One version of the model."""
        return self._ok("GET", f"/v1/models/versions/{number}")

    def compact(self) -> Mapping[str, Any]:
        """Ask for a compaction; the one that waits or runs already is the answer."""
        return self._ok("POST", "/v1/models/compactions")

    def compaction(self, compaction_id: str) -> Mapping[str, Any]:
        """How far a compaction is."""
        return self._ok("GET", f"/v1/models/compactions/{compaction_id}")

    def audit(self, erasure_id: str | None = None) -> Iterator[Mapping[str, Any]]:
        """Entries of the audit log, the oldest first."""
        params = {} if erasure_id is None else {"erasure_id": erasure_id}
        return self.pages("/v1/audit/entries", "entries", params)

    def content(self, path: str, **params: Any) -> bytes:
        """The bytes of an answer that is not JSON."""
        response = self._send("GET", path, params=params)
        if response.is_success:
            return response.content
        raise Refusal(_sentence(response))

    def log_keys(self) -> Mapping[str, Any]:
        """The log's name and its public keys."""
        return self._ok("GET", "/v1/audit/keys")

    def pages(self, path: str, name: str, params: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
        """Every element of a list, page after page."""
        page = self._ok("GET", path, params=dict(params or {}))
        yield from page[name]
        while page.get("next"):
            page = self._ok("GET", page["next"])
            yield from page[name]

    def _ok(self, method: str, path: str, **options: Any) -> Mapping[str, Any]:
        response = self._send(method, path, **options)
        if response.is_success:
            return self._json(response)
        raise Refusal(_sentence(response) or explain_foreign(response, self._url, self._proxy))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        httpx = self._httpx
        try:
            return self._http.request(method, path, **options)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            msg = "That is no URL of a service. Give one as http://127.0.0.1:8080."
            raise Refusal(msg) from error
        except (httpx.HTTPError, OSError) as error:
            raise Refusal(explain_unreachable(error, self._url, self._proxy, self._timeout_s)) from error

    def _json(self, response: httpx.Response) -> Mapping[str, Any]:
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise Refusal(explain_foreign(response, self._url, self._proxy))
        return document


def _sent_as(key: str) -> str:
    """A key as it goes into a header, spaces and line ends around it aside; raises Refusal where it can be no key."""
    bare = key.strip()
    if not all("!" <= character <= "~" for character in bare):
        msg = "The API key holds characters that no key has (a space, a line end, a letter not of ASCII). Copy it anew."
        raise Refusal(msg)
    if not bare:
        msg = "The API key is empty. Give one with --key or EXPUNGE_API_KEY."
        raise Refusal(msg)
    return bare


def _sentence(response: httpx.Response) -> str:
    """What a problem+json answer says, in one line; nothing where the answer is none of ours."""
    try:
        problem = response.json()
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return ""
    errors = "; ".join(f"{error['pointer']}: {error['detail']}" for error in problem.get("errors", ())[:3])
    return f"{detail} ({errors})" if errors else detail
