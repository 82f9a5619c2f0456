"""What a person sees while a command works: progress with a rate and the time left, and the outcome.

On a terminal a bar that moves; elsewhere (a pipe, a log) a plain line every few seconds. Nothing depends on colour.
"""

import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

LINE_EVERY_S = 5.0
PLAIN_WIDTH = 80
NARROW, BAR_WIDTH, NARROW_BAR_WIDTH = 72, 14, 6

Clock = Callable[[], float]


class ProgressCallback(Protocol):
    """Says how far a step is: `done` and `total` in the step's unit, and a short note such as a figure."""

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        """Update the step."""
        ...


def make_console(file: TextIO | None = None, widest: int | None = None) -> Console:
    """A console on a file, by default standard error; 80 columns wide where that is no terminal, at most `widest`.

    No line ends with blanks, and what the file's encoding lacks becomes a question mark.
    """
    file = file or sys.stderr
    width = None if file.isatty() else PLAIN_WIDTH
    console = Console(file=cast("IO[str]", _Tidy(file)), highlight=False, soft_wrap=False, width=width)
    if widest is not None and console.width > widest:
        console.width = widest
    return console


class _Tidy:
    """A text file into which rich writes: it pads lines, and lets signs through that the encoding lacks."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.encoding: str = getattr(file, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        tidy = re.sub(r"[ \t]+(?=\n)", "", text)
        self._file.write(tidy.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@dataclass
class StepProgress:
    """How fast a step goes, over all of it; durations in seconds of a monotonic clock."""

    unit: str
    clock: Clock = time.monotonic
    done: float = 0.0
    total: float | None = None
    note: str = ""
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def update(self, done: float, total: float | None, note: str) -> None:
        """Take in how far the step is; what is not told stays as it was."""
        self.done, self.total, self.note = done, self.total if total is None else total, note or self.note

    @property
    def seconds(self) -> float:
        """Time since the step began."""
        return self.clock() - self.started

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest takes at this rate; None where that cannot be said yet."""
        if self.total is None or self.done <= 0:
            return None
        return max(self.total - self.done, 0.0) / self.rate

    @property
    def amount(self) -> str:
        """`3 of 40 epochs`."""
        total = self.total
        if self.unit == "bytes":
            return size(self.done) if total is None else f"{size(self.done)} of {size(total)}"
        return f"{self.done:,.0f} {self.unit}" if total is None else f"{self.done:,.0f} of {total:,.0f} {self.unit}"

    @property
    def speed(self) -> str:
        """`2.1/s`, in the unit of the amount."""
        return f"{size(self.rate)}/s" if self.unit == "bytes" else f"{short(self.rate)}/s"

    @property
    def running_line(self) -> str:
        """`3 of 40 epochs, 2.1/s, 18 s left, NDCG@20 0.208`."""
        return _listed(self.amount, self.speed, self._left, self.note)

    def running_line_within(self, width: int) -> str:
        """The same in at most `width` columns: without the note where there is no room, then without the rate."""
        shorter = (
            self.running_line,
            _listed(self.amount, self.speed, self._left),
            _listed(self.amount, self._left),
        )
        return next((line for line in shorter if len(line) <= width), cropped(shorter[-1], width))

    @property
    def _left(self) -> str:
        return "" if self.left_s is None else f"{duration(self.left_s)} left"

    @property
    def final_line(self) -> str:
        """`40 epochs in 19 s`."""
        amount = size(self.done) if self.unit == "bytes" else count(self.done, self.unit)
        took = f"{amount} in {duration(self.seconds)}" if self.done else duration(self.seconds)
        return f"{took}, {self.note}" if self.note else took


@dataclass(frozen=True)
class Terminal:
    """Where a command talks to a person: progress and remarks on `console`."""

    console: Console = field(default_factory=make_console)
    clock: Clock = time.monotonic

    def say(self, text: str = "") -> None:
        """Print sentences, wrapped: nothing in them is markup."""
        self.console.print(Text(text))

    def line(self, text: str) -> None:
        """Print one line; what does not fit is left out."""
        self.say(cropped(text, self.console.width))

    @contextmanager
    def step(self, title: str, unit: str, total: float | None = None) -> Iterator[ProgressCallback]:
        """Show the progress of one step while the block runs, and its outcome in a line at the end."""
        progress = StepProgress(unit, self.clock, total=total)
        show = self._bar if self.console.is_terminal else self._lines
        with show(title, progress) as report:
            yield report
        self.line(f"{title}: {progress.final_line}")

    @contextmanager
    def _bar(self, title: str, progress: StepProgress) -> Iterator[ProgressCallback]:
        width = self.console.width
        bar_width = NARROW_BAR_WIDTH if width < NARROW else BAR_WIDTH
        beside = _RunningLine(width - len(title) - bar_width - 2)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=bar_width), beside)
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=progress.total, progress=progress)

            def report(done: float, total: float | None = None, note: str = "") -> None:
                progress.update(done, total, note)
                bar.update(task, completed=done, total=progress.total)

            yield report

    @contextmanager
    def _lines(self, title: str, progress: StepProgress) -> Iterator[ProgressCallback]:
        last = progress.started

        def report(done: float, total: float | None = None, note: str = "") -> None:
            nonlocal last
            progress.update(done, total, note)
            if self.clock() - last >= LINE_EVERY_S:
                last = self.clock()
                self.line(f"{title}: {progress.running_line_within(self.console.width - len(title) - 2)}")

        yield report


class _RunningLine(ProgressColumn):
    """The text beside the bar, in so many columns."""

    max_refresh = 0.5

    def __init__(self, width: int) -> None:
        super().__init__(Column(no_wrap=True))
        self._width = width

    def render(self, task: Task) -> Text:
        """The line of the step."""
        progress: StepProgress = task.fields["progress"]
        return Text(progress.running_line_within(self._width))


def _listed(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def cropped(text: str, width: int) -> str:
    """A text in at most `width` columns; three dots say that there was more."""
    return text if len(text) <= width else text[: max(width - 3, 0)].rstrip(" ,") + "..."[: max(width, 0)]


def count(number: float, things: str) -> str:
    """`1 version`, `2 versions`."""
    return f"{number:,.0f} {things.removesuffix('s') if number == 1 else things}"


def short(value: float) -> str:
    """A number with about three digits: 0.0123, 1.23, 12.3, 1,234."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """A duration for people: 2.1 ms, 3.4 s, 2 min 05 s, 1 h 02 min."""
    if seconds < 0.9995:
        return f"{short(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(n_bytes: float) -> str:
    """A number of bytes for people, in powers of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{short(n_bytes)} {unit}"
        n_bytes /= 1000
    return f"{short(n_bytes)} TB"


def folded(text: str, stream: TextIO) -> str:
    """A text as it is to be printed there: on a terminal no word is cut at its edge, elsewhere a line stays a line."""
    if not stream.isatty():
        return text
    width = max(shutil.get_terminal_size().columns, 20)
    fold = textwrap.TextWrapper(width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False).fill
    return "\n".join(fold(line) if len(line) > width else line for line in text.split("\n"))


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document as JSON, whole or not at all; `-` is standard output."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
