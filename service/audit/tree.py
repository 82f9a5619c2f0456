"""The log's Merkle tree over SQL: leaf hashes are in the entries, hashes over full tiles beside them.

Nothing of it is touched when an entry is written. Whoever signs a head stores the hashes over the tiles that have
become full since; what is missing is computed from the level below: slower, and as right.
"""

from functools import partial

from sqlalchemy import Connection

from service.audit import repository
from service.audit.tlog.merkle import TILE_HEIGHT, TILE_WIDTH, MerkleTree, fold
from service.platform.problem import Problem

NODES_MAX = 64
"""Hashes stored by one unit of work: 64 tiles of leaves, 16,384 entries."""


class LogDamaged(Problem):
    """Entries are missing from the log, or what was signed no longer follows from them."""

    code = "log_damaged"
    status = 500
    title = "The audit log is damaged"
    next_step = "Nothing is signed until an operator restores it; the runbook says how."


def tree_of(connection: Connection, size: int) -> MerkleTree:
    """The tree over the first `size` entries, read as it is asked for; use it within the transaction."""
    return MerkleTree(size, partial(_tile, connection))


def store_nodes(connection: Connection, size: int, most: int = NODES_MAX) -> bool:
    """Store up to `most` hashes over full tiles of the tree of this size; False where none was missing."""
    tree = partial(_tile, connection)
    level = 1
    while size >> (TILE_HEIGHT * level):
        have = repository.count_nodes(connection, level)
        missing = range(have, size >> (TILE_HEIGHT * level))[:most]
        if missing:
            hashes = [fold(tree(level - 1, at, TILE_WIDTH)) for at in missing]
            repository.insert_nodes(connection, level, have, hashes)
            return True
        level += 1
    return False


def _tile(connection: Connection, level: int, index: int, width: int) -> list[bytes]:
    first = index * TILE_WIDTH
    if level:
        hashes = repository.nodes(connection, level, first, width)
        absent = range(first + len(hashes), first + width)
        hashes += [fold(_tile(connection, level - 1, at, TILE_WIDTH)) for at in absent]
    else:
        hashes = repository.leaf_hashes(connection, first, width)
    if len(hashes) != width:
        msg = f"Entries between {first} and {first + width} of level {level} are missing."
        raise LogDamaged(msg)
    return hashes
