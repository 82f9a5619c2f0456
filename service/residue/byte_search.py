"""Many needles looked for at once in a stream of bytes, in bounded memory (Aho-Corasick)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ahocorasick_rs import BytesAhoCorasick, Implementation

CHUNK_BYTES = 1 << 20
"""What is read at once: a search of it keeps other threads waiting for no more than the read."""
PATTERNS_MAX = 50_000
"""Of one automaton, which bounds its memory; more patterns are more automata, and the bytes pass through each."""
OFFSETS_KEPT = 1_000_000


@dataclass
class Matches:
    """Where one pattern was found: how often, and the first offsets."""

    count: int = 0
    offsets: list[int] = field(default_factory=list)

    def add(self, offset: int) -> None:
        """Count one more."""
        self.count += 1
        if len(self.offsets) < OFFSETS_KEPT:
            self.offsets.append(offset)


@dataclass
class StreamMatches:
    """What a search of one stream found: the matches of each pattern by its number, and the bytes that were read."""

    matches: dict[int, Matches] = field(default_factory=dict)
    n_bytes: int = 0


class ByteSearch:
    """A search for patterns, each of at least one byte.

    Args:
        patterns: what is looked for.
        covers: longer (or equal) bytes that may stand where they stand: a pattern that lies within one of them is not
            counted there. `user-1` is no residue within `user-12`.
    """

    def __init__(self, patterns: Sequence[bytes], covers: Iterable[bytes] = ()) -> None:
        known = dict.fromkeys(covers)
        self._n = len(patterns)
        self._margin = max(map(len, [*patterns, *known]), default=1)
        self._groups = [
            _Group(patterns[at : at + PATTERNS_MAX], at, list(known)) for at in range(0, len(patterns), PATTERNS_MAX)
        ]

    def find(self, chunks: Iterable[bytes]) -> StreamMatches:
        """Search a stream that comes in chunks of any size; a pattern across their borders is found, and once."""
        found = StreamMatches()
        for start, data, low, high in self._windows(chunks, found):
            for group in self._groups:
                for number, offset in group.matches(data, low, high):
                    found.matches.setdefault(number, Matches()).add(start + offset)
        return found

    def _windows(self, chunks: Iterable[bytes], found: StreamMatches) -> Iterator[tuple[int, bytes, int, int]]:
        """(offset of the window, its bytes, from where on matches that begin in it count, up to where).

        A match counts in the window in which a margin stands on either side of its first byte, so that whatever may
        cover it is in sight.
        """
        tail, start, low = b"", 0, 0
        for chunk in chunks:
            found.n_bytes += len(chunk)
            data = tail + chunk
            high = max(len(data) - 2 * self._margin, low)
            if high > low:
                yield start, data, low, high
            cut = max(high - self._margin, 0)
            tail, start, low = data[cut:], start + cut, high - cut
        if len(tail) > low:
            yield start, tail, low, len(tail)


class _Group:
    """One automaton over some of the patterns, and the covers."""

    def __init__(self, patterns: Sequence[bytes], first: int, covers: Sequence[bytes]) -> None:
        distinct = dict[bytes, list[int]]()
        for number, pattern in enumerate(patterns, first):
            distinct.setdefault(pattern, []).append(number)
        self._numbers, self._n = list(distinct.values()), len(distinct)
        self._automaton = BytesAhoCorasick([*distinct, *covers], implementation=Implementation.ContiguousNFA)

    def matches(self, data: bytes, low: int, high: int) -> Iterator[tuple[int, int]]:
        found = self._automaton.find_matches_as_indexes(data, overlapping=True)
        spans = [(begin, end) for which, begin, end in found if which >= self._n]
        for which, begin, end in found:
            if which >= self._n or not low <= begin < high or _is_covered(begin, end, spans):
                continue
            for number in self._numbers[which]:
                yield number, begin


def _is_covered(begin: int, end: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(left <= begin and end <= right for left, right in spans)
