"""The part of a receipt's page that tells of the evidence of an erased erasure."""

from collections.abc import Mapping
from html import escape
from typing import Any

import orjson

from service.receipts.page_parts import bullets, columns, instant, paragraph, table

_STORES = {
    "columns": "Tables of the database",
    "database_files": "Files of the database, byte by byte",
    "write_ahead_log": "Write-ahead log of the database",
    "model_store": "Models",
    "checkpoints": "Trainings under way",
    "stream": "Queue of the workers",
    "stream_files": "Files of the queue, byte by byte",
    "home": "Other files of the service",
    "process_logs": "Logs of the service",
}
_STEPS = {
    "snapshot": "Training data read",
    "training": "Model trained from scratch",
    "gating": "Quality compared with the model before",
    "pretraining": "Prepared for the next erasures",
    "moving": "New model put to use",
    "purging": "What was left taken away",
    "scanning": "Every store searched",
    "finishing": "Called erased",
}


def evidence_parts(text: str | None) -> list[str]:
    """Pieces of HTML, none where there is no evidence."""
    if text is None:
        return []
    body = orjson.loads(text)
    search, purge = body["search"], body["purge"]
    undone = [str(each) for step in purge.get("steps", {}).values() for each in step.get("undone", ())]
    return [
        "<h2>What the model was trained on</h2>",
        table(_training(body)),
        paragraph(_absence(body["absence"])),
        "<h2>When the model was made anew, and how long it took</h2>",
        table({_STEPS.get(name, name): _took(step) for name, step in body["steps"].items()}),
        "<h2>What was searched</h2>",
        columns(
            ("Store", "Found", "Searched"),
            ((_STORES.get(each["store"], each["store"]), *_verdict(each)) for each in search["stores"]),
        ),
        *_list("What could not be taken away", undone),
        *_list("What stays, and why", [_kept(each) for store in search["stores"] for each in store["kept"]]),
        *_list("What limits the search", search["notes"]),
        *_list("What the search does not reach", search["not_searched"]),
        "<h2>What is committed to</h2>",
        _hashes(body),
    ]


def _training(body: Mapping[str, Any]) -> dict[str, str]:
    before = body["base_before"]
    sizes = (body["commitment"][side]["size"] - 1 for side in ("users", "items"))
    return {
        "Model before": "none" if before is None else f"base {before}",
        "Model now": f"base {body['base_after']}, trained from scratch",
        "It was trained on": "{:,} users and {:,} items".format(*sizes),
        "Compaction": body["compaction"],
    }


def _absence(absence: Mapping[str, Any]) -> str:
    parts = [f"Of {absence['targets']:,} targets named, {absence['shown']:,} are proven not to be in it."]
    if absence["never_on_record"]:
        parts.append(f"{absence['never_on_record']:,} were never on record.")
    if absence["beyond_bound"]:
        parts.append(f"Of {absence['beyond_bound']:,} more no proof is shown: it would be too long.")
    return " ".join(parts)


def _took(step: Any) -> str:
    if not isinstance(step, Mapping) or "at" not in step:
        return str(step)
    seconds = step.get("seconds")
    return instant(str(step["at"])) + ("" if seconds is None else f", {float(seconds):,.1f} s")


def _verdict(store: Mapping[str, Any]) -> tuple[str, str]:
    if store["verdict"] == "GONE":
        return "nothing", "" if store["bytes"] is None else f"{store['bytes']:,} bytes"
    return "not searched", str(store["reason"])


def _kept(kept: Mapping[str, Any]) -> str:
    note = f": {kept['note']}" if kept["note"] else ""
    return f"{kept['place']}{note}"


def _list(title: str, texts: list[str]) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", bullets(texts)] if texts else []


def _hashes(body: Mapping[str, Any]) -> str:
    commitment = body["commitment"]
    return table(
        {
            "Data set": body["dataset_hash"],
            "Users trained on": commitment["users"]["root"],
            "Items trained on": commitment["items"]["root"],
            "Key of these": commitment["key"],
        },
        code=True,
    )
