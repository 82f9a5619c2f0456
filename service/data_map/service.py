"""The whole data map, as a document, as text for a terminal, as a page of the docs."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from service.data_map.database import BELOW_SQL, DATABASE
from service.data_map.home import HOME
from service.data_map.places import KINDS, MOMENTS, DataKind, DataPlace, DataStore
from service.data_map.traces import LOG, METRICS, OUTSIDE, STREAM

DATA_MAP: tuple[DataPlace, ...] = (*DATABASE, *BELOW_SQL, *HOME, *STREAM, *LOG, *METRICS, *OUTSIDE)

_TITLES = {
    DataStore.DATABASE: "Database",
    DataStore.HOME: "Files below the home",
    DataStore.STREAM: "Redis or Valkey",
    DataStore.LOG: "Fields of log lines",
    DataStore.METRICS: "Labels of metrics",
    DataStore.OUTSIDE: "Outside the service",
}


def document() -> dict[str, Any]:
    """The map as plain values: the words it uses, then every place."""
    return {
        "kinds": {kind.value: text for kind, text in KINDS.items()},
        "moments": {moment.value: text for moment, text in MOMENTS.items()},
        "places": [
            {
                "store": place.store.value,
                "place": place.name,
                "holds": _kinds(place),
                "goes": place.goes.value,
                "kept": place.kept,
                "gap": place.gap,
            }
            for place in DATA_MAP
        ],
    }


def text(width: int = 80) -> str:
    """The map in lines of at most `width` characters; places with one rule stand together."""
    lines: list[str] = []
    for store, groups in _by_store():
        lines += [_TITLES[store], "=" * len(_TITLES[store])]
        for group in groups:
            first = group[0]
            lines += _wrapped(", ".join(place.name for place in group), width, "")
            lines += _wrapped(f"holds {', '.join(_kinds(first))}; goes: {first.goes}. {first.kept}", width, "    ")
            lines += _wrapped(f"TODAY: {first.gap}", width, "    ") if first.gap else []
        lines.append("")
    gaps = sum(place.gap is not None for place in DATA_MAP)
    lines += _wrapped(
        f"{len(DATA_MAP)} places, {sum(place.personal for place in DATA_MAP)} of them hold something of a person, and "
        f"the rule of {gaps} of these is not carried out yet.",
        width,
        "",
    )
    return "\n".join(lines)


def markdown() -> str:
    """The page docs/data-map.md."""
    parts = [
        "# Data map\n\nWritten by `make reference` from `service/data_map`; edit that. A test compares it with the "
        "tables, the files of a home that served, the stream, the fields of log lines and the labels of metrics: a new "
        "place without a rule fails. `GET /v1/data-map` and `expunge data-map` tell the same. What protects these "
        "places, and what does not, is in the [threat model](threat-model.md).\n",
        "\n## Words\n\n| holds | meaning |\n| --- | --- |\n",
        *(f"| {kind} | {meaning} |\n" for kind, meaning in KINDS.items()),
        "\n| goes | meaning |\n| --- | --- |\n",
        *(f"| {moment} | {meaning} |\n" for moment, meaning in MOMENTS.items()),
        "\n**Today** tells what is not yet as the rule says; an empty cell means that the rule is carried out.\n",
    ]
    for store, groups in _by_store():
        parts.append(f"\n## {_TITLES[store]}\n\n| place | holds | goes | kept | today |\n| " + "--- | " * 4 + "--- |\n")
        for group in groups:
            first = group[0]
            names = ", ".join(f"`{place.name}`" for place in group)
            cells = (names, ", ".join(_kinds(first)), first.goes.value, first.kept, first.gap or "")
            parts.append("| " + " | ".join(cells) + " |\n")
    return "".join(parts)


def _by_store() -> Iterator[tuple[DataStore, list[Sequence[DataPlace]]]]:
    """Each store with its places, those that follow each other with one rule as one group; the impersonal ones last."""
    for store in DataStore:
        ordered = sorted((place for place in DATA_MAP if place.store == store), key=lambda place: not place.personal)
        grouped = groupby(ordered, key=lambda place: (place.holds, place.goes, place.kept, place.gap))
        yield store, [tuple(group) for _, group in grouped]


def _kinds(place: DataPlace) -> list[str]:
    return [kind.value for kind in DataKind if kind in place.holds]


def _wrapped(line: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(line, width, initial_indent=indent, subsequent_indent=indent or "  ")
