"""The Merkle tree of RFC 9162, section 2.1: hashes, proofs out of stored tiles, and their verification.

Generation reads tiles of 256 hashes, so that a proof from ten million leaves touches a few of them; verification
follows the iterative algorithms of sections 2.1.3.2 and 2.1.4.2 and shares no code with it.
"""

import hashlib
from collections.abc import Callable, Sequence

from service.audit.tlog.errors import Unverified

HASH_BYTES = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""

ReadTile = Callable[[int, int, int], Sequence[bytes]]
"""(level, index, width) -> the first `width` hashes of a tile, 32 bytes each; level 0 holds the hashes of leaves."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root of a perfect subtree over these hashes; their number is a power of two, >= 1."""
    level, sha256 = hashes, hashlib.sha256  # as node_hash, without its call: a proof takes hundreds
    while len(level) > 1:
        level = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def tile_width(size: int, level: int, index: int) -> int:
    """How many hashes a tile of a tree of this size holds: 0 to 256."""
    return max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH))


class MerkleTree:
    """The tree over the first `size` leaves of a log.

    Args:
        size: number of leaves, >= 0.
        read_tile: gives the hashes of a tile; each tile is asked for once.
    """

    def __init__(self, size: int, read_tile: ReadTile) -> None:
        self.size = size
        self._read_tile = read_tile
        self._tiles: dict[tuple[int, int], Sequence[bytes]] = {}

    def root(self) -> bytes:
        """The Merkle Tree Hash of all leaves."""
        return self._hash(0, self.size) if self.size else EMPTY_ROOT

    def inclusion_proof(self, index: int) -> list[bytes]:
        """PATH(index, D[0:size]): the siblings from the leaf up; raises ValueError unless 0 <= index < size."""
        if not 0 <= index < self.size:
            msg = f"The log has {self.size} entries; there is no index {index} in it."
            raise ValueError(msg)
        return self._path(index, 0, self.size)

    def consistency_proof(self, old_size: int) -> list[bytes]:
        """PROOF(old_size, D[0:size]); empty for equal sizes and for an empty old tree; ValueError beyond the size."""
        if not 0 <= old_size <= self.size:
            msg = f"The log has {self.size} entries; it was never of size {old_size}."
            raise ValueError(msg)
        return [] if old_size in (0, self.size) else self._subproof(old_size, 0, self.size, whole=True)

    def tile(self, level: int, index: int) -> Sequence[bytes]:
        """The hashes of a tile, as many as this tree has of it."""
        tile = self._tiles.get((level, index))
        if tile is None:
            tile = self._read_tile(level, index, tile_width(self.size, level, index))
            self._tiles[level, index] = tile
        return tile

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        middle = start + _split(end - start)
        if index < middle:
            return [*self._path(index, start, middle), self._hash(middle, end)]
        return [*self._path(index, middle, end), self._hash(start, middle)]

    def _subproof(self, old_size: int, start: int, end: int, *, whole: bool) -> list[bytes]:
        if old_size == end:
            return [] if whole else [self._hash(start, end)]
        middle = start + _split(end - start)
        if old_size <= middle:
            return [*self._subproof(old_size, start, middle, whole=whole), self._hash(middle, end)]
        return [*self._subproof(old_size, middle, end, whole=False), self._hash(start, middle)]

    def _hash(self, start: int, end: int) -> bytes:
        """The hash over leaves start to end, exclusive; `start` is a multiple of the largest power of two within."""
        width = end - start
        height = width.bit_length() - 1
        if width != 1 << height:
            middle = start + _split(width)
            return node_hash(self._hash(start, middle), self._hash(middle, end))
        level, rest = divmod(height, TILE_HEIGHT)
        first = start >> (TILE_HEIGHT * level)
        index, offset = divmod(first, TILE_WIDTH)
        return fold(self.tile(level, index)[offset : offset + (1 << rest)])


class MerkleLevels:
    """A tree whose nodes are all in memory, made at once: the same root and proofs as `MerkleTree`.

    Args:
        leaves: hashes of the leaves, 32 bytes each, at least one.
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            msg = "A tree without leaves has no nodes."
            raise ValueError(msg)
        self._levels = [list(leaves)]
        while len(level := self._levels[-1]) > 1:
            above = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
            self._levels.append(above + level[len(above) * 2 :])  # one that stands alone moves up as it is

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    def root(self) -> bytes:
        """The Merkle Tree Hash of all leaves."""
        return self._levels[-1][0]

    def inclusion_proof(self, index: int) -> list[bytes]:
        """The siblings from the leaf up; `index` from 0."""
        proof = []
        for level in self._levels[:-1]:
            if (index ^ 1) < len(level):
                proof.append(level[index ^ 1])
            index >>= 1
        return proof


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf hash is at `index` of the tree of `size` leaves with this root (RFC 9162, 2.1.3.2).

    Raises:
        Unverified: wrong_index, wrong_proof.
    """
    if not 0 <= index < size:
        raise Unverified("wrong_index", f"A tree of {size} entries has none at {index}.")
    at, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Unverified("wrong_proof", "The inclusion proof has more hashes than the tree has levels.")
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    if last or found != root:
        raise Unverified(
            "wrong_proof", "The inclusion proof does not lead from the entry to the root of the checkpoint."
        )


def verify_consistency(old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `size` leaves begins with the one of `old_size` leaves (RFC 9162, 2.1.4.2).

    Raises:
        Unverified: not_append_only.
    """
    if old_size > size:
        raise _forked(f"the log shrank from {old_size} to {size} entries")
    if old_size in (0, size):
        same = old_root == (EMPTY_ROOT if old_size == 0 else root)
        if proof or not same:
            raise _forked("two heads of one size differ" if not same else "the proof is not empty")
        return
    if not proof:
        raise _forked("the proof is empty")
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    at, last = old_size - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _forked("the proof has more hashes than the tree has levels")
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    if last or old != old_root or new != root:
        raise _forked("the proof does not lead from the old root to the new one")


def _forked(why: str) -> Unverified:
    return Unverified("not_append_only", f"The newer log does not continue the older one: {why}.")


def _split(width: int) -> int:
    """The largest power of two below `width` (> 1)."""
    return 1 << ((width - 1).bit_length() - 1)
