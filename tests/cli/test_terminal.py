"""Progress, durations and JSON files."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from service.cli.terminal import StepProgress, Terminal, duration, folded, make_console, short, size, write_json


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_pace_tells_amount_rate_and_time_left() -> None:
    """After 10 of 40 epochs in 5 seconds: 2 a second, 15 seconds left."""
    hand = Hand()
    progress = StepProgress("epochs", hand)

    hand.now += 5
    progress.update(10, 40, "NDCG .31")

    assert progress.running_line == "10 of 40 epochs, 2/s, 15.0 s left, NDCG .31"
    assert progress.final_line == "10 epochs in 5.0 s, NDCG .31"


def test_the_pace_says_nothing_that_it_cannot_know() -> None:
    """Without a total, or before anything is done, no time is left to tell."""
    progress = StepProgress("bytes", Hand())

    assert progress.left_s is None
    progress.update(0, 100, "")
    assert progress.left_s is None


def test_without_a_terminal_progress_is_a_line_every_five_seconds() -> None:
    """A log is not filled with bars: 20 seconds of steps give three lines and the outcome."""
    hand, out = Hand(), io.StringIO()
    terminal = Terminal(make_console(out), hand)

    with terminal.step("Training", "epochs", 40) as tell:
        for epoch in range(20):
            hand.now += 1
            tell(epoch + 1)

    lines = out.getvalue().splitlines()
    assert lines[0] == "Training: 5 of 40 epochs, 1/s, 35.0 s left"
    assert lines[-1] == "Training: 20 epochs in 20.0 s"
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (60, "10 of 40 epochs, 2/s, 15.0 s left, shadow, loss 0.215"),
        (40, "10 of 40 epochs, 2/s, 15.0 s left"),
        (32, "10 of 40 epochs, 15.0 s left"),
        (12, "10 of 40..."),
    ],
)
def test_a_narrow_line_leaves_out_the_note_then_the_rate(width: int, line: str) -> None:
    """The amount and the time left stay longest."""
    hand = Hand()
    progress = StepProgress("epochs", hand)
    hand.now += 5
    progress.update(10, 40, "shadow, loss 0.215")

    assert progress.running_line_within(width) == line


def test_a_line_of_progress_is_never_wrapped() -> None:
    """Whatever its title and note."""
    hand, out = Hand(), io.StringIO()
    terminal = Terminal(make_console(out), hand)

    with terminal.step("Training a model of a long name", "interactions", 123_456_789) as report:
        hand.now += 6
        report(12_345_678, note="and a note that has no end " * 5)

    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("width", [50, 80, 200])
def test_a_bar_is_one_line_on_every_terminal(width: int) -> None:
    """It is drawn over itself, which a wrapped one could not be."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)

    with Terminal(console).step("Pre-training", "epochs", 40) as report:
        report(15, note="shadow, loss 0.164 and more " * 9)

    shown = re.sub(r"\x1b\[[\d;?]*\w", "", out.getvalue()).replace("\r", "\n").splitlines()
    assert max(len(line) for line in shown) <= width
    assert all(line.startswith(("Pre-training", "")) and "Pre-training" in line for line in shown if line.strip())


def test_no_line_ends_with_blanks_and_no_sign_is_refused() -> None:
    """Not even in a file that knows ASCII only."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    table = Table(box=None)
    table.add_column("a column")
    table.add_row("é")

    make_console(out).print(table)

    out.seek(0)
    assert out.read() == " a column\n ?\n"


def test_on_a_terminal_the_bar_gives_way_to_the_outcome() -> None:
    """What stays on the screen is one line."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)

    with Terminal(console).step("Reading", "bytes") as tell:
        tell(1_500_000, 3_000_000)

    assert "Reading: 1.5 MB in" in out.getvalue()


def test_a_title_or_note_is_never_read_as_markup() -> None:
    """A film called [bold] is printed as it is."""
    out = io.StringIO()

    Terminal(make_console(out)).say("[bold] and [/]")

    assert out.getvalue() == "[bold] and [/]\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0021, "2.1 ms"),
        (0.33, "330 ms"),
        (3.44, "3.4 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3725, "1 h 02 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    """Milliseconds, seconds, minutes, hours: two parts at most."""
    assert duration(seconds) == text


def test_numbers_and_sizes_are_short() -> None:
    """About three digits."""
    assert [short(value) for value in (0, 0.01234, 1.234, 12.34, 1234)] == ["0", "0.0123", "1.23", "12.3", "1,234"]
    assert [size(value) for value in (999, 1500, 2.5e9)] == ["999 B", "1.5 kB", "2.5 GB"]


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A document that cannot be written leaves the old file and nothing beside it."""
    file = tmp_path / "out.json"
    write_json(file, {"a": 1})

    with pytest.raises(TypeError):
        write_json(file, {("not", "a", "key"): 1})  # type: ignore[dict-item]

    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_json_goes_to_standard_output_for_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json -` is for pipes."""
    write_json(Path("-"), {"a": "ä"})

    assert json.loads(capsys.readouterr().out) == {"a": "ä"}


def test_on_a_terminal_no_word_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences go on in the next line, words without a blank (keys, paths) stay whole; columns stay columns."""
    monkeypatch.setenv("COLUMNS", "30")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = f"Base 1: 943 users, 1,680 items, 86,000 interactions.\nhome       {'/long' * 8}\nlive       version 1"

    told = folded(text, Terminal())

    assert told.split("\n") == [
        "Base 1: 943 users, 1,680",
        "  items, 86,000 interactions.",
        "home",
        "  " + "/long" * 8,
        "live       version 1",
    ]
    assert folded(text, io.StringIO()) == text
