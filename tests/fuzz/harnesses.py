"""One function per parser of what strangers may bring: it takes any bytes, and raises only where there is a fault.

What a parser documents as its refusal is caught; anything else (a crash, another exception, an answer that contradicts
itself) is a finding.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from model_store import Damaged, ErasureLedger, SignatureMismatch, StoreMarkers
from model_store.manifest import Manifest
from model_store.markers import WATERMARK
from model_store.tensors import encode, views
from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import MerkleTree, leaf_hash, verify_consistency, verify_inclusion
from service.audit.tlog.note import SignedNote, SigningKey, VerifierKey, signatures_of
from service.audit.tlog.proof import LogProof
from service.audit.tlog.tiles import bundle, parse_tile_path, tile_path, unbundle
from service.cli.failures import Refusal
from service.cli.target_file import read_target_file
from service.evidence.training_key import TrainingKey
from service.evidence.verification import SAME_IN_ENTRY, Wanted, verify_evidence
from service.interactions.formats import Reading
from service.interactions.readers import read_file
from service.interactions.refusals import DataProblem
from service.platform.conditional import none_match, strong_tags
from service.platform.cursor import read_cursor, write_cursor
from service.platform.identity import Identity
from service.platform.json_body import parse_json
from service.platform.problem import BadRequest, InvalidCursor, InvalidRequest
from service.receipts.document import Receipt, ReceiptEntry
from service.receipts.verification import Opening, verify

KEY = SigningKey("fuzz.example/log", b"f" * 32)
SECRET = b"s" * 32
IDENTITY = Identity(b"i" * 32)
SCRATCH = Path(tempfile.mkdtemp(prefix="expunge-fuzz-"))
TENSORS = {"users": np.arange(6, dtype=np.float32).reshape(3, 2), "user_keys": np.arange(1, 4, dtype=np.int64)}
HASH = 32


def text_of(data: bytes) -> str:
    """Any bytes as a text, lone surrogates among them, as JSON can bring them."""
    return data.decode("utf-8", "surrogatepass") if is_text(data) else data.decode("latin-1")


def is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8, surrogates let pass."""
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def receipts(data: bytes) -> None:
    """A receipt as it is presented: refused by name, or what is parsed is what it says."""
    with suppress(Unverified):
        receipt = Receipt.parse(data)
        assert Receipt.parse(receipt.json()) == receipt
        verify(receipt, [KEY.verifier], opening=Opening("00", users=("u",)))


def signed_receipts(data: bytes) -> None:
    """A receipt that the log's own key signed, whatever it says: lines are the statement and the log's entries."""
    statement, *entries = text_of(data).split("\n")
    with suppress(Unverified, UnicodeEncodeError):
        tree = [leaf_hash(entry.encode()) for entry in entries]
        if not 0 < len(tree) <= 256:
            return
        log = tree_of(tree)
        head = LogCheckpoint(KEY.verifier.name, len(tree), log.root()).text()
        checkpoint = str(SignedNote(head, (KEY.sign(head),)))
        given = tuple(
            ReceiptEntry(index, entry, tuple(log.inclusion_proof(index))) for index, entry in enumerate(entries)
        )
        receipt = Receipt(statement, KEY.sign(statement + "\n").line(), given, checkpoint)
        verified = verify(receipt, [KEY.verifier], opening=Opening("00", users=("u",)))
        assert verified.checkpoint.size == len(entries)


def tree_of(leaves: list[bytes]) -> MerkleTree:
    """The tree over up to 256 leaves."""
    return MerkleTree(len(leaves), lambda level, index, width: leaves)


def evidence(data: bytes) -> None:
    """The evidence of an erased erasure, against an entry of the log that tells the same as far as it can."""
    text = text_of(data)
    try:
        body = json.loads(text)
        entry = {name: body.get(name) for name in SAME_IN_ENTRY}
        entry["evidence"] = hashlib.sha256(text.encode()).hexdigest()
    except (ValueError, AttributeError, RecursionError):
        body, entry = {}, {"evidence": ""}
    wanted = Wanted(TrainingKey(SECRET), (("u", "i"),), ("gone",), ("i",))
    for each in (None, wanted):
        with suppress(Unverified):
            proven = verify_evidence(text, entry, str(body.get("erasure_id")), each)
            assert 0 <= (proven.named or 0) <= 3
            assert proven.shown <= proven.targets


def notes(data: bytes) -> None:
    """Signed notes, checkpoints, proofs of an entry, keys: what is parsed reads back the same."""
    text = text_of(data)
    with suppress(Unverified):
        note = SignedNote.parse(text)
        assert SignedNote.parse(str(note)) == note
        note.verify([KEY.verifier])
    with suppress(Unverified):
        signatures_of(text)
    with suppress(Unverified):
        checkpoint = LogCheckpoint.parse(text)
        assert LogCheckpoint.parse(checkpoint.text()) == checkpoint
    with suppress(Unverified):
        LogCheckpoint.verified(text, [KEY.verifier], KEY.verifier.name)
    with suppress(Unverified):
        key = VerifierKey.parse(text)
        assert VerifierKey.parse(str(key)) == key


def proofs(data: bytes) -> None:
    """A `.tlog-proof`, and bundles of entries."""
    text = text_of(data)
    with suppress(Unverified):
        proof = LogProof.parse(text)
        assert LogProof.parse(str(proof)) == proof
        proof.verify(b"entry", [KEY.verifier])
    with suppress(Unverified):
        assert bundle(unbundle(data)) == data
    found = parse_tile_path(text)
    if found is not None:
        assert tile_path(*found) == text


def inclusion(data: bytes) -> None:
    """Inclusion and consistency: a proof of this tree is believed, and none that differs from it."""
    if len(data) < 4:
        return
    size, index, old_size, what = 1 + data[0] % 64, data[1], data[2], data[3]
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    tree, old = tree_of(leaves), tree_of(leaves[: min(old_size, size)])
    given = [data[4:][at : at + HASH] for at in range(0, len(data) - 4, HASH)]
    right = tree.inclusion_proof(index) if index < size else None
    path = right if what & 1 and right is not None else given
    try:
        verify_inclusion(leaf_hash(bytes([index])), index, size, path, tree.root())
        believed = True
    except Unverified:
        believed = False
    assert believed == (path == right)
    right = tree.consistency_proof(old.size)
    path = right if what & 2 else given
    try:
        verify_consistency(old.size, old.root(), size, tree.root(), path)
        believed = True
    except Unverified:
        believed = False
    assert believed == (path == right)


def manifests(data: bytes) -> None:
    """A manifest: what is taken has exactly these bytes."""
    with suppress(Damaged, SignatureMismatch):
        assert Manifest.from_json(data, what="manifest", key=None).to_json() == data
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # The same behind the seal, which hides most of the parser: any page with its right checksum.
        page = json.loads(data)
        page["checksum"] = "0" * 64
        Manifest.from_dict(page).sealed(SECRET)


def tensors(data: bytes) -> None:
    """A safetensors file: what is taken is what the manifest says, and within the file."""
    _, facts = encode(TENSORS, "file")
    with suppress(Damaged):
        for name, array in views(memoryview(data), facts, "file").items():
            assert (array.dtype, array.shape) == (TENSORS[name].dtype, TENSORS[name].shape)
            array.sum()


def ledgers(data: bytes) -> None:
    """Lines of a ledger, with its seals and with seals made good."""
    for lines in (data, resealed(data)):
        folder = SCRATCH / "store"
        ledger = ErasureLedger(folder, SECRET)
        ledger.folder.mkdir(parents=True, exist_ok=True)
        (ledger.folder / f"{1:012}.jsonl").write_bytes(lines)
        with suppress(Damaged):
            records = list(ledger.records())
            assert [record.number for record in records] == list(range(1, len(records) + 1))
            last = ErasureLedger(folder, SECRET).last()
            assert last == (records[-1] if records else None)


def markers(data: bytes) -> None:
    """The watermark of a store."""
    folder = SCRATCH / "marked"
    folder.mkdir(exist_ok=True)
    (folder / WATERMARK).write_bytes(data)
    with suppress(Damaged):
        StoreMarkers(folder, SECRET).watermark()


def resealed(data: bytes) -> bytes:
    """The same lines, each chained and sealed as whoever has the key would."""
    ledger, previous, lines = ErasureLedger(SCRATCH, SECRET), "", []
    for line in data.splitlines():
        try:
            page = json.loads(line)
            page.pop("seal", None)
            page["previous"] = previous or page.get("previous")
            previous = page["seal"] = ledger._seal(page)
            lines.append(json.dumps(page, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        except (ValueError, TypeError, AttributeError, RecursionError):
            lines.append(line + b"\n")
    return b"".join(lines)


def cursors(data: bytes) -> None:
    """A cursor: only one that was given out is taken."""
    text = text_of(data)
    with suppress(InvalidCursor):
        position = read_cursor(IDENTITY, "erasures", text)
        assert write_cursor(IDENTITY, "erasures", position) == text


def bodies(data: bytes) -> None:
    """A JSON body, and the tags of conditional requests."""
    with suppress(BadRequest, InvalidRequest):
        value = parse_json(data, {"users"})
        assert json.loads(data.decode("utf-8-sig")) == value
    text = text_of(data)
    tags = strong_tags(text)
    assert all(none_match([text], tag) for tag in tags)


def data_files(name: str) -> Callable[[bytes], None]:
    """A file of interactions by this name: refused in a sentence, or read as pairs of ids."""

    def read(data: bytes) -> None:
        path = SCRATCH / name
        path.write_bytes(data)
        with suppress(DataProblem):
            pairs = read_file(path, Reading())
            assert len(pairs.users) == len(pairs.items)

    read.__doc__ = data_files.__doc__
    return read


def target_files(data: bytes) -> None:
    """A file of targets to erase."""
    path = SCRATCH / "targets.csv"
    path.write_bytes(data)
    for strip in (False, True):
        with suppress(Refusal):
            assert len(read_target_file(path, strip=strip))


HARNESSES: dict[str, Callable[[bytes], None]] = {
    "receipts": receipts,
    "signed_receipts": signed_receipts,
    "evidence": evidence,
    "notes": notes,
    "proofs": proofs,
    "inclusion": inclusion,
    "manifests": manifests,
    "tensors": tensors,
    "ledgers": ledgers,
    "markers": markers,
    "cursors": cursors,
    "bodies": bodies,
    "csv_files": data_files("train.csv"),
    "dat_files": data_files("ratings.dat"),
    "txt_files": data_files("train.txt"),
    "target_files": target_files,
}
