"""Why a service could not be reached, or did not answer as one: the true cause, in a sentence."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    import httpx

PROBE_S = 2.0
PROXY = "EXPUNGE_PROXY"
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH})


def proxy_for(url: str) -> str | None:
    """The proxy to go through: EXPUNGE_PROXY where it is set; else the environment's, and none to this machine."""
    asked = os.environ.get(PROXY)
    if asked:
        return asked
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    return found if found is None or "://" in found else f"http://{found}"


def explain_unreachable(error: BaseException, url: str, proxy: str | None, timeout_s: float) -> str:
    """The sentence for an error of the transport; `proxy` is the one that was gone through."""
    import httpx

    parts = urlsplit(url)
    where = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    causes = list(_causes(error))
    if isinstance(error, httpx.ProxyError) or (proxy is not None and isinstance(error, httpx.ConnectError)):
        what = f"The proxy {_without_password(proxy or '')}, which the environment names, fails on the way to {where}"
        return f"{what} ({type(causes[-1]).__name__}). Correct it, or put {parts.hostname} into NO_PROXY."
    for cause in causes:
        match cause:
            case ssl.SSLCertVerificationError():
                return (
                    f"The certificate of {where} is not trusted: {cause.verify_message}. Name the host as in the "
                    "certificate, or set SSL_CERT_FILE to the certificate of its authority."
                )
            case ssl.SSLError():
                return (
                    f"{where} does not speak TLS, or another version of it. If it is plain, begin --url with http://."
                )
            case socket.gaierror():
                return f"The host {parts.hostname} is not known. Correct --url, or your DNS."
            case ConnectionRefusedError():
                return f"Nothing listens at {where}. Start a service with `expunge serve`, or name another with --url."
            case OSError() if cause.errno in _NO_ROUTE:
                return f"There is no route to {where} ({cause.strerror}). Correct --url, or your network."
    if isinstance(error, httpx.ConnectTimeout):
        return f"{where} takes no connection within {timeout_s:g} s: a firewall, or a host that is off. Correct --url."
    if isinstance(error, httpx.TimeoutException):
        return f"The service at {url} does not answer in time. Try again, or look at its /readyz?verbose=1."
    if parts.scheme == "http" and _speaks_tls(parts):
        return f"{where} speaks TLS. Begin --url with https://."
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return f"Something else than HTTP is spoken at {where}. Name the service's port with --url."
    return f"{where} takes the connection and ends it without an answer: it stops just now, or is no service."


def explain_foreign(response: httpx.Response, url: str, proxy: str | None) -> str:
    """The sentence for an answer that is not one of ours."""
    status = response.status_code
    if proxy is not None and status in (403, 407, 502, 503, 504):
        return (
            f"The proxy {_without_password(proxy)} answers {status} in place of the service: correct it, or NO_PROXY."
        )
    if response.is_redirect:
        target = urlsplit(response.headers.get("location", "")).netloc
        return f"{url} sends on to {target or 'another address'}: name the service itself with --url."
    name = response.headers.get("server", "")
    itself = f" (it calls itself {name[:40]})" if name.isprintable() and name else ""
    if status in (401, 403):
        return f"What answers at {url} refuses with {status} and is not Expunge{itself}: something stands before it."
    return f"What answers at {url} speaks HTTP but is not Expunge{itself}: status {status}. Name another with --url."


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _speaks_tls(parts: SplitResult) -> bool:
    # No certificate is looked at: nothing is sent, the only question is whether a handshake is understood.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 80), PROBE_S) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return True
    except OSError:
        return False


def _without_password(proxy: str) -> str:
    parts = urlsplit(proxy)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname or "")
