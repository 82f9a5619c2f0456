"""The ledger's file: whole records in a chain, one writer, torn tails cut, flipped bytes named."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_store import Damaged, ErasureLedger, Unwritable
from model_store.erasure_ledger import FOLDER

KEY = b"k" * 32


@pytest.fixture
def ledger(tmp_path: Path) -> ErasureLedger:
    return ErasureLedger(tmp_path / "store", KEY, segment_bytes=600)


def records(first: int, count: int) -> list[dict[str, Any]]:
    return [{"event": "x", "seq": seq, "leaf": f"{seq:064x}", "targets": []} for seq in range(first, first + count)]


def fill(ledger: ErasureLedger, count: int = 7) -> list[Path]:
    """Write records; returns the segments."""
    with ledger.writing() as held:
        assert held
        ledger.append(records(1, count))
    return sorted(ledger.folder.glob("*.jsonl"))


def reader(ledger: ErasureLedger, key: bytes | None = KEY) -> ErasureLedger:
    """Another process's view of it."""
    return ErasureLedger(ledger.folder.parent, key, segment_bytes=600)


def seqs(ledger: ErasureLedger) -> list[int]:
    return [record.seq for record in reader(ledger).records()]


def test_what_is_appended_is_read_in_order(ledger: ErasureLedger):
    """By the one who wrote and by others, over several segments of bounded size."""
    assert ledger.last() is None
    segments = fill(ledger)

    assert seqs(ledger) == list(range(1, 8))
    assert len(segments) > 2
    for at in (ledger, reader(ledger)):
        last = at.last()
        assert last is not None
        assert (last.number, last.seq, last.facts["targets"]) == (7, 7, [])
    fill(ledger, 1)
    assert [record.number for record in ledger.records()][-1] == 8


def test_a_reader_sees_what_comes(ledger: ErasureLedger):
    """From where it was."""
    other = reader(ledger)
    for count in (1, 2, 5):
        fill(ledger, count)
        at, mine = other.last(), ledger.last()
        assert at is not None
        assert at == mine


def test_a_torn_tail_is_cut_back(ledger: ErasureLedger):
    """At whatever byte a crash stopped the writer: the whole records stand, and the next one goes on from them."""
    segments = fill(ledger)
    whole = segments[-1].read_bytes()
    lines = whole.splitlines(keepends=True)
    kept = 7 - 1
    for cut in (1, 10, len(lines[-1]) - 1):
        segments[-1].write_bytes(whole[: len(whole) - len(lines[-1]) + cut])
        other = reader(ledger)
        assert len(seqs(ledger)) == kept
        with other.writing():
            other.append(records(70, 1))
        assert seqs(ledger) == [*range(1, 7), 70]
    segments[-1].write_bytes(whole + b"\0" * 300)  # a page that was lengthened and never written
    assert seqs(ledger) == list(range(1, 8))


def test_a_segment_that_never_got_a_record_is_begun_again(ledger: ErasureLedger):
    """A crash between making the file and writing to it."""
    fill(ledger, 7)
    (ledger.folder / f"{8:012d}.jsonl").write_bytes(b'{"at"')
    last = reader(ledger).last()
    assert last is not None
    assert last.seq == 7
    fill(reader(ledger), 1)
    assert seqs(ledger) == [*range(1, 8), 1]


@pytest.mark.parametrize("bit", [0, 3, 6])
def test_a_flipped_bit_is_found_and_named(ledger: ErasureLedger, bit: int):
    """Wherever it is: the segment and the record."""
    segments = fill(ledger, 3)
    whole = segments[0].read_bytes()
    first_ends = whole.index(b"\n")
    for at in range(0, first_ends, 7):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << bit
        segments[0].write_bytes(flipped)
        with pytest.raises(Damaged, match=rf"{FOLDER}/{1:012d}\.jsonl, record 1\b"):
            seqs(ledger)
    segments[0].write_bytes(whole)
    assert seqs(ledger) == [1, 2, 3]


@pytest.mark.parametrize("what", ["dropped", "swapped", "segment", "key", "doubled"])
def test_what_was_changed_is_found(ledger: ErasureLedger, what: str):
    """Each record is sealed on its own; so what is found here is the chain."""
    segments = fill(ledger)
    lines = segments[0].read_bytes().splitlines(keepends=True)
    assert len(lines) > 1
    match what:
        case "dropped":
            segments[0].write_bytes(b"".join(lines[1:]))
        case "swapped":
            segments[0].write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
        case "doubled":
            segments[0].write_bytes(b"".join([lines[0], *lines]))
        case "segment":
            segments[1].unlink()
    with pytest.raises(Damaged):
        list(reader(ledger, b"l" * 32 if what == "key" else KEY).records())


def test_one_writes_at_a_time(ledger: ErasureLedger):
    """Whether in this process or another; a writer that is killed lets go."""
    code = (
        "import sys; from pathlib import Path; from model_store import ErasureLedger\n"
        "with ErasureLedger(Path(sys.argv[1])).writing() as held: print(held, flush=True); sys.stdin.read()"
    )
    with ledger.writing() as held, ledger.writing() as again:
        assert (held, again) == (True, False)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(ledger.folder.parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"True\n"
    with ledger.writing() as held:
        assert not held
    process.kill()
    process.communicate()
    with ledger.writing() as held:
        assert held


def test_a_ledger_that_was_taken_away_is_begun_anew(ledger: ErasureLedger):
    """By who had read the old one; its bytes stay beside it."""
    fill(ledger)
    aside = reader(ledger).set_aside()

    assert aside is not None
    assert len(list(aside.glob("*.jsonl"))) > 2
    assert ledger.last() is None
    fill(ledger, 2)
    assert seqs(ledger) == [1, 2]


def test_a_record_is_canonical_and_names_the_one_before(ledger: ErasureLedger):
    """Somebody else can check the chain with a shell and the key."""
    (segment, *_) = fill(ledger, 2)
    first, second = (json.loads(line) for line in segment.read_bytes().splitlines())
    assert (first["previous"], second["previous"]) == ("", first["seal"])
    assert segment.read_bytes().splitlines()[0] == json.dumps(first, sort_keys=True, separators=(",", ":")).encode()
    assert os.stat(segment).st_mode & 0o007 == 0


def test_a_folder_that_cannot_be_written_is_told(ledger: ErasureLedger):
    """Rather than a traceback."""
    ledger.folder.parent.mkdir()
    ledger.folder.write_text("")
    with pytest.raises(Unwritable), ledger.writing():
        pass


@pytest.mark.parametrize("seal", ["é", 7, None, ["é"], "\ud800"])
def test_a_seal_that_is_no_text_of_digits_is_damage(ledger: ErasureLedger, seal: object):
    """Whatever stands there, it is told as damage and nothing else is raised."""
    (segment, *_) = fill(ledger, 1)
    page = json.loads(segment.read_text())
    segment.write_text(json.dumps({**page, "seal": seal}, sort_keys=True, separators=(",", ":")) + "\n")

    with pytest.raises(Damaged, match="seal"):
        list(reader(ledger).records())


def test_the_group_may_read_and_others_may_not(ledger: ErasureLedger):
    """Whatever the process's own mask."""
    before = os.umask(0)
    try:
        fill(ledger, 1)
    finally:
        os.umask(before)

    modes = {path.name: path.stat().st_mode & 0o777 for path in (ledger.folder, *ledger.folder.iterdir())}
    assert modes.pop(FOLDER) == 0o750
    assert set(modes.values()) == {0o640}
