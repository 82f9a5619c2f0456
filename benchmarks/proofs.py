"""How long proofs take: checking a final receipt offline, and proving an entry of a log of ten million.

    python -m benchmarks.main --only receipt --only inclusion

No real data are needed. The log is a database of 10^7 entries made for this, with real bodies and hashes; its nodes are
stored by the service's own code, as when a head is signed.
"""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from sqlalchemy import Connection, insert

import migrations
from benchmarks import cells
from service.audit.repository import leaf_hashes
from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.merkle import MerkleLevels, leaf_hash, verify_inclusion
from service.audit.tlog.note import SignedNote, SigningKey
from service.audit.tree import store_nodes, tree_of
from service.evidence.document import CompactionFacts, evidence
from service.evidence.preparing import prepare
from service.evidence.verification import SEARCHED
from service.interactions.service import Snapshot
from service.platform.canonical import canonical_json
from service.platform.clock import rfc3339
from service.platform.database import Database
from service.platform.identity import Identity
from service.platform.tables import erasures, items, suppressions, users
from service.receipts.document import FORMAT, Receipt, ReceiptEntry
from service.receipts.statement import OUT_OF_SCOPE
from service.receipts.verification import verify

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEY = SigningKey("benchmark.example/log", b"b" * 32)
IDENTITY = Identity(b"s" * 32)
ERASURE = "0198b3c6-7c5e-7c1f-9d0a-000000000001"
COMPACTION = "0198b3c6-7c5e-7c1f-9d0a-0000000000c0"
STAND_ALONE = cells.ROOT / "docs" / "verifier" / "verify_receipt.py"
BUILT_AT_ONCE = 100_000
NODES_AT_ONCE = 4_096


@dataclass(frozen=True)
class Sizes:
    """How much is measured: users, items and interactions as of ML-1M; entries of the logs; how often."""

    users: int = 6_040
    items: int = 3_706
    interactions: int = 720_152
    receipt_log: int = 1 << 20
    log: int = 10_000_000
    times: int = 500


FULL = Sizes()
QUICK = Sizes(600, 370, 20_000, 1 << 12, 100_000, 50)


def receipt() -> dict[str, Any]:
    """The cell of the same name: a final receipt of one target, and of as many as are shown."""
    return cells.cell("receipt", _receipt)


def inclusion() -> dict[str, Any]:
    """The cell of the same name: a proof of a random entry."""
    return cells.cell("inclusion", _inclusion)


def _sizes() -> Sizes:
    return QUICK if cells.is_quick() else FULL


def _receipt() -> dict[str, Any]:
    sizes, stand_alone = _sizes(), _stand_alone()
    one, most = (_made(sizes, targets).json() for targets in (1, 100))
    vkey = str(KEY.verifier)
    checked = verify(Receipt.parse(one), [KEY.verifier])
    assert checked.statement["final"]
    assert checked.absence is not None
    timed = {
        "one_target": _milliseconds(sizes.times, lambda: verify(Receipt.parse(one), [KEY.verifier])),
        "hundred_targets": _milliseconds(sizes.times // 5, lambda: verify(Receipt.parse(most), [KEY.verifier])),
        "stand_alone": _milliseconds(sizes.times, lambda: stand_alone.verify(json.loads(one), vkey)),
        "stand_alone_hundred_targets": _milliseconds(
            sizes.times // 5, lambda: stand_alone.verify(json.loads(most), vkey)
        ),
    }
    return {
        "n": sizes.times,
        "milliseconds": {name: _quantiles(each) for name, each in timed.items()},
        "bytes": {"one_target": len(one), "hundred_targets": len(most)},
        "process_seconds": _whole_process(one, vkey),
        "log_entries": sizes.receipt_log,
    }


def _inclusion() -> dict[str, Any]:
    sizes = _sizes()
    folder = Path(tempfile.mkdtemp(prefix="expunge-proofs-"))
    try:
        started = time.perf_counter()
        path = folder / "log.db"
        migrations.upgrade(f"sqlite:///{path}")
        _fill(path, sizes.log)
        database = Database(f"sqlite:///{path}")
        while database.transact(lambda write: store_nodes(write, sizes.log, NODES_AT_ONCE)):
            pass
        root = database.query(lambda read: tree_of(read, sizes.log).root())
        built = time.perf_counter() - started
        draw = random.Random(0)
        indices = [draw.randrange(sizes.log) for _ in range(sizes.times)]
        proven = (_prove(database, sizes.log, index, root) for index in indices)
        seconds = list(proven)
        database.close()
        return {
            "n": sizes.times,
            "milliseconds": _quantiles([1e3 * each for each in seconds]),
            "log_entries": sizes.log,
            "database_bytes": path.stat().st_size,
            "built_seconds": round(built, 1),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prove(database: Database, size: int, index: int, root: bytes) -> float:
    """Seconds of a proof, with its transaction; it is checked outside of them."""

    def unit(connection: Connection) -> tuple[bytes, list[bytes]]:
        return leaf_hashes(connection, index, 1)[0], tree_of(connection, size).inclusion_proof(index)

    started = time.perf_counter()
    leaf, proof = database.query(unit)
    taken = time.perf_counter() - started
    verify_inclusion(leaf, index, size, proof, root)
    return taken


def _fill(path: Path, size: int) -> None:
    """Entries of a log, as fast as SQLite takes them."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "cache_size = -200000"):
        connection.execute(f"PRAGMA {pragma}")
    columns = "seq, at, event, erasure_id, body, leaf_hash"
    statement = f"INSERT INTO audit_entries ({columns}) VALUES (?, ?, ?, ?, ?, ?)"
    for first in range(1, size + 1, BUILT_AT_ONCE):
        connection.execute("BEGIN")
        connection.executemany(statement, _entries(first, min(first + BUILT_AT_ONCE, size + 1)))
        connection.execute("COMMIT")
    connection.execute("UPDATE audit_head SET size = ?", (size,))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def _entries(first: int, end: int) -> Iterator[tuple[int, str, str, str, str, bytes]]:
    at = rfc3339(AT)
    for seq in range(first, end):
        erasure_id = f"0198b3c6-7c5e-7c1f-9d0a-{seq:012d}"
        body = (
            f'{{"at":"{at}","body":{{"commitment":"{seq:064x}","due_at":"{at}","matched":1,"mode":"forget",'
            f'"requested":1}},"erasure_id":"{erasure_id}","event":"erasure.accepted","seq":{seq},"version":null}}'
        )
        yield seq, "2026-11-25 12:00:00.000000", "erasure.accepted", erasure_id, body, leaf_hash(body.encode())


def _made(sizes: Sizes, targets: int) -> Receipt:
    """A final receipt of an erasure of some pairs whose users and items stay."""
    draw = np.random.default_rng(0)
    cells_of = draw.choice(sizes.users * sizes.items, sizes.interactions + targets, replace=False)
    pairs = np.stack((cells_of // sizes.items, cells_of % sizes.items))
    erased, kept = pairs[:, :targets], pairs[:, targets:]
    kept = kept[:, np.lexsort(kept[::-1])]
    data = Snapshot(np.arange(1, sizes.users + 1), np.arange(1, sizes.items + 1), kept.astype(np.int32), 0)
    folder = Path(tempfile.mkdtemp(prefix="expunge-proofs-"))
    try:
        url = f"sqlite:///{folder / 'made.db'}"
        migrations.upgrade(url)
        database = Database(url)
        database.transact(lambda write: _record(write, sizes, erased))
        with database.read() as connection:
            made = prepare(
                connection,
                IDENTITY,
                folder / "made.evidence",
                base=2,
                dataset_hash="d5" * 32,
                data=data,
                erasure_ids=[ERASURE],
            )
        database.close()
        proof = evidence(ERASURE, _facts(), made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _issued(sizes, targets, proof.text, dict(proof.entry))


def _record(connection: Connection, sizes: Sizes, erased: Any) -> None:
    for table, count, digest in ((users, sizes.users, IDENTITY.user), (items, sizes.items, IDENTITY.item)):
        ids = [f"{table.name}-{number}" for number in range(count)]
        rows = [{"key": key, "id": id, "digest": digest(id)} for key, id in enumerate(ids, 1)]
        connection.execute(insert(table), rows)
    fact = {"id": ERASURE, "seq": 1, "status": "forgotten", "mode": "forget", "key_id": "k", "commitment": "c" * 64}
    counts = {"requested": erased.shape[1], "matched": erased.shape[1], "received_at": AT, "due_at": AT, "stages": {}}
    connection.execute(insert(erasures), [fact | counts])
    hidden = [
        {
            "user_digest": IDENTITY.user(f"users-{user}"),
            "item_digest": IDENTITY.item(f"items-{item}"),
            "erasure_id": ERASURE,
            "created_at": AT,
        }
        for user, item in erased.T.tolist()
    ]
    connection.execute(insert(suppressions), hidden)


def _facts() -> CompactionFacts:
    store = {"verdict": "GONE", "bytes": 10**9, "places": [], "places_in_all": 0, "allowed": [], "reason": None}
    search = {"searched_at": rfc3339(AT), "seconds": 12.5, "bytes": 9 * 10**9, "notes": [], "out_of_scope": ["backups"]}
    stores = [store | {"store": name} for name in SEARCHED]
    step = {"at": rfc3339(AT), "seconds": 95.25}
    names = ("snapshot", "training", "gating", "pretraining", "moving", "purging", "scanning")
    steps = dict.fromkeys(names, step)
    purge = {"done": True, "steps": {name: {"undone": []} for name in ("vocabulary", "versions", "pages")}}
    return CompactionFacts(COMPACTION, 1, 2, 3, 4, purge, search | {"stores": stores}, steps)


def _issued(sizes: Sizes, targets: int, text: str, erased: dict[str, Any]) -> Receipt:
    """The receipt in a log of many entries, signed."""
    at, counts = rfc3339(AT), {"requested": targets, "matched": targets}
    fixed = {"commitment": "c" * 64, "mode": "forget", **counts}
    bodies = {"accepted": fixed, "forgotten": {"gate": {"passed": True, "figures": {"auc": 0.5}}}, "erased": erased}
    last = sizes.receipt_log - 1
    places = dict(zip(bodies, (last // 3, last // 2, last), strict=True))
    texts = {
        places[name]: canonical_json(
            {
                "at": at,
                "body": body,
                "erasure_id": ERASURE,
                "event": f"erasure.{name}",
                "seq": places[name] + 1,
                "version": None,
            }
        ).decode()
        for name, body in bodies.items()
    }
    hashes = [leaf_hash(texts[index].encode() if index in texts else b"%d" % index) for index in range(last + 1)]
    tree = MerkleLevels(hashes)
    head = LogCheckpoint(KEY.verifier.name, tree.size, tree.root()).text()
    statement = canonical_json(
        fixed
        | {
            "decision": None,
            "due_at": at,
            "entries": sorted(texts),
            "erasure_id": ERASURE,
            "extension": None,
            "final": True,
            "format": FORMAT,
            "guarantee": {"kind": "exact", "method": "retraining", "means": "words"},
            "legal_hold": False,
            "log": KEY.verifier.name,
            "notice": None,
            "out_of_scope": list(OUT_OF_SCOPE),
            "reached": dict.fromkeys(bodies, at),
            "stages": {},
            "status": "erased",
            "versions": {"after": 2, "before": 1},
        }
    ).decode()
    entries = [ReceiptEntry(index, texts[index], tuple(tree.inclusion_proof(index))) for index in sorted(texts)]
    note = str(SignedNote(head).signed(KEY.sign(head)))
    return Receipt(statement, KEY.sign(statement + "\n").line(), tuple(entries), note, text)


def _stand_alone() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_receipt", STAND_ALONE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _whole_process(data: bytes, vkey: str) -> float:
    """Seconds of the stand-alone verifier from its start to its end, median of five."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "receipt.json"
        path.write_bytes(data)
        command: Sequence[str] = (sys.executable, str(STAND_ALONE), str(path), vkey)
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)


def _milliseconds(times: int, call: Callable[[], object]) -> list[float]:
    call()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - started))
    return found


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "max": ordered[-1],
    }
