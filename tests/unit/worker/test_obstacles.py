"""What erasures wait for, told wherever somebody may look: the erasure, the worker's health, its log."""

import asyncio
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from sqlalchemy import update

from service.erasures import service as erasures
from service.erasures.views import state_body
from service.platform import tables
from service.platform.obstacles import ForgettingState, obstacle_to, waiting_for
from service.recommender.backbones import make_backbone
from service.worker.monitor import Monitor
from service.worker.training import train_base
from tests.contract.test_backbones import PLUGIN
from tests.factories.workers import RECIPE, Home, fill, opened, teach, worker_of, working
from tests.unit.worker.waiting import eventually

NOW = datetime(2026, 11, 25, tzinfo=UTC)
WELL = ForgettingState(NOW, 1, "lightgcn", frozenset({"forget"}), NOW, None, 1, None)


def waits(home: Home, erasure_id: str) -> Any:
    """`waiting_for` of the erasure's document."""

    async def read() -> Any:
        erasure = await erasures.get(home.services, erasure_id)
        found = await erasures.waits(home.services, [erasure])
        return state_body(erasure, found.get(erasure_id))["waiting_for"]

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("changes", "mode", "code", "cure"),
    [
        ({}, "forget", None, ""),
        ({"base": None, "encoders": frozenset()}, "forget", None, ""),
        ({"encoders": frozenset()}, "forget", "no_encoder", "`expunge pretrain`"),
        ({}, "dislike", "no_encoder", "`expunge pretrain --mode dislike`"),
        ({"trouble": "no_encoder:dislike"}, "forget", "no_encoder", "`expunge pretrain --mode dislike`"),
        ({"trouble": "no_encoder:forget"}, "forget", None, ""),  # made since; the worker has not looked yet
        ({"trouble": "encoder_outdated:forget"}, "forget", "encoder_outdated", "`expunge pretrain`"),
        ({"trouble": "backbone_unavailable"}, "forget", "backbone_unavailable", "Install it"),
        ({"trouble": "base_damaged"}, "forget", "base_damaged", "`expunge train --go-live`"),
        ({"trouble": "worker_failing:OSError"}, "forget", "worker_failing", "worker's log"),
        ({"worker_seen": None}, "forget", "no_worker", "`expunge worker`"),
        ({"worker_seen": NOW - timedelta(minutes=1)}, "forget", "no_worker", "`expunge worker`"),
        ({"oldest_unsent": NOW - timedelta(minutes=1)}, "forget", "stream_away", "Redis"),
    ],
)
def test_each_obstacle_names_its_cure(changes: dict[str, Any], mode: str, code: str | None, cure: str) -> None:
    found = obstacle_to(replace(WELL, **changes), mode)

    assert (found and found.code) == code
    assert found is None or cure in found.next_step


def test_an_erasure_says_its_place_or_what_the_gate_wants() -> None:
    queued = waiting_for(WELL, "accepted", "forget", None, 3)
    hard = waiting_for(WELL, "accepted", "forget", "fine_tuning", 3)
    assert hard is not None
    assert hard.code == "fine_tuning"
    held = waiting_for(WELL, "needs_attention", "forget", "gate_refused", None)

    assert queued is not None
    assert (queued.code, queued.detail) == ("queued", "3 erasures were accepted before it.")
    assert held is not None
    assert held.code == "gate_refused"
    assert "train a new base" in held.next_step
    assert waiting_for(WELL, "forgotten", "forget", None, None) is None


def test_without_an_encoder_an_erasure_says_so_until_there_is_one(home: Path, tmp_path: Path) -> None:
    from service.settings import load_settings
    from service.unlearning.pretraining import PretrainingConfig
    from service.worker.encoders import pretrain
    from tests.factories.workers import OPEN_GATE, QUICK

    with opened(load_settings(home=home, **QUICK, **OPEN_GATE)) as place:
        fill(place)
        base = teach(place, modes=())
        erasure_id = place.accept(place.learnt[0])
        assert waits(place, erasure_id)["code"] == "no_encoder"

        with working(worker_of(place)) as worker:
            eventually(lambda: worker.status.waits_for == "no_encoder")
            assert waits(place, erasure_id)["next_step"].startswith("Run `expunge pretrain`")
            pretrain(place.database, place.store, place.settings, PretrainingConfig(), base=base)
            eventually(lambda: place.status(erasure_id) == "forgotten")
            eventually(lambda: worker.status.trouble_code is None)

        assert waits(place, erasure_id) is None


def test_without_a_worker_an_erasure_says_so(place: Home) -> None:
    """Also one whose worker was killed: its lease is held by nobody who is heard of."""
    erasure_id = place.accept(place.learnt[0])
    assert waits(place, erasure_id)["code"] == "no_worker"

    with place.database.write() as connection:
        row = {"name": "unlearner", "holder": "somebody", "epoch": 1, "beat": 3}
        connection.execute(tables.leases.insert().values(**row, seen_at=datetime.now(UTC)))
    assert waits(place, erasure_id)["code"] == "queued"
    with place.database.write() as connection:
        connection.execute(update(tables.leases).values(seen_at=datetime.now(UTC) - timedelta(minutes=2)))
    assert waits(place, erasure_id)["code"] == "no_worker"


def test_a_base_whose_plugin_is_gone_is_waited_for_and_another_can_take_its_place(
    place: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker neither dies nor falls silent; everything that needs no such package goes on."""
    facts = tmp_path / "two_hops-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: two-hops\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[expunge.backbones]\ntwo_hops = two_hops_gone:TwoHops\n")
    (tmp_path / "two_hops_gone.py").write_text(PLUGIN)
    with monkeypatch.context() as installed:
        installed.syspath_prepend(str(tmp_path))
        config = replace(RECIPE, backbone=make_backbone({"name": "two_hops"}))
        train_base(place.database, place.store, place.settings, config, go_live=True)
        from service.unlearning.pretraining import PretrainingConfig
        from service.worker.encoders import pretrain

        pretrain(place.database, place.store, place.settings, PretrainingConfig(), base=2)
    monkeypatch.delitem(sys.modules, "two_hops_gone", raising=False)
    erasure_id = place.accept(place.learnt[0])

    worker = worker_of(place)
    monitor = Monitor(worker, "127.0.0.1", 0)
    monitor.start()
    try:
        with working(worker):
            eventually(lambda: waits(place, erasure_id)["code"] == "backbone_unavailable")
            assert "two_hops of base 2" in waits(place, erasure_id)["detail"]
            with urlopen(f"http://127.0.0.1:{monitor.port}/readyz") as answer:
                check = json.load(answer)["checks"]["unlearning"]
            assert check["status"] == "degraded"
            assert "two_hops of base 2" in check["detail"]

            teach(place, go_live=True)
            eventually(lambda: place.status(erasure_id) == "forgotten")
    finally:
        monitor.stop()
