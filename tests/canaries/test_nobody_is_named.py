"""Ids, reasons, keys, salts and digests of people in no log, metric, problem, stream or export of a real service."""

import base64
import json

import pytest

from tests.canaries.conftest import REASON, USER, Story
from tests.canaries.needles import forms, found_in, found_in_all


@pytest.mark.parametrize("written", forms(USER))
def test_the_search_sees_a_canary_in_each_form(written: str) -> None:
    """Otherwise that it finds nothing would mean nothing."""
    needle = forms(USER)[written]

    assert ("user", written) in found_in(b"\x00before " + needle + b" after", {"user": forms(USER)})


def test_the_search_sees_base64_of_what_a_canary_is_in_the_middle_of() -> None:
    """Whatever stands before it shifts the letters."""
    for before in range(6):
        data = base64.b64encode(b"x" * before + USER.encode() + b"yy")

        assert found_in(data, {"user": forms(USER)}), before


def test_the_search_sees_what_the_data_map_says_is_there(story: Story) -> None:
    """users.id stays until compaction is built: the search finds it in the database, and only there."""
    holders = {name for name, data in story.files.items() if found_in(data, {"user": story.needles["user"]})}

    assert holders == {"expunge.db"}
    assert {"http.request", "batch.settled"} <= set(_events(story))


def test_no_log_line_names_anybody(story: Story) -> None:
    """API, worker, supervisor and stream server, at level debug, each request logged."""
    assert list(found_in_all([("log", story.log)], story.needles)) == []


def test_no_metric_names_anybody(story: Story) -> None:
    """Neither process's."""
    assert list(found_in_all(story.metrics.items(), story.needles)) == []


def test_no_problem_repeats_what_was_sent(story: Story) -> None:
    """Its text and its headers name the field and what is wrong with it, not the value."""
    assert len(story.problems) > 15
    assert list(found_in_all(story.problems, story.needles)) == []


def test_the_stream_names_nobody(story: Story) -> None:
    """What the server holds, and its append-only file, which still has what was taken out."""
    on_disk = {name: data for name, data in story.files.items() if name.startswith("valkey/")}

    assert any("appendonlydir" in name and b"XADD" in data.upper() for name, data in on_disk.items())
    assert list(found_in_all([*story.redis.items(), *on_disk.items()], story.needles)) == []


def test_the_log_and_receipts_name_nobody(story: Story) -> None:
    """The audit log in every form, the receipt in every form, an erasure's own state."""
    assert {"audit export", "audit entries", "erasure/receipt", "erasure"} <= set(story.exports)
    assert list(found_in_all(story.exports.items(), story.needles)) == []


def test_no_file_but_the_database_names_anybody(story: Story) -> None:
    """Neither while it runs nor after: models, manifests, checkpoints, markers hold keys and vectors alone.

    The ledger recognises who was erased, by keyed digests; it names nobody.
    """
    others = {name: data for name, data in story.files.items() if not name.startswith("expunge.db")}
    ledger = {name: others.pop(name) for name in list(others) if name.startswith("store/ledger/")}
    names = {name: known for name, known in story.needles.items() if not name.startswith("digest of")}

    assert ledger
    assert list(found_in_all(others.items(), story.needles)) == []
    assert list(found_in_all(ledger.items(), names)) == []


def test_a_reason_is_gone_from_the_database_once_it_is_forgotten(story: Story) -> None:
    """Its bytes, too: deleted content is written over, and the write-ahead log is gone after a clean stop."""
    database = [(name, data) for name, data in story.files.items() if name.startswith("expunge.db")]

    assert list(found_in_all(database, {"reason": forms(REASON)})) == []


def _events(story: Story) -> list[str]:
    return [json.loads(line)["event"] for line in story.log.splitlines() if line.startswith(b"{")]
