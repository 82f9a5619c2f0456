"""From matches to places: one store's result while it is searched, and the time that a search may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from service.residue.byte_search import ByteSearch, Matches
from service.residue.needles import Needle
from service.residue.report import NeedleKind, ResiduePlace, ResidueStore, StoreResult

Progress = Callable[[ResidueStore, int], None]
"""Told which store is searched, and how many bytes were read in all."""
Judge = Callable[[Needle, Matches], "MatchVerdict"]


@dataclass(frozen=True)
class MatchVerdict:
    """What matches mean: how many may not be there, where, why; and how many may, and why."""

    residue: int
    at: int | None = None
    note: str | None = None
    allowed: int = 0
    why: str | None = None


def all_residue(note: str | None = None) -> Judge:
    """Whatever is found may not be there."""
    return lambda needle, matches: MatchVerdict(matches.count, matches.offsets[0], note)


class OutOfTime(Exception):
    """The search may not go on."""


@dataclass
class SearchBudget:
    """The time and the progress of one search.

    `deadline`: monotonic seconds; None: none. `stopping`: whether the process is told to end.
    """

    deadline: float | None = None
    progress: Progress | None = None
    stopping: Callable[[], bool] | None = None
    n_bytes: int = 0

    def reading(self, store: ResidueStore, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks, counted; raises OutOfTime."""
        for chunk in chunks:
            over = self.deadline is not None and time.monotonic() > self.deadline
            if over or (self.stopping is not None and self.stopping()):
                raise OutOfTime
            self.n_bytes += len(chunk)
            if self.progress is not None:
                self.progress(store, self.n_bytes)
            yield chunk


@dataclass
class StoreSearch:
    """The search of one store: a result that grows."""

    result: StoreResult
    budget: SearchBudget
    search: ByteSearch
    patterns: Sequence[Needle]
    _places: dict[tuple[str, NeedleKind, str | None, str | None], ResiduePlace] = field(default_factory=dict)

    def bytes_of(
        self, place: str, chunks: Iterable[bytes], judge: Judge | None = None, *, offsets: bool = True
    ) -> bool:
        """Search a stream of bytes; whether anything was found. Raises what reading raises, and OutOfTime."""
        found = self.search.find(self.budget.reading(self.result.store, chunks))
        self.result.n_bytes += found.n_bytes
        for number, matches in sorted(found.matches.items()):
            needle = self.patterns[number]
            judged = (judge or all_residue())(needle, matches)
            if judged.residue:
                at = judged.at if offsets else None
                self.residue(place, needle.kind, judged.residue, needle.erasures, at, needle.spelling, judged.note)
            if judged.allowed:
                of = set(needle.erasures)
                self._add(
                    self.result.allowed, place, needle.kind, judged.allowed, of, None, needle.spelling, judged.why
                )
        return bool(found.matches)

    def residue(
        self,
        place: str,
        kind: NeedleKind,
        count: int,
        erasures: Iterable[str],
        at: int | None = None,
        spelling: str | None = None,
        note: str | None = None,
    ) -> None:
        """Put a place on record; what is alike there is counted together."""
        self._add(self.result.places, place, kind, count, set(erasures), at, spelling, note)

    def unread(self, why: str) -> None:
        """Say what was not searched; twice the same is said once."""
        if why not in self.result.unread:
            self.result.unread.append(why)

    def _add(
        self,
        places: list[ResiduePlace],
        place: str,
        kind: NeedleKind,
        count: int,
        erasures: set[str],
        at: int | None,
        spelling: str | None,
        note: str | None,
    ) -> None:
        key = (f"{places is self.result.allowed}{place}", kind, spelling, note)
        known = self._places.get(key)
        if known is None:
            known = self._places[key] = ResiduePlace(place, kind, 0, at, spelling, note)
            places.append(known)
        known.count += count
        known.erasures |= erasures
        if at is not None:
            known.at = at if known.at is None else min(known.at, at)
