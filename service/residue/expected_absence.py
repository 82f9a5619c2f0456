"""What ought to be gone at the time of a search: needles less what came back by consent, and what may still stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ahocorasick_rs import BytesAhoCorasick
from sqlalchemy import Connection

from service.residue import repository
from service.residue.byte_search import ByteSearch
from service.residue.needles import Needle, Needles
from service.residue.report import NeedleKind
from service.residue.spellings import spellings_of_text, too_short

COVERS_MAX = 1_000
"""Longer texts that stay and hold a needle: with more, its bytes are no sign of anybody."""


@dataclass
class ExpectedAbsence:
    """What a search looks for, made ready.

    `users`, `items`, `pairs`: keys that ought to be gone, with their erasures. `suppressed`: digests that suppressions
    and tombstones keep. `everywhere` searches `patterns`; `in_stream` the `stream_patterns`, ids of erasures too.
    """

    needles: Needles
    users: dict[int, set[str]]
    items: dict[int, set[str]]
    pairs: dict[tuple[int, int], set[str]]
    suppressed: set[bytes]
    patterns: list[Needle]
    stream_patterns: list[Needle]
    everywhere: ByteSearch
    in_stream: ByteSearch
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, connection: Connection, needles: Needles) -> ExpectedAbsence:
        """Compare needles with what the database holds by right now."""
        back: tuple[set[int], set[int], set[tuple[int, int]]] = (set(), set(), set())
        if needles.of_erasures:
            back = repository.back_in_use(connection, needles.users, needles.items, needles.pairs, needles.erasures)
        users, items = _without(needles.users, back[0]), _without(needles.items, back[1])
        pairs = {pair: of for pair, of in needles.pairs.items() if pair not in back[2]}
        digests = [data for (kind, data) in needles.secrets if kind in (NeedleKind.DIGEST, NeedleKind.IDEMPOTENCY)]
        legitimate = repository.legitimate_digests(connection, digests, needles.erasures, set(users), set(items))
        suppressed = repository.suppressed_digests(connection, list(needles.digests()))
        texts = [text for kind, text in needles.texts if kind is not NeedleKind.REQUEST and not too_short(text)]
        staying = repository.legitimate_texts(connection, needles.erasures, set(users), set(items))
        covers = _covers(texts, staying)
        common = {text for text, longer in covers.items() if text in longer or len(longer) > COVERS_MAX}
        not_searched = {each for text in common for each in spellings_of_text(text).values()} | legitimate
        not_searched |= {each.hex().encode() for each in legitimate} | {
            each.hex().upper().encode() for each in legitimate
        }
        everything = [needle for needle in needles.patterns() if needle.pattern not in not_searched]
        patterns = [needle for needle in everything if needle.kind is not NeedleKind.REQUEST]
        spelled = {
            each
            for text, longer in covers.items()
            if text not in common
            for cover in longer
            for each in spellings_of_text(cover).values()
        }
        counts = needles.counts() | {
            "patterns": len(everything),
            "in_use": len(back[0]) + len(back[1]) + len(back[2]),
            "in_texts_that_stay": len(common),
        }
        return cls(
            *(needles, users, items, pairs, suppressed, patterns, everything),
            ByteSearch([needle.pattern for needle in patterns], spelled),
            ByteSearch([needle.pattern for needle in everything], spelled),
            counts,
        )


def _without(keys: dict[int, set[str]], back: set[int]) -> dict[int, set[str]]:
    return {key: of for key, of in keys.items() if key not in back}


def _covers(texts: Sequence[str], staying: repository.Texts) -> dict[str, set[str]]:
    """For each of these texts those that stay and hold it; at most one more than COVERS_MAX."""
    found: dict[str, set[str]] = {text: set() for text in texts}
    if not found:
        return found
    distinct = list(found)
    automaton = BytesAhoCorasick([text.encode() for text in distinct])
    for each in staying:
        for which, _, _ in automaton.find_matches_as_indexes(each.encode(), overlapping=True):
            longer = found[distinct[which]]
            if len(longer) <= COVERS_MAX:
                longer.add(each)
    return found
