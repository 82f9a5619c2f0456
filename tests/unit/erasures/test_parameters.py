"""Reading how an erasure is asked for, from query and headers."""

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request

from service.erasures.modes import Mode
from service.erasures.parameters import ErasureParameters, parameters_of, wait_of


def request(query: str = "", **headers: str) -> Request:
    """A request with this query and these headers."""
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "query_string": query.encode(), "headers": raw, "path_params": {}})


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=5", 5),
        ("wait = 5", 5),
        ('wait="7"', 7),
        ("respond-async, wait=10", 10),
        ("Wait=2; x=y, return=minimal", 2),
        ("wait=0", 0),
        ("wait=31", 30),
        ("wait=999999999", 30),
        ("wait=9999999999999", 30),
        ("wait=00000000000004", 4),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("await=5", None),
        ("wait", None),
        ("", None),
    ],
)
def test_the_wait_that_a_header_prefers_is_read_and_bounded(prefer: str, seconds: int | None) -> None:
    """What is no wait in the sense of RFC 7240 is passed over, as that asks."""
    assert wait_of(prefer) == seconds


def test_everything_has_a_default() -> None:
    """A bare DELETE forgets, at once, without a key."""
    assert parameters_of(request()) == ErasureParameters()


def test_query_and_headers_are_read() -> None:
    """What is given twice, or not known, does not come this far (platform.declared)."""
    asked = parameters_of(request("mode=dislike&reason=moved%20away", idempotency_key="k", prefer="wait=3"))

    assert asked == ErasureParameters(Mode.DISLIKE, "moved away", "k", 3)


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("mode=FORGET", {}),
        ("mode=", {}),
        (f"reason={'x' * 501}", {}),
        ("reason=%00", {}),
        ("", {"idempotency_key": ""}),
        ("", {"idempotency_key": "k" * 256}),
    ],
)
def test_what_is_not_valid_is_refused(query: str, headers: dict[str, str]) -> None:
    """As the framework would refuse it."""
    with pytest.raises(RequestValidationError):
        parameters_of(request(query, **headers))
