"""Issues receipts: reads an erasure with its entries of the log, and signs what they say."""

import orjson
from sqlalchemy import Connection

from service.audit import repository as audit
from service.audit.checkpoints import CheckpointPublisher
from service.audit.repository import AuditRow
from service.audit.tlog.merkle import MerkleTree
from service.audit.tlog.proof import LogProof
from service.audit.tree import LogDamaged, tree_of
from service.erasures import repository as erasures
from service.erasures.problems import ErasureNotFound
from service.erasures.repository import Erasure
from service.evidence import repository as evidence
from service.platform.canonical import canonical_json
from service.platform.dependencies import Services
from service.receipts.document import ENTRIES_MAX, Receipt, ReceiptEntry
from service.receipts.history import ERASED
from service.receipts.statement import state


async def issue(
    services: Services, publisher: CheckpointPublisher, erasure_id: str, owner: str | None = None
) -> Receipt:
    """The receipt of an erasure in the state that it is in; the same state gives the same bytes.

    The head in it is the smallest signed one that covers the latest entry; a witness may add its cosignature.

    Raises:
        ErasureNotFound: there is none of this id, or it is not of `owner`.
        LogDamaged: the log's head cannot be signed, or the evidence of what is erased is gone.
    """

    def facts(connection: Connection) -> tuple[Erasure | None, list[AuditRow], str | None]:
        erasure, rows = erasures.find(connection, erasure_id), audit.page(connection, 0, ENTRIES_MAX, erasure_id)
        return erasure, rows, evidence.find(connection, erasure_id)

    erasure, rows, kept = await services.database.run_read(facts)
    if erasure is None or owner not in (None, erasure.owner):
        raise ErasureNotFound
    if erasure.status == ERASED and kept is None:
        msg = f"Erasure {erasure_id} is erased, and its evidence is not there."
        raise LogDamaged(msg)
    checkpoint, note = await publisher.covering(rows[-1].seq)

    def proofs(connection: Connection) -> list[list[bytes]]:
        tree = tree_of(connection, checkpoint.size)
        return [_proof(tree, row) for row in rows]

    paths = await services.database.run_read(proofs)
    documents = [orjson.loads(row.canonical) for row in rows]
    statement = canonical_json(state(erasure, publisher.origin, documents)).decode()
    signature = publisher.key.sign(statement + "\n").line()
    entries = (ReceiptEntry(row.seq - 1, row.canonical, tuple(path)) for row, path in zip(rows, paths, strict=True))
    return Receipt(statement, signature, tuple(entries), note, kept if erasure.status == ERASED else None)


def log_proof(receipt: Receipt) -> LogProof:
    """The proof of the latest entry about the erasure as a C2SP tlog-proof, the entry itself in its extra data."""
    last = receipt.entries[-1]
    return LogProof(last.index, last.hashes, receipt.checkpoint, last.text.encode())


def _proof(tree: MerkleTree, row: AuditRow) -> list[bytes]:
    return tree.inclusion_proof(row.seq - 1)
