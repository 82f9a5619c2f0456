"""Every input that fuzzing began from or found is replayed, and some changes of each from a fixed seed."""

import random
from pathlib import Path

import pytest

from tests.fuzz.harnesses import HARNESSES

CORPUS = Path(__file__).parent / "corpus"
CHANGES = 60


def changed(data: bytes, chance: random.Random) -> bytes:
    """An input like this one: some of its bytes flipped, cut out, doubled or replaced."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found) + 1)
        end = min(len(found), at + chance.randint(0, 8))
        part = bytes(found[at:end])
        found[at:end] = chance.choice([b"", part * 2, chance.randbytes(len(part)), bytes(b ^ 1 for b in part), b"\xff"])
    return bytes(found)


def test_every_harness_has_a_corpus():
    assert {folder.name for folder in CORPUS.iterdir()} == set(HARNESSES)


@pytest.mark.parametrize("name", HARNESSES)
def test_nothing_known_breaks_a_parser(name: str):
    """What is no such thing is refused as its reader documents, and nothing else happens."""
    chance = random.Random(name)
    for file in sorted((CORPUS / name).iterdir()):
        data = file.read_bytes()
        HARNESSES[name](data)
        for _ in range(CHANGES):
            HARNESSES[name](changed(data, chance))
