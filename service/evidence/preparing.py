"""Makes the proofs of absence while the ids are there still, and keeps them in a file until the erasures are finished.

The purge takes away what a target is called; so the proofs are made before it, into a file beside what the search looks
for. No id is in it, and no digest of a user or an item that the base does not know.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection

from service.evidence import repository
from service.evidence.commitment import TrainingCommitment
from service.evidence.repository import NamedTarget
from service.evidence.training_key import TrainingKey
from service.interactions.service import Snapshot
from service.platform.identity import Identity
from service.platform.problem import Problem

TARGETS_SHOWN_MAX = 100
SHOWN_BYTES_MAX = 512 * 1024
"""Of the proofs of one erasure; what is beyond is counted."""


def evidence_path(home: Path, compaction: str) -> Path:
    """Where the proofs of a compaction are kept until its erasures are finished."""
    return home / "purge" / f"{compaction}.evidence"


class EvidenceIncomplete(Problem):
    """What proofs of absence are made from is gone: they cannot be made any more."""

    code = "evidence_incomplete"
    status = 500
    title = "The evidence cannot be made"
    next_step = "Run another compaction; nothing is called erased by this one."


class PreparedEvidence:
    """What is to be shown of each erasure of a compaction, read from its file as it is asked for."""

    def __init__(self, path: Path) -> None:
        """Raises EvidenceIncomplete where the file is absent, or cut short."""
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        at = 0
        try:
            with path.open("rb") as lines:
                head: dict[str, Any] = orjson.loads(lines.readline())
                at = lines.tell()
                for line in lines:
                    erasure_id = line[: line.index(b" ")].decode()
                    self._places[erasure_id] = (at + len(erasure_id) + 1, len(line) - len(erasure_id) - 1)
                    at += len(line)
        except (OSError, ValueError) as error:
            msg = "The file of the proofs of absence is not there, or damaged."
            raise EvidenceIncomplete(msg) from error
        self.base: int = head["base"]
        self.dataset_hash: str = head["dataset_hash"]
        self.commitment: Mapping[str, Any] = head["commitment"]

    def absence(self, erasure_id: str) -> dict[str, Any]:
        """What is shown of an erasure; raises EvidenceIncomplete for one that it was not made for."""
        place = self._places.get(erasure_id)
        if place is None:
            msg = f"No proof of absence was made for erasure {erasure_id}."
            raise EvidenceIncomplete(msg)
        with self._path.open("rb") as file:
            file.seek(place[0])
            found: dict[str, Any] = orjson.loads(file.read(place[1]))
        return found

    def destroy(self) -> None:
        """Take the file away."""
        self._path.unlink(missing_ok=True)


def prepare(
    connection: Connection,
    identity: Identity,
    path: Path,
    *,
    base: int,
    dataset_hash: str,
    data: Snapshot,
    erasure_ids: Sequence[str],
) -> PreparedEvidence:
    """Commit to what a base was trained on, and prove that what these erasures name is not in it.

    Call it before the purge. What was prepared already is taken as it is, so a step that is run again gives the same.

    Args:
        connection: reads ids and targets; in one transaction.
        identity: derives the key of the commitment.
        path: where it is kept.
        base: number of the new base.
        dataset_hash: hash of `data`, as in the base's manifest.
        data: what the base was trained on.
        erasure_ids: those that are to be erased.

    Raises:
        EvidenceIncomplete: ids of the training data are not on record any more, or the file is damaged.
        StillTrainedOn: something that an erasure names is in the training data.
    """
    if not path.exists():
        key = TrainingKey.derived(identity, base, dataset_hash)
        users = _aligned(repository.user_ids(connection), data.user_keys)
        items = _aligned(repository.item_ids(connection), data.item_keys)
        commitment = TrainingCommitment.of(users, items, data.edges, key)
        head = {"base": base, "commitment": commitment.document(), "dataset_hash": dataset_hash}
        _write(path, head, _shown(connection, commitment, erasure_ids))
    return PreparedEvidence(path)


def _shown(
    connection: Connection, commitment: TrainingCommitment, erasure_ids: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    requested = repository.requested(connection, erasure_ids)
    left = dict.fromkeys(erasure_ids)
    for erasure_id, rows in groupby(repository.named(connection, sorted(left)), key=itemgetter(0)):
        del left[erasure_id]
        yield erasure_id, _absence(commitment, (target for _, target in rows), requested[erasure_id])
    for erasure_id in left:
        yield erasure_id, _absence(commitment, (), requested[erasure_id])


def _absence(commitment: TrainingCommitment, targets: Iterable[NamedTarget], requested: int) -> dict[str, Any]:
    """What is shown of one erasure. Proofs stand in the order of their leaves, which tells nothing of the targets."""
    proofs: dict[tuple[str, int, bool], dict[str, Any]] = {}
    shown = beyond = room = 0
    for target in targets:
        if not target.known:
            continue
        if shown == TARGETS_SHOWN_MAX:
            beyond += 1
            continue
        if target.user is not None and target.item is not None:
            proof = commitment.absence_of_pair(target.user, target.item)
        elif target.user is not None:
            proof = commitment.absence_of_user(target.user)
        else:
            assert target.item is not None
            proof = commitment.absence_of_item(target.item)
        place = (proof.tree, proof.index, proof.partners is not None)
        if place not in proofs:
            document = proof.document()
            size = len(orjson.dumps(document))
            if room + size > SHOWN_BYTES_MAX:
                beyond += 1
                continue
            room += size
            proofs[place] = document
        shown += 1
    return {
        "targets": requested,
        "shown": shown,
        "beyond_bound": beyond,
        "never_on_record": max(0, requested - shown - beyond),
        "proofs": [proofs[place] for place in sorted(proofs)],
    }


def _aligned(rows: Iterable[tuple[int, str]], keys: NDArray[np.int64]) -> list[str]:
    """The id of each surrogate key; both ascending."""
    found: list[str] = []
    wanted = iter(keys.tolist())
    key = next(wanted, None)
    for at, id in rows:
        if at == key:
            found.append(id)
            key = next(wanted, None)
    if len(found) != len(keys):
        msg = "Ids of the training data are not on record any more."
        raise EvidenceIncomplete(msg)
    return found


def _write(path: Path, head: Mapping[str, Any], shown: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """The file appears when it is whole: a head, and a line an erasure, its id first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}.part")
    with _private(aside) as file:
        file.write(orjson.dumps(head) + b"\n")
        for erasure_id, absence in shown:
            file.write(erasure_id.encode() + b" " + orjson.dumps(absence) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
