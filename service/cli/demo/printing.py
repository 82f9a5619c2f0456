"""How the story looks: short sentences, tables that hold at 80 columns and without colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.demo.report import Comparison, DemoReport, MembershipFacts, Quality
from service.cli.terminal import duration, short

TITLE_WIDTH = 52
MODELS = (("before", "before"), ("after", "after"), ("retrain", "retrained"))


@dataclass(frozen=True)
class DemoPrinter:
    """Prints the story on a console."""

    console: Console

    def section(self, title: str) -> None:
        """Begin a section."""
        self.console.print()
        self.console.rule(Text(title, "bold"), align="left", characters="-" if self._plain else "─")

    def say(self, text: str = "") -> None:
        """Print sentences, wrapped."""
        self.console.print(Text(text))

    def verbatim(self, text: str) -> None:
        """Print a line that is to be copied: never wrapped."""
        self.console.print(Text(text), soft_wrap=True)

    def titles(self, items: Sequence[Mapping[str, Any]], heading: str) -> None:
        """Items with their rank and title."""
        table = self._table(heading, show_header=False)
        table.add_column("", justify="right")
        table.add_column("")
        for item in items:
            table.add_row(Text(str(item["rank"])), _title(item))
        self.console.print(table)

    def moves(self, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], shown: int) -> None:
        """The first `shown` items now, how far each has moved since, and what has left."""
        table = self._table(f"The {shown} now")
        table.add_column("", justify="right")
        table.add_column("")
        table.add_column("moved")
        ranks = {item["item_id"]: item["rank"] for item in before}
        for item in after[:shown]:
            table.add_row(Text(str(item["rank"])), _title(item), self.move(ranks.get(item["item_id"]), item["rank"]))
        self.console.print(table)
        now = {item["item_id"]: item["rank"] for item in after}
        for item in before[:shown]:
            rank = now.get(item["item_id"])
            if rank is None or rank > shown:
                where = "beyond the first hundred" if rank is None else f"now {rank}"
                self.say(f"   out: {_title(item)} (was {item['rank']}, {where})")

    def move(self, before: int | None, now: int) -> Text:
        """`↑ 3`: three places up; `↑ from 41` for what was not on the list."""
        up, down = ("+", "-") if self._plain else ("↑ ", "↓ ")
        if before is None:
            return Text(f"{up}from beyond 100")
        if before == now:
            return Text("=")
        if before > 10 >= now:
            return Text(f"{up}from {before}")
        return Text(f"{up}{before - now}" if before > now else f"{down}{now - before}")

    def figures(self, comparison: Comparison, n_erased: int, n_heldout: int) -> None:
        """Quality and membership of the model before, after, and trained anew."""
        table = self._table("The same ruler for three models")
        table.add_column("", no_wrap=True)
        for _, name in MODELS:
            table.add_column(name, justify="right")
        for label, field, digits in _ROWS:
            table.add_row(label, *(_cell(comparison, key, field, digits) for key, _ in MODELS))
        self.console.print(table)
        self.say(f"Measured on {n_erased} erased and {n_heldout:,} held-out pairs of the test part.")

    def audit(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Entries of the log."""
        table = self._table("What the log says of it")
        for heading in ("no.", "time (UTC)", "event", "about", "leaf hash"):
            table.add_column(heading, no_wrap=True)
        for entry in entries:
            about = f"version {entry['version']}" if entry.get("version") is not None else ""
            at = str(entry["at"])[11:23]
            table.add_row(str(entry["seq"]), at, Text(entry["event"]), about, f"{entry['leaf_hash'][:12]}…")
        self.console.print(table)

    def summary(self, outcome: DemoReport) -> None:
        """The figures that count, and how each was had."""
        table = self._table("Summary", show_header=False)
        table.add_column("", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True)
        table.add_column("")
        for row in summary_rows(outcome):
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table)

    def _table(self, title: str, *, show_header: bool = True) -> Table:
        self.console.print()
        self.console.print(Text(f" {title}", "bold"))
        return Table(box=box.SIMPLE_HEAD if show_header else None, padding=(0, 1), show_header=show_header)

    @property
    def _plain(self) -> bool:
        return not (self.console.encoding or "").lower().startswith("utf")


_ROWS = (
    ("Recall@20", "recall_at_20", 4),
    ("NDCG@20", "ndcg_at_20", 4),
    ("AUC erased/held-out", "auc_heldout", 3),
    ("p erased", "p_erased", 4),
    ("p held-out", "p_heldout", 4),
    ("p never seen", "p_negative", 4),
    ("MI-BF", "mi_bf", 3),
    ("MI-NG", "mi_ng", 3),
)


def summary_rows(outcome: DemoReport) -> list[tuple[str, str, str]]:
    """What, how much, and where the figure comes from."""
    erasure, comparison = outcome.erasure, outcome.comparison
    quality, membership = comparison.quality, comparison.membership
    steps = outcome.pretrain.steps
    how = f"a shadow and {steps} steps, once" if steps else "a shadow, once"
    kept = quality["after"].ndcg_at_20 / max(quality["before"].ndcg_at_20, 1e-12)
    return [
        ("train", duration(outcome.train.seconds), f"{outcome.train.epochs} epochs, once"),
        ("pre-train", duration(outcome.pretrain.seconds), how),
        ("accepted and hidden", duration(erasure.seconds_accept), "one REST call"),
        ("forgotten by the model", duration(erasure.seconds_forgotten), "from that call on, batching included"),
        ("  the unlearning step", duration(erasure.seconds_apply), "inside the worker"),
        ("retraining instead", duration(comparison.retrain.seconds), f"{short(outcome.speedup)} times the step"),
        ("NDCG@20 kept", f"{kept:.1%}", "after over before, test part"),
        (
            "AUC erased/held-out",
            f"{membership['after'].auc_heldout:.3f}",
            f"before {membership['before'].auc_heldout:.3f}, retrained {membership['retrain'].auc_heldout:.3f}",
        ),
    ]


def _cell(comparison: Comparison, model: str, field: str, digits: int) -> str:
    facts: Quality | MembershipFacts = comparison.quality[model]
    if not hasattr(facts, field):
        facts = comparison.membership[model]
    return f"{getattr(facts, field):.{digits}f}"


def _title(item: Mapping[str, Any]) -> str:
    title = str(item.get("title") or item["item_id"])
    return title if len(title) <= TITLE_WIDTH else title[: TITLE_WIDTH - 1] + "…"
