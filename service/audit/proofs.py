"""Proofs and tiles out of the log, each with the signed head that it belongs to."""

from dataclasses import dataclass

from sqlalchemy import Connection

from service.audit import repository
from service.audit.checkpoints import CheckpointPublisher
from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.merkle import HASH_BYTES, TILE_WIDTH, tile_width
from service.audit.tlog.proof import LogProof
from service.audit.tlog.tiles import bundle, parse_tile_path
from service.audit.tree import tree_of
from service.platform.database import Database
from service.platform.problem import FieldError, InvalidRequest, NotFound


@dataclass(frozen=True)
class ProvenEntry:
    """An entry at `index` (from 0), its leaf hash, and the inclusion proof to the head of `size` entries."""

    index: int
    size: int
    leaf_hash: bytes
    hashes: tuple[bytes, ...]
    checkpoint: str

    def log_proof(self) -> LogProof:
        """The same as a C2SP tlog-proof."""
        return LogProof(self.index, self.hashes, self.checkpoint)


@dataclass(frozen=True)
class ProvenGrowth:
    """The consistency proof to the head of `size` entries, and that head, signed."""

    size: int
    hashes: tuple[bytes, ...]
    checkpoint: str


async def inclusion(
    database: Database, publisher: CheckpointPublisher, index: int, size: int | None = None
) -> ProvenEntry:
    """Prove that the log holds the entry at `index`, to the smallest signed head of at least `size` entries.

    Raises:
        InvalidRequest: the log has no such entry, or was never of that size.
    """
    latest, note = await publisher.latest()
    if index >= latest.size:
        raise _beyond("query/index", latest.size)
    head, note = await _head(publisher, size, latest.size) if size is not None else (latest, note)
    if index >= head.size:
        raise _beyond("query/index", head.size)

    def unit(connection: Connection) -> tuple[bytes, list[bytes]]:
        leaf = repository.leaf_hashes(connection, index, 1)[0]
        return leaf, tree_of(connection, head.size).inclusion_proof(index)

    leaf, hashes = await database.run_read(unit)
    return ProvenEntry(index, head.size, leaf, tuple(hashes), note)


async def consistency(
    database: Database, publisher: CheckpointPublisher, old_size: int, size: int | None = None
) -> ProvenGrowth:
    """Prove that the log of `old_size` entries is the beginning of a signed head, by default the latest.

    Raises:
        InvalidRequest: the log was never of one of these sizes.
    """
    latest, note = await publisher.latest()
    head, note = await _head(publisher, size, latest.size) if size is not None else (latest, note)
    if old_size > head.size:
        raise _beyond("query/old_size", head.size)
    hashes = await database.run_read(lambda connection: tree_of(connection, head.size).consistency_proof(old_size))
    return ProvenGrowth(head.size, tuple(hashes), note)


async def tile(database: Database, publisher: CheckpointPublisher, level: str, name: str) -> bytes:
    """The bytes of a tile (`level` 0 to 63) or of a bundle of entries (`level` entries); raises NotFound."""
    place = parse_tile_path(name)
    if place is None:
        raise NotFound
    index, width = place
    head, _ = await publisher.latest()
    height = 0 if level == "entries" else int(level)
    if tile_width(head.size, height, index) < width:
        raise NotFound
    if level == "entries":
        first = index * TILE_WIDTH
        return bundle(await database.run_read(lambda connection: repository.entries(connection, first, width)))
    hashes = await database.run_read(lambda connection: tree_of(connection, head.size).tile(height, index))
    return b"".join(hashes)[: width * HASH_BYTES]


async def _head(publisher: CheckpointPublisher, size: int, latest: int) -> tuple[LogCheckpoint, str]:
    if size > latest:
        raise _beyond("query/size", latest)
    return await publisher.covering(size)


def _beyond(pointer: str, size: int) -> InvalidRequest:
    return InvalidRequest(errors=[FieldError(pointer, f"The log has {size} entries.")])
