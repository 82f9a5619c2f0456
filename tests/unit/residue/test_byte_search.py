"""Needles in streams: found across chunks, counted once, not where longer texts stand by right."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from service.residue.byte_search import ByteSearch

LETTERS = st.binary(min_size=1, max_size=6).map(lambda data: bytes(b"ab"[byte % 2] for byte in data))


def naive(data: bytes, patterns: list[bytes], covers: list[bytes]) -> dict[int, list[int]]:
    """Every place of every pattern, by looking everywhere."""
    spans = [
        (at, at + len(cover)) for cover in covers for at in range(len(data)) if data[at : at + len(cover)] == cover
    ]
    found = {}
    for number, pattern in enumerate(patterns):
        places = [
            at
            for at in range(len(data))
            if data[at : at + len(pattern)] == pattern
            and not any(begin <= at and at + len(pattern) <= end for begin, end in spans)
        ]
        if places:
            found[number] = places
    return found


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({at % (len(data) + 1) for at in cuts}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=80).map(lambda data: bytes(b"ab"[byte % 2] for byte in data)),
    patterns=st.lists(LETTERS, min_size=1, max_size=5),
    covers=st.lists(LETTERS, max_size=3),
    cuts=st.lists(st.integers(0, 80), max_size=8),
)
def test_it_finds_what_looking_everywhere_finds(
    data: bytes, patterns: list[bytes], covers: list[bytes], cuts: list[int]
) -> None:
    """In chunks of any size, overlapping or alike, covered or not."""
    found = ByteSearch(patterns, covers).find(cut(data, cuts))

    assert found.n_bytes == len(data)
    assert {number: matches.offsets for number, matches in found.matches.items()} == naive(data, patterns, covers)
    assert all(matches.count == len(matches.offsets) for matches in found.matches.values())


def test_many_patterns_are_several_automata(monkeypatch) -> None:
    """Their numbers stay those that were given."""
    monkeypatch.setattr("service.residue.byte_search.PATTERNS_MAX", 2)

    found = ByteSearch([b"one", b"two", b"three", b"four", b"five"]).find([b"..four..th", b"ree..five"])

    assert sorted(found.matches) == [2, 3, 4]
    assert found.matches[2].offsets == [8]


def test_nothing_to_look_for_reads_all_the_same() -> None:
    """The bytes are counted: a report must not claim more than was read."""
    assert ByteSearch([]).find([b"some", b"thing"]).n_bytes == 9
