"""The tree against the definition of RFC 9162, and its proofs against a verifier that nobody here wrote."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from tlog_scales.tlog import ConsistencyProof, InclusionProof

from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    fold,
    leaf_hash,
    node_hash,
    tile_width,
    verify_consistency,
    verify_inclusion,
)

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 255, 256, 257, 511, 513, 70_001)


def leaves(size: int) -> list[bytes]:
    """Hashes of the entries 0, 1, 2, ..."""
    return [leaf_hash(str(number).encode()) for number in range(size)]


def by_definition(hashes: Sequence[bytes]) -> bytes:
    """MTH as RFC 9162 writes it: split at the largest power of two, hash, recur."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    middle = 1
    while middle * 2 < len(hashes):
        middle *= 2
    return node_hash(by_definition(hashes[:middle]), by_definition(hashes[middle:]))


def tree(size: int) -> MerkleTree:
    """A tree whose tiles are computed from all its leaves; none is asked for that it cannot have."""
    levels = [leaves(size)]
    while len(levels[-1]) >= 256:
        below = levels[-1]
        levels.append([fold(below[at : at + 256]) for at in range(0, len(below) // 256 * 256, 256)])

    def read(level: int, index: int, width: int) -> list[bytes]:
        assert 0 < width <= 256
        tile = levels[level][index * 256 : index * 256 + width]
        assert len(tile) == width
        return tile

    return MerkleTree(size, read)


def test_an_empty_log_has_the_hash_of_nothing_as_its_root():
    """RFC 9162, section 2.1.1."""
    assert tree(0).root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("size", SIZES)
def test_roots_are_those_of_the_definition(size: int):
    """Whatever tiles they are read from."""
    assert tree(size).root() == by_definition(leaves(size))


@pytest.mark.P7
@pytest.mark.parametrize("size", SIZES)
def test_every_entry_is_proven_to_an_independent_verifier(size: int):
    """All of small trees; of large ones the edges of tiles."""
    whole, hashes = tree(size), leaves(size)
    root = whole.root()
    for index in sorted({0, 1, 254, 255, 256, 257, size // 2, size - 2, size - 1} & set(range(size))):
        proof = whole.inclusion_proof(index)
        InclusionProof(index, size, proof).check(hashes[index], root)
        verify_inclusion(hashes[index], index, size, proof, root)


@pytest.mark.P7
@pytest.mark.parametrize("size", SIZES)
def test_growth_is_proven_to_an_independent_verifier(size: int):
    """From the empty log, from itself, and from sizes about the edges of tiles."""
    whole = tree(size)
    for old in sorted({0, 1, 2, 255, 256, 257, size // 2, size - 1, size} & set(range(size + 1))):
        proof = whole.consistency_proof(old)
        ConsistencyProof(old, size, proof).check(tree(old).root(), whole.root())
        verify_consistency(old, tree(old).root(), size, whole.root(), proof)


@pytest.mark.P7
def test_all_small_trees_and_nothing_else_is_believed():
    """Every entry and growth of trees up to 17; no proof holds at another place, for another size, or when changed."""
    for size in range(1, 18):
        whole, hashes = tree(size), leaves(size)
        for index in range(size):
            proof = whole.inclusion_proof(index)
            for at, of in ((index + 1, size), (index - 1, size), (index, size * 2), (index, index)):
                with pytest.raises(Unverified):
                    verify_inclusion(hashes[index], at, of, proof, whole.root())
            for changed in (proof[:-1], [*proof, b"x" * 32], [b"y" * 32, *proof[1:]]):
                if changed != proof:
                    with pytest.raises(Unverified):
                        verify_inclusion(hashes[index], index, size, changed, whole.root())
        for old in range(1, size):
            proof = whole.consistency_proof(old)
            for changed in (proof[:-1], [*proof, b"x" * 32], [b"y" * 32, *proof[1:]], []):
                with pytest.raises(Unverified, match="does not continue"):
                    verify_consistency(old, tree(old).root(), size, whole.root(), changed)
            with pytest.raises(Unverified):
                verify_consistency(old, b"z" * 32, size, whole.root(), proof)


@pytest.mark.P7
def test_a_log_that_shrank_or_differs_at_one_size_is_refused():
    """By name."""
    for old, new in ((5, 4), (4, 4)):
        with pytest.raises(Unverified) as refused:
            verify_consistency(old, b"a" * 32, new, b"b" * 32, [])
        assert refused.value.code == "not_append_only"


def test_each_tile_is_read_once():
    """A proof reads three tiles of a log of 70,001 entries, each of them once."""
    asked: list[tuple[int, int]] = []
    whole = tree(70_001)
    counted = MerkleTree(70_001, lambda level, index, width: asked.append((level, index)) or whole.tile(level, index))

    counted.inclusion_proof(12_345)
    counted.inclusion_proof(12_346)

    assert len(asked) == len(set(asked))
    assert all(a != b for a, b in pairwise(sorted(asked)))
    assert len(asked) <= 6


@pytest.mark.parametrize("index", [-1, 5])
def test_an_entry_that_is_not_there_has_no_proof(index: int):
    """A plain error for the caller, not a proof of something else."""
    with pytest.raises(ValueError, match="5 entries"):
        tree(5).inclusion_proof(index)


def test_a_size_that_never_was_has_no_proof():
    """As above."""
    with pytest.raises(ValueError, match="5 entries"):
        tree(5).consistency_proof(6)


def test_widths_of_tiles():
    """The example of the specification: 70,000 entries."""
    assert [tile_width(70_000, 0, 272), tile_width(70_000, 0, 273), tile_width(70_000, 0, 274)] == [256, 112, 0]
    assert [tile_width(70_000, 1, 0), tile_width(70_000, 1, 1), tile_width(70_000, 2, 0)] == [256, 17, 1]
