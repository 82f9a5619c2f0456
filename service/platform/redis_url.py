"""Addresses of Redis: what can be said about one before anybody connects."""

from urllib.parse import SplitResult, unquote, urlsplit

_SCHEMES = ("redis", "rediss", "unix")


def check_redis_url(text: str) -> None:
    """Make sure that a text can be the address of a server.

    Raises:
        ValueError: with what it must be; it does not repeat the text, which may hold a password.
    """
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        msg = "must have a port from 1 to 65535, and :/?#[]@% in a password written as %XX"
        raise ValueError(msg) from None
    if url.scheme not in _SCHEMES or not text.startswith(f"{url.scheme}://"):
        msg = "must begin with redis://, rediss:// or unix://"
        raise ValueError(msg)
    if url.fragment or "#" in text:
        msg = "must not hold #: in a password it is written %23"
        raise ValueError(msg)
    _check_unix(url) if url.scheme == "unix" else _check_tcp(url, port)


def _check_unix(url: SplitResult) -> None:
    path = unquote(url.path)
    if url.hostname or not path.startswith("/") or path == "/" or "\0" in path:
        msg = "must name a socket by its absolute path: unix:///run/valkey.sock"
        raise ValueError(msg)


def _check_tcp(url: SplitResult, port: int | None) -> None:
    if not url.hostname:
        msg = "must name a host: redis://host:6379/0"
        raise ValueError(msg)
    if port == 0:
        msg = "must have a port from 1 to 65535"
        raise ValueError(msg)
    number = unquote(url.path).strip("/")
    if number and not (number.isascii() and number.isdigit()):
        msg = "must end with the number of a database, as redis://host:6379/0"
        raise ValueError(msg)
