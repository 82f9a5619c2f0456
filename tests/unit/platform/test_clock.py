from datetime import UTC, datetime, timedelta, timezone

from service.platform.clock import SystemClock, rfc3339


def test_now_is_aware_and_utc():
    """No instant of the service is naive."""
    assert SystemClock().now().tzinfo is UTC


def test_monotonic_time_never_runs_backwards():
    """Durations are differences of it."""
    clock = SystemClock()

    moments = [clock.monotonic() for _ in range(100)]

    assert moments == sorted(moments)


def test_instants_are_written_in_utc_with_microseconds():
    """One spelling, whatever zone an instant comes in."""
    instant = datetime(2026, 11, 21, 5, 0, tzinfo=timezone(timedelta(hours=2)))

    assert rfc3339(instant) == "2026-11-21T03:00:00.000000Z"
