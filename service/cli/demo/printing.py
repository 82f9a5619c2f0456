"""How the story looks: short sentences, tables that hold at 80 columns and without colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.demo.report import DemoReport, ManyFacts, Quality
from service.cli.terminal import PLAIN_WIDTH, duration, short
from service.evaluation.retraining_share import Estimate

TITLE_WIDTH, TITLE_ROOM = 52, 26
"""Widest title, and the columns that a line with one needs beside it."""
BAR_WIDTH, BAR_ROOM = 30, 32
WIDEST = 100
NAMES = {"before": "before", "after": "after", "retrain": "retrained", "retrain_again": "and again"}


@dataclass(frozen=True)
class DemoPrinter:
    """Prints the story on a console; from 60 columns on nothing is wrapped within a table."""

    console: Console

    def section(self, title: str) -> None:
        """Begin a section."""
        if not title.startswith("1."):
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
        table.add_column("rank", justify="right")
        table.add_column("title")
        for item in items:
            table.add_row(Text(str(item["rank"])), self._title(item))
        self.console.print(table)

    def moves(self, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], shown: int) -> None:
        """The first `shown` items now, how far each has moved since, and what has left."""
        table = self._table(f"The {shown} now")
        table.add_column("rank", justify="right")
        table.add_column("title")
        table.add_column("moved")
        ranks = {item["item_id"]: item["rank"] for item in before}
        for item in after[:shown]:
            moved = self.move(ranks.get(item["item_id"]), item["rank"])
            table.add_row(Text(str(item["rank"])), self._title(item), moved)
        self.console.print(table)
        now = {item["item_id"]: item["rank"] for item in after}
        for item in before[:shown]:
            rank = now.get(item["item_id"])
            if rank is None or rank > shown:
                where = "beyond the first hundred" if rank is None else f"now {rank}"
                self.say(f"   out: {self._title(item)} (was {item['rank']}, {where})")

    def change(self, items: Sequence[tuple[Mapping[str, Any], Mapping[str, int | None]]]) -> None:
        """Items of a list, each with its rank by every model, None where it is not in that list."""
        table = self._table("Their ranks in the first ten, by model")
        names = [NAMES[name] for name in items[0][1]]
        table.add_column("title")
        for name in names:
            table.add_column(name, justify="right")
        room = sum(len(name) + 2 for name in names) + 4
        for item, ranks in items:
            table.add_row(self._title(item, room), *("-" if rank is None else str(rank) for rank in ranks.values()))
        self.console.print(table)

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

    def figures(self, quality: Mapping[str, Quality], many: ManyFacts, n_heldout: int) -> None:
        """Quality and membership of the model before, after, and trained anew."""
        n_pairs = many.erasure.matched
        table = self._table("The same ruler for all models")
        table.add_column("figure", no_wrap=True)
        for name in many.membership:
            table.add_column(NAMES[name], justify="right")
        for label, value_of in _rows(quality, many):
            table.add_row(label, *(value_of(name) for name in many.membership))
        self.console.print(table)
        self.say(f"Measured on these {n_pairs:,} erased and {n_heldout:,} held-out pairs of the test part.")

    def shares(self, shares: Mapping[str, Estimate], heading: str) -> None:
        """The share of the way to retraining as a bar for each model; nothing where it cannot be told."""
        if any(isnan(share.value) for share in shares.values()):
            return
        width = max(min(BAR_WIDTH, self.console.width - BAR_ROOM), 5)
        full, empty = ("#", ".") if self._plain else ("█", "░")
        most = max(1.0, *(share.value for share in shares.values()))
        self._heading(heading)
        for name, share in shares.items():
            filled = round(width * min(max(share.value, 0.0), most) / most)
            error = f" ± {share.error:.0%}" if share.error else ""
            self.say(f" {NAMES[name]:<10} {full * filled}{empty * (width - filled)} {share.value:>5.0%}{error}")

    def audit(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Entries of the log; the hashes where there is room."""
        table = self._table("The entries of both erasures")
        hashes = self.console.width >= PLAIN_WIDTH - 10
        for heading in ("no.", "time (UTC)", "event", "about", *(("leaf hash",) if hashes else ())):
            table.add_column(heading, no_wrap=True)
        for entry in entries:
            about = f"version {entry['version']}" if entry.get("version") is not None else ""
            at = str(entry["at"])[11:23]
            leaf = (f"{entry['leaf_hash'][:12]}{'...' if self._plain else '…'}",) if hashes else ()
            table.add_row(str(entry["seq"]), at, Text(entry["event"]), about, *leaf)
        self.console.print(table)

    def residue(self, stores: Sequence[Mapping[str, Any]]) -> None:
        """What the search found in each store."""
        table = self._table("Every byte of every store, searched for what is left")
        for heading, justify in (("store", "left"), ("bytes", "right"), ("verdict", "left")):
            table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for store in stores:
            verdict = str(store["verdict"]).replace("_", " ")
            searched = f"{store['bytes']:,}" if store.get("bytes") else "-"
            table.add_row(str(store["store"]).replace("_", " "), searched, verdict)
        self.console.print(table)

    def summary(self, report: DemoReport) -> None:
        """The figures that count, and where there is room how each was had."""
        table = self._table("Summary", show_header=False)
        table.add_column("what", no_wrap=True)
        table.add_column("figure", justify="right", no_wrap=True)
        table.add_column("how", no_wrap=True)
        for row in summary_rows(report):
            table.add_row(*(Text(cell) for cell in (row if self.console.width >= PLAIN_WIDTH - 2 else row[:2])))
        self.console.print(table)

    def _table(self, title: str, *, show_header: bool = True) -> Table:
        self._heading(title)
        form = ASCII_HEAD if self._plain else box.SIMPLE_HEAD
        return Table(box=form if show_header else None, padding=(0, 1), show_header=show_header, show_edge=False)

    def _heading(self, title: str) -> None:
        self.console.print()
        self.console.print(Text(f" {title}", "bold"))

    def _title(self, item: Mapping[str, Any], room: int = TITLE_ROOM) -> str:
        title, width = str(item.get("title") or item["item_id"]), max(min(TITLE_WIDTH, self.console.width - room), 8)
        if self._plain:
            title = title.encode("ascii", "replace").decode()
        return title if len(title) <= width else title[: width - 1] + ("~" if self._plain else "…")

    @property
    def _plain(self) -> bool:
        return not (self.console.encoding or "").lower().startswith("utf")


ASCII_HEAD = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)

Cell = Callable[[str], str]


def _rows(quality: Mapping[str, Quality], many: ManyFacts) -> list[tuple[str, Cell]]:
    """The lines of the table of figures: what it is, and the cell of a model."""

    def ranked(field: str) -> Cell:
        return lambda name: f"{getattr(quality[name], field):.4f}"

    def membership(field: str, digits: int) -> Cell:
        return lambda name: f"{getattr(many.membership[name], field):.{digits}f}"

    return [
        ("Recall@20", ranked("recall_at_20")),
        ("NDCG@20", ranked("ndcg_at_20")),
        ("AUC erased/held-out", lambda name: f"{many.auc[name].value:.3f}"),
        ("  standard error", lambda name: f"{many.auc[name].error:.3f}"),
        ("p erased", membership("p_erased", 4)),
        ("p held-out", membership("p_heldout", 4)),
        ("p never seen", membership("p_negative", 4)),
        ("MI-BF", membership("mi_bf", 3)),
        ("MI-NG", membership("mi_ng", 3)),
    ]


def summary_rows(report: DemoReport) -> list[tuple[str, str, str]]:
    """What, how much, and where the figure comes from."""
    erasure, many, comparison = report.erasure, report.many, report.comparison
    steps = report.pretrain.steps
    how = f"a shadow and {steps} steps, once" if steps else "a shadow, once"
    kept = comparison.quality["after"].ndcg_at_20 / max(comparison.quality["before"].ndcg_at_20, 1e-12)
    share = many.share_by_auc["after"]
    auc = {name: f"{each.value:.3f}" for name, each in many.auc.items()}
    told = "untold" if isnan(share.value) else f"{share.value:.0%}"
    return [
        ("train", duration(report.train.seconds), f"{report.train.epochs} epochs, once"),
        ("pre-train", duration(report.pretrain.seconds), how),
        ("accepted and hidden", duration(erasure.seconds_accept), "one REST call"),
        ("forgotten by the model", duration(erasure.seconds_forgotten), "from that call on"),
        ("  the unlearning step", duration(erasure.seconds_apply), "inside the worker"),
        (
            f"{many.erasure.matched:,} pairs at once",
            duration(many.erasure.seconds_forgotten),
            "the same, of many people",
        ),
        ("erased everywhere", duration(report.erased.seconds), "trained anew, purged, searched, on demand"),
        ("retraining instead", duration(comparison.retrain.seconds), f"{short(report.speedup)} times the step"),
        ("way to retraining", told, f"by AUC of {many.erasure.matched:,} pairs"),
        ("AUC erased/held-out", auc["after"], f"before {auc['before']}, retrained {auc['retrain']}"),
        ("NDCG@20 kept", f"{kept:.1%}", "after over before, test part"),
    ]
