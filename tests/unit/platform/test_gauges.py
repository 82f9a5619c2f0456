import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, update

from service.platform import gauges
from service.platform.database import Database
from service.platform.gauges import Scraper
from service.platform.redis import ErasureStream
from service.platform.tables import aliases, erasures, outbox, versions

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Noon:
    """A clock that stands."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def scraper(database: Database, stream: ErasureStream) -> Iterator[Scraper]:
    scraper = Scraper(database, stream, Noon())
    yield scraper
    scraper.close()


def scrape(scraper: Scraper) -> dict[str, float]:
    """Samples by name, with their labels where they have some."""
    found = {}
    for family in text_string_to_metric_families(scraper.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def add_erasure(database: Database, seq: int, status: str, age_s: float, **more: Any) -> None:
    received = NOW - timedelta(seconds=age_s)
    row = {
        "id": f"e{seq}",
        "seq": seq,
        "status": status,
        "mode": "forget",
        "requested": 1,
        "matched": 1,
        "commitment": "",
        "received_at": received,
        "due_at": received + timedelta(seconds=100),
        "key_id": "k",
        **more,
    }
    with database.write() as connection:
        connection.execute(insert(erasures).values(**row))
        connection.execute(insert(outbox).values(erasure_id=row["id"], created_at=received))


def add_version(database: Database, version: int, age_s: float = 0) -> None:
    manifest = {"files": {"embeddings.safetensors": {"sha256": "ab" * 32}}}
    with database.write() as connection:
        connection.execute(
            insert(versions).values(
                version=version,
                kind="base",
                status="ready",
                base=version,
                erasure_seq=0,
                manifest=manifest,
                created_at=NOW - timedelta(seconds=age_s),
            )
        )
        connection.execute(insert(aliases).values(name="live", version=version, moved_at=NOW))


def test_an_idle_service_shows_zeros(scraper: Scraper):
    """Every gauge is there from the start."""
    found = scrape(scraper)

    for name in (
        "backlog",
        "erasures_needing_attention",
        "erasure_oldest_pending_seconds",
        "erasure_requests_overdue",
        "erasures_held",
        "erasures_at_risk{used=0.5}",
        "erasures_at_risk{used=0.8}",
        "outbox_unpublished",
        "outbox_oldest_seconds",
        "stream_entries",
        "stream_pending_entries",
        "stream_oldest_pending_seconds",
        "dead_letters",
    ):
        assert found[f"expunge_{name}"] == 0, name
    assert found["expunge_scrape_up{source=sql}"] == found["expunge_scrape_up{source=stream}"] == 1


def test_what_waits_is_counted_and_its_age_told(database: Database, scraper: Scraper):
    """Accepted ones make the backlog; whatever is not erased may be overdue."""
    add_erasure(database, 1, "accepted", 150)
    add_erasure(database, 2, "accepted", 20)
    add_erasure(database, 3, "forgotten", 300)
    add_erasure(database, 4, "needs_attention", 10)
    add_erasure(database, 5, "erased", 900)
    add_erasure(database, 6, "cancelled", 900)

    found = scrape(scraper)

    assert found["expunge_backlog"] == 2
    assert found["expunge_erasure_oldest_pending_seconds"] == 150
    assert found["expunge_erasure_requests_overdue"] == 2
    assert found["expunge_erasures_needing_attention"] == 1


def test_what_is_at_risk_is_counted_by_the_share_of_its_time(database: Database, scraper: Scraper):
    """Of 100 seconds each; what is held, decided or over has no deadline, and a hold needs no operator."""
    for seq, age in enumerate((10, 50, 79, 80, 150), 1):
        add_erasure(database, seq, "forgotten", age)
    add_erasure(database, 6, "needs_attention", 90, held_since=NOW, needs="legal_hold")
    add_erasure(database, 7, "forgotten", 90, decision="partial")
    add_erasure(database, 8, "refused", 90, decision="refused")

    found = scrape(scraper)

    assert found["expunge_erasures_at_risk{used=0.5}"] == 4
    assert found["expunge_erasures_at_risk{used=0.8}"] == 2
    assert found["expunge_erasure_due_window_used_ratio"] == 1.5
    assert found["expunge_erasure_requests_overdue"] == 1
    assert (found["expunge_erasures_held"], found["expunge_erasures_needing_attention"]) == (1, 0)


def test_the_outbox_shows_what_is_not_published(database: Database, scraper: Scraper):
    """And how long the oldest waits."""
    add_erasure(database, 1, "accepted", 70)
    add_erasure(database, 2, "accepted", 40)
    with database.write() as connection:
        connection.execute(update(outbox).where(outbox.c.erasure_id == "e1").values(published_at=NOW))

    found = scrape(scraper)

    assert (found["expunge_outbox_unpublished"], found["expunge_outbox_oldest_seconds"]) == (1, 40)


def test_a_clock_that_stepped_back_shows_no_negative_age(database: Database, scraper: Scraper):
    """An erasure from the future is zero seconds old."""
    add_erasure(database, 1, "accepted", -3600)

    assert scrape(scraper)["expunge_erasure_oldest_pending_seconds"] == 0


def test_the_live_version_is_told(database: Database, scraper: Scraper):
    """Number, algorithm, checksum, age."""
    add_version(database, 42, age_s=60)

    found = scrape(scraper)

    assert found["expunge_model_version_info{algorithm=base,checksum=abababababababab,version=42}"] == 1
    assert found["expunge_model_age_seconds"] == 60


def test_the_stream_is_told(stream: ErasureStream, scraper: Scraper):
    """Length, pending, dead letters."""
    stream.publish(["a", "b", "c"])
    message, _ = stream.read(count=2, block_ms=10)
    stream.dead_letter(message, "x")

    found = scrape(scraper)

    assert (found["expunge_stream_entries"], found["expunge_stream_pending_entries"]) == (2, 1)
    assert found["expunge_dead_letters"] == 1
    assert found["expunge_stream_up"] == 1


def test_a_stream_that_is_away_leaves_the_others(database: Database):
    """SQL's gauges are there, and the stream is said to be down."""
    away = ErasureStream("unix:///none.sock", stream="s", group="g", consumer="c")
    scraper = Scraper(database, away, Noon())

    found = scrape(scraper)

    assert found["expunge_stream_up"] == 0
    assert found["expunge_backlog"] == 0
    scraper.close()


@pytest.mark.P10
def test_a_scrape_takes_bounded_time(scraper: Scraper, monkeypatch: pytest.MonkeyPatch):
    """A source that hangs is left out, and asked once, however often one scrapes."""
    asked, release = [], threading.Event()

    def hang(*_: object) -> list[Any]:
        asked.append(1)
        release.wait(30)
        return []

    monkeypatch.setattr(gauges, "SCRAPE_SECONDS", 0.4)
    monkeypatch.setattr(gauges, "stream_gauges", hang)
    begun = time.monotonic()

    first, second = scrape(scraper), scrape(scraper)

    assert time.monotonic() - begun < 10
    assert first["expunge_scrape_up{source=stream}"] == second["expunge_scrape_up{source=stream}"] == 0
    assert asked == [1]
    release.set()


def test_this_build_is_named(scraper: Scraper):
    """Version and interpreter."""
    assert any(name.startswith("expunge_build_info{") for name in scrape(scraper))


def test_names_follow_the_manner_of_prometheus(scraper: Scraper):
    """Counters end in _total, gauges never; times are in seconds; every metric says what it is."""
    for family in text_string_to_metric_families(scraper.render().decode()):
        if not family.name.startswith("expunge_"):
            continue
        assert family.documentation, family.name
        if family.type == "gauge":
            assert not family.name.endswith("_total")
        assert not family.name.endswith(("_ms", "_milliseconds", "_minutes"))
