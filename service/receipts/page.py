"""A receipt for people: one HTML file in plain words, without scripts, that prints well."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any

import orjson

from service.receipts.document import Receipt
from service.receipts.evidence_page import evidence_parts
from service.receipts.page_parts import instant, paragraph, table

_STATUS = {
    "accepted": "Received and hidden. The model has not forgotten it yet.",
    "needs_attention": "Received and hidden. The model has not forgotten it yet: a person must look at it.",
    "forgotten": "Hidden, and forgotten by the model. Not yet erased from every store.",
    "erased": "Erased: the model was trained anew without it, and no store that was searched holds it.",
    "cancelled": "Cancelled at the caller's wish before the model had forgotten it. Nothing was erased.",
    "refused": "Refused. Hidden from every answer; nothing was erased.",
}
_GROUNDS: Mapping[str | None, str] = {
    "17(3)(a)": "Freedom of expression and information: GDPR, Art. 17(3)(a)",
    "17(3)(b)": "A legal obligation, or a task in the public interest: GDPR, Art. 17(3)(b)",
    "17(3)(c)": "Public health: GDPR, Art. 17(3)(c)",
    "17(3)(d)": "Archiving, research or statistics in the public interest: GDPR, Art. 17(3)(d)",
    "17(3)(e)": "Legal claims: GDPR, Art. 17(3)(e)",
    "complexity": "The complexity of the request: GDPR, Art. 12(3)",
    "number_of_requests": "The number of requests: GDPR, Art. 12(3)",
    None: "Told by whoever runs the service",
}
_REACHED = {
    "accepted": "Received, hidden from every answer",
    "needs_attention": "Set aside for a person to look at",
    "forgotten": "Forgotten by the model",
    "erased": "Erased from every store in scope",
    "cancelled": "Cancelled",
    "refused": "Refused",
}
_FIGURES = {
    "forget_residual": "Score of the erased pairs above that of pairs never seen (standard deviations)",
    "auc": "Chance that an erased pair scores above a pair never seen (0.5: none can tell)",
    "quality_ratio": "Quality of recommendations for everybody else, over that before",
    "drift": "Change of all other scores (standard deviations)",
}
_CSS = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
.state{border-left:.35rem solid currentColor;padding:.5rem .8rem;margin:1rem 0}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .5rem;text-align:left;vertical-align:top}
tr+tr td,tr+tr th{border-top:1px solid #8886}th{font-weight:600}th:not([scope]){width:45%}
code{font-size:.85em;overflow-wrap:anywhere}small{opacity:.8}
@media print{body{margin:0;max-width:none;font-size:11pt}h2{break-after:avoid}tr{break-inside:avoid}}
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{css}</style></head>
<body>
{body}
</body></html>
"""
CSP = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The header that goes with the page: its own style and nothing else."""


def render(receipt: Receipt) -> str:
    """The page of a receipt that this service has just issued."""
    statement = orjson.loads(receipt.statement)
    gate = _gate(receipt)
    final = "Final receipt" if statement["final"] else "Receipt, not final"
    title = f"{final}: erasure {statement['erasure_id']}"
    parts = [
        f"<h1>{escape(final)}</h1><small>Erasure <code>{escape(statement['erasure_id'])}</code></small>",
        f'<p class="state">{escape(_STATUS[statement["status"]])}</p>',
        paragraph(statement["notice"]),
        "<h2>What was asked for</h2>",
        table(
            {
                "Targets named": f"{statement['requested']:,}",
                "Interactions on record that they covered": f"{statement['matched']:,}",
                "Wish": "as if it had never happened" if statement["mode"] == "forget" else "less of this",
                "To be erased by": instant(statement["due_at"]),
            }
        ),
        _decided(statement),
        "<h2>When</h2>",
        table({_REACHED[name]: instant(at) for name, at in sorted(statement["reached"].items(), key=_by_time)}),
        _guarantee(statement["guarantee"]),
        _figures(gate),
        *evidence_parts(receipt.evidence),
        "<h2>What this does not cover</h2>",
        f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in statement['out_of_scope'])}</ul>",
        "<h2>How to check it</h2>",
        "<p>This page is for reading; the proof is the JSON form of this receipt. It verifies without this service and "
        "without a network, with the public key of the log that you keep: "
        "<code>expunge receipt verify FILE --key VKEY</code>. Whoever holds the salt of the acceptance can show what "
        "the receipt is about; it names nobody itself.</p>",
        table(
            {
                "Log": statement["log"],
                "Entries in it": ", ".join(str(index + 1) for index in statement["entries"]),
                "Commitment to the targets": statement["commitment"],
            },
            code=True,
        ),
    ]
    return _PAGE.format(title=escape(title), css=_CSS, body="\n".join(part for part in parts if part))


def _gate(receipt: Receipt) -> Mapping[str, Any] | None:
    for entry in reversed(receipt.entries):
        document = orjson.loads(entry.text)
        if document["event"] == "erasure.forgotten":
            gate = document["body"].get("gate")
            return gate if isinstance(gate, dict) else None
    return None


def _decided(statement: Mapping[str, Any]) -> str:
    rows = dict[str, str]()
    extension, decision = statement["extension"], statement["decision"]
    if extension is not None:
        rows["Deadline extended on"] = instant(extension["at"])
        rows["Ground of the extension"] = _GROUNDS[extension["ground"]]
    if statement["legal_hold"]:
        rows["Legal hold"] = "Nothing of it is erased until the hold is lifted"
    if decision is not None:
        rows["Decided on"] = instant(decision["at"])
        rows["Decision"] = "Refused" if decision["outcome"] == "refused" else "What is left may be kept"
        rows["Ground of the decision"] = _GROUNDS[decision["ground"]]
    return "<h2>What was decided</h2>" + table(rows) if rows else ""


def _guarantee(guarantee: Mapping[str, str] | None) -> str:
    if guarantee is None:
        return ""
    return "<h2>How well</h2>" + table(
        {"Guarantee": guarantee["kind"], "Method": guarantee["method"], "That means": guarantee["means"]}
    )


def _figures(gate: Mapping[str, Any] | None) -> str:
    if gate is None:
        return ""
    figures = {label: f"{gate['figures'][name]:.4g}" for name, label in _FIGURES.items() if name in gate["figures"]}
    return "<h2>What was measured before it served</h2>" + table(figures) if figures else ""


def _by_time(item: tuple[str, str]) -> str:
    return item[1]
