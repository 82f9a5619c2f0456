"""Checks the evidence of an erased erasure: against its entry of the log, and by the proofs in it. Needs no service."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.audit.tlog.errors import Unverified
from service.evidence.absence import ITEMS, USERS, AbsenceProof, wrong
from service.evidence.training_key import TrainingKey

EVIDENCE_FORMAT = "expunge-evidence/v1"
BYTES_MAX = 1024 * 1024
PROOFS_MAX = 100
SAME_IN_ENTRY = ("compaction", "base_before", "base_after", "dataset_hash", "commitment")
"""Members of the evidence that the entry of the log has, too."""
SEARCHED = (
    *("columns", "database_files", "write_ahead_log", "model_store", "checkpoints"),
    *("stream", "stream_files", "home", "process_logs"),
)
"""The stores that evidence has a verdict on."""
_COUNTS = ("targets", "shown", "beyond_bound", "never_on_record")


@dataclass(frozen=True)
class ProvenAbsence:
    """What evidence shows: of how many targets, out of how many; `named`: how many of the caller's ids."""

    targets: int
    shown: int
    named: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What must be shown to be absent, in outside ids, and the key of the commitment."""

    key: TrainingKey
    interactions: tuple[tuple[str, str], ...]
    users: tuple[str, ...]
    items: tuple[str, ...]


def verify_evidence(
    text: str, entry: Mapping[str, Any], erasure_id: str, wanted: Wanted | None = None
) -> ProvenAbsence:
    """Check evidence against the body of the entry `erasure.erased`.

    Args:
        text: the evidence, as it is in the receipt.
        entry: the body of the entry, proven to be in the log.
        erasure_id: whose it must be.
        wanted: ids whose absence it must show.

    Raises:
        Unverified: wrong_evidence, wrong_absence, wrong_training_key, contradiction.
    """
    if len(text) > BYTES_MAX:
        raise _unlike("it is too long")
    if hashlib.sha256(text.encode()).hexdigest() != entry.get("evidence"):
        raise _unlike("its hash is not the one in the log")
    body = _object(text)
    if body.get("format") != EVIDENCE_FORMAT or body.get("erasure_id") != erasure_id:
        raise _contradiction(f"the evidence is of another erasure, or not of the format {EVIDENCE_FORMAT}")
    for name in SAME_IN_ENTRY:
        if body.get(name) != entry.get(name):
            raise _contradiction(f"evidence and log name another {name.replace('_', ' ')}")
    _verify_search(body.get("search"))
    proven, proofs = _verify_absence(body)
    return proven if wanted is None else _verify_named(body, proven, proofs, wanted)


def _verify_search(search: Any) -> None:
    stores = search.get("stores") if isinstance(search, Mapping) else None
    if not isinstance(stores, list) or not all(isinstance(each, Mapping) for each in stores):
        raise _unlike("it says nothing of a search")
    if sorted(str(each.get("store")) for each in stores) != sorted(SEARCHED):
        raise _contradiction("there is not one verdict on each store")
    for each in stores:
        if each.get("verdict") not in ("GONE", "NOT_CHECKED"):
            raise _contradiction("what is called erased was found in a store, or there is no verdict on one")
        if each["verdict"] == "NOT_CHECKED" and not each.get("reason"):
            raise _contradiction("a store was not searched, and there is no reason why")


def _verify_absence(body: Mapping[str, Any]) -> tuple[ProvenAbsence, list[AbsenceProof]]:
    absence, commitment = body.get("absence"), body.get("commitment")
    if not isinstance(absence, Mapping) or not isinstance(commitment, Mapping):
        raise _unlike("it proves nothing of what the base was trained on")
    targets, shown, beyond, unknown = (_count(absence.get(name)) for name in _COUNTS)
    given = absence.get("proofs")
    if not isinstance(given, list) or len(given) > PROOFS_MAX or bool(given) != bool(shown) or len(given) > shown:
        raise wrong("there are more proofs, or fewer, than it counts")
    if shown + beyond + unknown != targets:
        raise wrong("its counts do not add up")
    roots = {tree: _root(commitment.get(tree)) for tree in (USERS, ITEMS)}
    proofs = [AbsenceProof.read(each) for each in given]
    for proof in proofs:
        proof.verify(*roots[proof.tree])
    return ProvenAbsence(targets, shown), proofs


def _verify_named(
    body: Mapping[str, Any], proven: ProvenAbsence, proofs: list[AbsenceProof], wanted: Wanted
) -> ProvenAbsence:
    if body["commitment"].get("key") != wanted.key.commitment:
        detail = "The training key is of another base than the one that the evidence is about."
        raise Unverified("wrong_training_key", detail)
    shown = list(_shown(proofs, wanted))
    if sum(shown) < proven.shown:
        raise wrong("it is about other users, items or interactions than the ones that are named")
    return ProvenAbsence(proven.targets, proven.shown, sum(shown))


def _shown(proofs: list[AbsenceProof], wanted: Wanted) -> Iterator[bool]:
    """For each target, whether a proof shows that it is absent."""
    of = {tree: [proof for proof in proofs if proof.tree == tree] for tree in (USERS, ITEMS)}
    for id in wanted.users:
        yield any(proof.excludes(wanted.key.user(id)) for proof in of[USERS])
    for id in wanted.items:
        yield any(proof.excludes(wanted.key.item(id)) for proof in of[ITEMS])
    for user_id, item_id in wanted.interactions:
        user, item = wanted.key.user(user_id), wanted.key.item(item_id)
        yield (
            any(proof.excludes(user) or proof.excludes_pair(user, item) for proof in of[USERS])
            or any(proof.excludes(item) for proof in of[ITEMS])
        )


def _root(tree: Any) -> tuple[int, bytes]:
    """(size, root) of a tree of the commitment."""
    try:
        size, root = tree["size"], bytes.fromhex(tree["root"])
    except (TypeError, KeyError, ValueError):
        size, root = None, b""
    if type(size) is not int or not 0 < size < 1 << 62 or len(root) != 32:
        raise wrong("the commitment has no root of a tree")
    return size, root


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise wrong("a count in it is no number")
    return value


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _unlike("it is no JSON object")
    return value


def _unlike(why: str) -> Unverified:
    return Unverified("wrong_evidence", f"The evidence is not what the log has: {why}.")


def _contradiction(why: str) -> Unverified:
    return Unverified("contradiction", f"The receipt contradicts itself: {why}.")
