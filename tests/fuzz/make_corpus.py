"""Writes the seeds: for each parser some small inputs that it takes, and some that are nearly so. Run after a change
of a format: `python -m tests.fuzz.make_corpus`. What fuzzing found stays beside them, named found-*."""

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from model_store import ErasureLedger, Manifest, ManifestFacts, ModelStore, StoreMarkers, Watermark
from model_store.markers import WATERMARK
from model_store.tensors import encode
from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.merkle import leaf_hash
from service.audit.tlog.note import SignedNote
from service.audit.tlog.proof import LogProof
from service.audit.tlog.tiles import bundle, tile_path
from service.evidence.commitment import TrainingCommitment
from service.evidence.training_key import TrainingKey
from service.evidence.verification import EVIDENCE_FORMAT, SEARCHED
from service.platform.canonical import canonical_json
from service.platform.cursor import write_cursor
from service.receipts.document import Receipt, ReceiptEntry
from service.receipts.verification import Opening
from tests.fuzz.harnesses import IDENTITY, KEY, SECRET, TENSORS, tree_of

CORPUS = Path(__file__).parent / "corpus"
AT = "2026-11-25T04:00:00.000000Z"
ID = "0198b3c6-7c5e-7c1f-9d0a-3f6a1b2c3d4e"


def log() -> tuple[str, list[str]]:
    """A statement and the entries of the log behind it, as canonical JSON."""
    commitment = Opening("00", users=("u",)).commitment()
    accepted = {"commitment": commitment, "mode": "forget", "requested": 1}
    forgotten = {
        "gate": {"figures": {"auc": 0.5}, "passed": True, "reasons": []},
        "mode": "forget",
        "version_before": 1,
    }
    bodies = [("erasure.accepted", accepted), ("erasure.hold_set", {}), ("erasure.hold_lifted", {})]
    bodies += [("erasure.extended", {"ground": "complexity", "until": AT}), ("erasure.forgotten", forgotten)]
    entries = [
        {"at": AT, "body": body, "erasure_id": ID, "event": event, "seq": number, "version": None}
        for number, (event, body) in enumerate(bodies, 1)
    ]
    statement = {
        **accepted,
        "format": "expunge-receipt/v1",
        "log": KEY.verifier.name,
        "erasure_id": ID,
        "status": "forgotten",
        "final": False,
        "reached": {"accepted": AT, "forgotten": AT},
        "extension": {"at": AT, "ground": "complexity", "until": AT},
        "decision": None,
        "due_at": AT,
        "legal_hold": False,
        "out_of_scope": ["backups"],
        "entries": list(range(len(entries))),
    }
    return canonical_json(statement).decode(), [canonical_json(entry).decode() for entry in entries]


def note(text: str) -> str:
    """A signed note."""
    return str(SignedNote(text, (KEY.sign(text),)))


def receipt() -> Receipt:
    """A whole one."""
    statement, entries = log()
    tree = tree_of([leaf_hash(entry.encode()) for entry in entries])
    given = tuple(ReceiptEntry(at, entry, tuple(tree.inclusion_proof(at))) for at, entry in enumerate(entries))
    checkpoint = note(LogCheckpoint(KEY.verifier.name, tree.size, tree.root()).text())
    return Receipt(statement, KEY.sign(statement + "\n").line(), given, checkpoint)


def manifest() -> bytes:
    """The page of a version."""
    folder = Path(tempfile.mkdtemp())
    try:
        store = ModelStore(folder, key=SECRET)
        facts = ManifestFacts(
            kind="base",
            dataset_hash="d" * 64,
            code_version="0.1.0",
            seed=7,
            created_at=datetime(2026, 11, 25, tzinfo=UTC),
        )
        made: Manifest = store.publish("versions", 1, {"embeddings.safetensors": TENSORS}, facts)
        return made.to_json()
    finally:
        shutil.rmtree(folder)


def ledger() -> bytes:
    """Three records."""
    folder = Path(tempfile.mkdtemp())
    try:
        made = ErasureLedger(folder, SECRET)
        records = [{"event": "erasure.accepted", "seq": n, "leaf": "a" * 64, "erasure_id": ID} for n in (1, 2, 3)]
        with made.writing():
            made.append(records)
        return next(made.folder.glob("*.jsonl")).read_bytes()
    finally:
        shutil.rmtree(folder)


def watermark() -> bytes:
    """The mark of a store."""
    folder = Path(tempfile.mkdtemp())
    try:
        StoreMarkers(folder, SECRET).raise_watermark(Watermark(5, 2, 1, "aa"))
        return (folder / WATERMARK).read_bytes()
    finally:
        shutil.rmtree(folder)


def evidence() -> bytes:
    """Of a user that base 7 was not trained on."""
    edges = np.array([[0, 0, 1, 2], [0, 1, 1, 0]], dtype=np.int32)
    commitment = TrainingCommitment.of(("u", "v", "w"), ("i", "j"), edges, TrainingKey(SECRET))
    proofs = [commitment.absence_of_user("gone").document(), commitment.absence_of_pair("v", "i").document()]
    body = {
        "format": EVIDENCE_FORMAT,
        "erasure_id": ID,
        "compaction": ID,
        "base_before": 3,
        "base_after": 7,
        "dataset_hash": "d5" * 32,
        "commitment": commitment.document(),
        "search": {"stores": [{"store": store, "verdict": "GONE"} for store in SEARCHED]},
        "absence": {"targets": 2, "shown": 2, "beyond_bound": 0, "never_on_record": 0, "proofs": proofs},
    }
    return canonical_json(body)


def seeds() -> Iterator[tuple[str, list[bytes]]]:
    """(harness, inputs) each."""
    whole = receipt()
    statement, entries = log()
    text = LogCheckpoint(KEY.verifier.name, 5, bytes(32)).text()
    proof = LogProof(1, (bytes(32), bytes(range(32))), note(text), b"extra")
    data, _ = encode(TENSORS, "file")
    yield "receipts", [whole.json(), whole.json()[:-200], b"{}"]
    yield "signed_receipts", ["\n".join([statement, *entries]).encode(), statement.encode() + b"\n{}", b"{}\n{}"]
    yield "evidence", [evidence(), evidence()[:-300], b"{}"]
    yield "notes", [note(text).encode(), text.encode(), str(KEY.verifier).encode()]
    yield "proofs", [str(proof).encode(), bundle([b"one", b"", b"two"]), tile_path(1234067, 5).encode()]
    yield "inclusion", [bytes([40, 7, 13, 3]), bytes([40, 7, 13, 0]) + bytes(96), bytes([0, 0, 0, 3])]
    yield "manifests", [manifest(), b"{}"]
    yield "tensors", [data, data[:40], data[:8] + b"{}"]
    yield "ledgers", [ledger(), ledger()[:-20], b"{}\n"]
    yield "markers", [watermark(), b"{}", b"[" * 50_000]
    yield "cursors", [write_cursor(IDENTITY, "erasures", 77).encode(), base64.urlsafe_b64encode(bytes(24)), b""]
    yield "bodies", [json.dumps({"users": ["1", 2.5, None, True]}).encode(), b'W/"a", "b"', b"\xef\xbb\xbf[1e400]"]
    yield "csv_files", [b"user_id,item_id,rating,timestamp\n1,2,5,1\n1,3,4,2\n", b'userId;movieId\n"a;b";c\n']
    yield "dat_files", [b"1::1193::5::978300760\n1::661::3::978302109\n"]
    yield "txt_files", [b"0 1 2 3\n1 2\n2\n"]
    yield "target_files", [b"user_id,item_id\nu1,i1\nu2,\n,i3\n", b'item_id,user_id\r\n"a""b",c\r\n']


def main() -> None:
    """Write them."""
    for name, inputs in seeds():
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(inputs):
            (CORPUS / name / f"seed-{number}").write_bytes(content)


if __name__ == "__main__":
    main()
