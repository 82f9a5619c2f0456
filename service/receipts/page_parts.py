"""Pieces of the page of a receipt: what is in them is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def table(rows: Mapping[str, str], *, code: bool = False) -> str:
    """Names and values, side by side."""
    cells = {name: f"<code>{escape(value)}</code>" if code else escape(value) for name, value in rows.items()}
    lines = (f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in cells.items())
    return f"<table>{''.join(lines)}</table>"


def columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a head."""
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return f"<table><tr>{heads}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def bullets(texts: Iterable[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in texts)}</ul>"


def paragraph(text: str | None) -> str:
    """A paragraph, or nothing."""
    return "" if text is None else f"<p>{escape(text)}</p>"


def instant(at: str) -> str:
    """An instant as people read it."""
    return f"{at[:10]} {at[11:19]} UTC"
