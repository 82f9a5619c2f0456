"""How units of work are tried again: bounded, with jitter, counted, and only for errors that may pass."""

from collections.abc import Iterator

import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from service.platform import metrics
from service.platform.database_errors import is_transient

ATTEMPTS = 6
LONGEST_S = 10.0


def attempts() -> Iterator[stamina.Attempt]:
    """Attempts at one unit: `for attempt in attempts(): with attempt: ...`; six at most, ten seconds in all."""
    return iter(
        stamina.retry_context(
            on=is_transient, attempts=ATTEMPTS, timeout=LONGEST_S, wait_initial=0.01, wait_max=0.5, wait_jitter=0.05
        )
    )


def _count(details: RetryDetails) -> None:
    cause = details.caused_by
    metrics.retries_total.labels(type(getattr(cause, "orig", cause)).__name__).inc()


# In place of the package's own hooks, whose log lines quote texts of exceptions.
set_on_retry_hooks([_count])
