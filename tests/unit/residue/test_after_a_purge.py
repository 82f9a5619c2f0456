"""The real purge, and the search after it: on both databases it finds everything before, and nothing after."""

import pytest

from service.platform.database import Database
from service.platform.redis import ErasureStream
from service.residue.needles import Needles
from service.residue.report import ResidueReport, Verdict
from service.residue.scan import ResidueScan
from service.settings import Settings
from tests.factories.purges import PurgingHome

pytestmark = pytest.mark.P8

PAIRS = [(u, i) for u in range(1, 30) for i in range(1, 9) if (u + i) % 3] + [(1, 9), (2, 9), (3, 9), (40, 1)]


def places(report: ResidueReport) -> list[tuple[str, str, str]]:
    return [(result.store.value, each.place, each.kind.value) for result in report.stores for each in result.places]


def test_a_search_after_the_purge_finds_nothing(settings: Settings, database: Database, stream: ErasureStream) -> None:
    """A whole user, a whole item, a pair, and the last pair of somebody; others go on, and one comes anew."""
    home = PurgingHome(settings, database, stream)
    home.record(*PAIRS)
    home.base(1)
    home.version(2, 1)
    home.point(live=2, base=1)
    reason, key = f"reason-{home.tag}", f"key-{home.tag}"
    ids = [
        home.accept(users=[1], reason=reason, idempotency_key=key),
        home.accept(items=[9], reason=f"another-{home.tag}"),
        home.accept((5, 5), (5, 2)),
        home.accept((40, 1)),
    ]
    stream.publish(ids)
    home.forget(*ids)
    wanted = home.compact(3, *ids)
    needles = database.query(lambda read: Needles.gather(read, home.store, home.world.identity, wanted.erasures))
    scan = ResidueScan(database, home.store, stream, settings)
    assert {"id", "title", "salt", "key", "target", "row", "lineage", "request"} <= {
        kind for _, _, kind in places(scan.run(needles))
    }
    assert needles.counts()["key"] == 3  # the user, the item, and who has nothing left

    home.purge(wanted)
    home.accept(users=[2], reason=reason)
    report = scan.run(needles)
    # Old segments of PostgreSQL's log may stay for a while, which the search must tell.
    left = [each for each in places(report) if each[0] != "write_ahead_log"]
    assert left == []
    verdicts = {result.store.value: result.verdict for result in report.stores}
    assert {verdicts[name] for name in ("columns", "database_files", "model_store", "stream")} == {Verdict.GONE}
