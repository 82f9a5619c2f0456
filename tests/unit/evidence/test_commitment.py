"""What is absent from training data can be shown to be, what is in it cannot, and no proof can be changed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import MerkleLevels, MerkleTree, leaf_hash
from service.evidence.absence import USERS, AbsenceProof
from service.evidence.commitment import StillTrainedOn, TrainingCommitment
from service.evidence.training_key import TrainingKey

KEY = TrainingKey(b"k" * 32)
Pairs = frozenset[tuple[int, int]]


def committed(pairs: Pairs, key: TrainingKey = KEY) -> TrainingCommitment:
    """A commitment to interactions of users u<n> and items i<n>."""
    users, items = sorted({user for user, _ in pairs}), sorted({item for _, item in pairs})
    edges = np.array(sorted((users.index(user), items.index(item)) for user, item in pairs), np.int32)
    return TrainingCommitment.of(
        [f"u{user}" for user in users], [f"i{item}" for item in items], edges.reshape(-1, 2).T, key
    )


def holds(commitment: TrainingCommitment, proof: AbsenceProof) -> bool:
    """Whether a proof, passed on as JSON, verifies against what is published."""
    tree = commitment.document()[proof.tree]
    try:
        again = AbsenceProof.read(proof.document())
        again.verify(tree["size"], bytes.fromhex(tree["root"]))
    except Unverified:
        return False
    return again == proof


small = st.integers(0, 6)
data = st.frozensets(st.tuples(small, small), max_size=20)


@pytest.mark.P8
@settings(max_examples=60, deadline=None)
@given(data)
def test_what_is_absent_has_a_proof_and_what_is_there_has_none(pairs: Pairs) -> None:
    """Users, items and pairs, of every kind: the empty data set, one user, somebody who has nothing of it."""
    commitment = committed(pairs)
    users, items = {user for user, _ in pairs}, {item for _, item in pairs}
    for number in range(8):
        for there, absence in ((users, commitment.absence_of_user), (items, commitment.absence_of_item)):
            id = f"{'u' if there is users else 'i'}{number}"
            if number in there:
                with pytest.raises(StillTrainedOn):
                    absence(id)
            else:
                proof = absence(id)
                assert holds(commitment, proof)
                assert proof.excludes(KEY.user(id) if there is users else KEY.item(id))
    for pair in [(user, item) for user in range(7) for item in range(7)]:
        user, item = KEY.user(f"u{pair[0]}"), KEY.item(f"i{pair[1]}")
        if pair in pairs:
            with pytest.raises(StillTrainedOn):
                commitment.absence_of_pair(f"u{pair[0]}", f"i{pair[1]}")
        else:
            proof = commitment.absence_of_pair(f"u{pair[0]}", f"i{pair[1]}")
            assert holds(commitment, proof)
            assert proof.excludes_pair(user, item) or proof.excludes(user if proof.tree == USERS else item)


@settings(max_examples=60, deadline=None)
@given(data)
def test_no_proof_fits_what_is_there(pairs: Pairs) -> None:
    """Not one of all proofs that can be had excludes a user, an item or a pair that the base was trained on."""
    commitment = committed(pairs)
    absent = [f"u{number}" for number in range(20, 60)]
    proofs = [commitment.absence_of_user(id) for id in absent]
    proofs += [commitment.absence_of_item(id) for id in absent]
    proofs += [commitment.absence_of_pair(f"u{user}", "nothing") for user, _ in pairs]
    proofs += [commitment.absence_of_pair(f"u{user}", f"i{item}") for user, item in _missing(pairs)]
    for user, item in pairs:
        of_user, of_item = KEY.user(f"u{user}"), KEY.item(f"i{item}")
        for proof in proofs:
            assert not proof.excludes(of_user if proof.tree == USERS else of_item)
            assert not proof.excludes_pair(of_user, of_item)


def _missing(pairs: Pairs) -> list[tuple[int, int]]:
    users, items = {user for user, _ in pairs}, {item for _, item in pairs}
    return [(user, item) for user in users for item in items if (user, item) not in pairs]


@settings(max_examples=20, deadline=None)
@given(st.frozensets(st.tuples(small, small), min_size=3, max_size=20), st.data())
def test_one_bit_changed_anywhere_and_it_fails(pairs: Pairs, drawn: st.DataObject) -> None:
    """Every single bit of values, list and hashes; another place; the other tree."""
    commitment = committed(pairs)
    missing = _missing(pairs)
    proof = commitment.absence_of_user("nobody")
    if missing:
        user, item = drawn.draw(st.sampled_from(missing))
        proof = commitment.absence_of_pair(f"u{user}", f"i{item}")
    assert holds(commitment, proof)

    changed = [replace(proof, index=proof.index ^ 1), replace(proof, index=proof.index + 1), replace(proof, hashes=())]
    changed += [replace(proof, hashes=(*proof.hashes, b"\0" * 32)), replace(proof, hashes=proof.hashes[::-1])]
    changed += [replace(proof, tree="items")]
    for name in ("low", "high", "list_hash", "partners"):
        value: bytes | None = getattr(proof, name)
        changed += [replace(proof, **{name: flipped(value, bit)}) for bit in range(8 * len(value or b""))]  # type: ignore[arg-type]
    for at, one in enumerate(proof.hashes):
        for bit in range(256):
            hashes = (*proof.hashes[:at], flipped(one, bit), *proof.hashes[at + 1 :])
            changed.append(replace(proof, hashes=hashes))
    for each in changed:
        assert each == proof or not holds(commitment, each), each


def flipped(value: bytes | None, bit: int) -> bytes:
    """One bit is the other one."""
    assert value is not None
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_wider_gap_and_a_shorter_list_are_refused() -> None:
    """Values that do not follow one another in the tree; a list that leaves an item out, doubles or reorders one."""
    commitment = committed(frozenset((user, item) for user in range(5) for item in range(5) if (user, item) != (1, 1)))
    tree = commitment.document()[USERS]
    size, root = tree["size"], bytes.fromhex(tree["root"])
    gaps = {proof.index: proof for proof in (commitment.absence_of_user(f"x{number}") for number in range(100))}
    pair = commitment.absence_of_pair("u1", "i1")
    assert pair.partners is not None
    listed = [pair.partners[at : at + 16] for at in range(0, len(pair.partners), 16)]

    lies = [replace(gaps[1], high=gaps[2].high), replace(gaps[2], low=gaps[1].low), replace(gaps[0], high=gaps[3].high)]
    lies += [replace(gaps[2], index=1), replace(gaps[2], hashes=gaps[1].hashes)]
    for each in (listed[1:], [*listed, listed[0]], listed[::-1]):
        lies.append(replace(pair, partners=b"".join(each)))
    for lie in lies:
        with pytest.raises(Unverified) as refused:
            lie.verify(size, root)
        assert refused.value.code == "wrong_absence"


def test_another_base_has_other_values_and_other_roots() -> None:
    """Nobody follows a person from one evidence to the next; what is published tells nothing of the key."""
    pairs = frozenset({(1, 1), (1, 2), (2, 1)})
    one, other = committed(pairs), committed(pairs, TrainingKey(b"l" * 32))

    assert one.document() == committed(pairs).document()
    assert one.document()["users"]["root"] != other.document()["users"]["root"]
    assert one.document()["key"] != other.document()["key"]
    assert str(KEY) not in str(one.document())
    assert not holds(other, one.absence_of_user("u5"))
    assert TrainingKey.parse(f" {KEY}\n") == KEY
    with pytest.raises(ValueError, match="64"):
        TrainingKey.parse("abc")


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 700), st.data())
def test_levels_in_memory_make_the_same_tree(size: int, drawn: st.DataObject) -> None:
    """As the tree over tiles: root and proofs."""
    leaves = [leaf_hash(str(number).encode()) for number in range(size)]
    levels = MerkleLevels(leaves)
    index = drawn.draw(st.integers(0, size - 1))

    def tile(level: int, at: int, width: int) -> list[bytes]:
        if level == 0:
            return leaves[256 * at : 256 * at + width]
        return [
            MerkleLevels(leaves[256 * each : 256 * each + 256]).root() for each in range(256 * at, 256 * at + width)
        ]

    tree = MerkleTree(size, tile)
    assert levels.size == size
    assert levels.root() == tree.root()
    assert levels.inclusion_proof(index) == tree.inclusion_proof(index)
    with pytest.raises(ValueError, match="without leaves"):
        MerkleLevels([])


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("AAAA")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
_MEMBERS = ("tree", "index", "low", "high", "list_hash", "list", "hashes")


@settings(max_examples=200)
@given(st.one_of(_JSON, st.fixed_dictionaries(dict.fromkeys(_MEMBERS[1:], _JSON) | {"tree": st.just("users")})))
def test_whatever_is_presented_is_refused_and_not_crashed_on(value: object) -> None:
    """Random values, and random values in the shape of a proof."""
    with pytest.raises(Unverified):
        AbsenceProof.read(value).verify(3, b"\0" * 32)
