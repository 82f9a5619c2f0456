"""Asks witnesses to cosign the log's heads (C2SP tlog-witness): who trusts one of them need not trust this service."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import structlog
from sqlalchemy import Connection

from service.audit import repository
from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.errors import Unverified
from service.audit.tlog.note import KeyKind, Signature, SignedNote, VerifierKey, signatures_of
from service.audit.tree import tree_of
from service.platform import metrics
from service.platform.database import Database

TIMEOUT_S = 5.0
TRIES = 3  # one to learn what the witness has seen, one to send it the proof, one for a race with another replica
ANSWER_BYTES_MAX = 65_536

log = structlog.get_logger()


@dataclass
class Witness:
    """A witness: where heads are sent, the key that cosigns, and the largest size that it is known to have seen."""

    url: str
    key: VerifierKey
    seen: int = field(default=0)

    @classmethod
    def parse(cls, text: str) -> "Witness":
        """Read `URL VKEY`; raises ValueError."""
        url, _, vkey = text.strip().partition(" ")
        if not url.startswith(("https://", "http://")) or not vkey:
            msg = "a witness reads URL, a space, its verifier key"
            raise ValueError(msg)
        try:
            key = VerifierKey.parse(vkey)
        except Unverified as error:
            raise ValueError(str(error)) from None
        if key.kind is not KeyKind.COSIGNATURE:
            msg = "the key of a witness is of kind 4 (cosignature/v1)"
            raise ValueError(msg)
        return cls(url.rstrip("/"), key)


class Witnesses:
    """The witnesses of one log; each is asked for itself, and one that is away holds up nobody."""

    def __init__(self, witnesses: Sequence[Witness]) -> None:
        self._witnesses = list(witnesses)

    async def cosign(self, database: Database, checkpoint: LogCheckpoint, note: str) -> None:
        """Ask those that have not cosigned this head yet, and keep what they answer."""
        signed = {(each.name, each.key_id) for each in SignedNote.parse(note).signatures}
        missing = [each for each in self._witnesses if (each.key.name, each.key.key_id) not in signed]
        if not missing or not checkpoint.size:
            return
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            answers = await asyncio.gather(*(_asked(http, each, database, checkpoint, note) for each in missing))
        given = [signature for answer in answers for signature in answer]
        if given:
            await database.run_write(lambda connection: _keep(connection, checkpoint.size, given))


async def _asked(
    http: httpx.AsyncClient, witness: Witness, database: Database, checkpoint: LogCheckpoint, note: str
) -> list[Signature]:
    """The cosignatures of one witness, checked; none where it does not answer or does not agree."""
    try:
        for _ in range(TRIES):
            body = await _body(witness, database, checkpoint, note)
            response = await http.post(f"{witness.url}/add-checkpoint", content=body)
            if response.status_code == httpx.codes.CONFLICT:
                witness.seen = min(int(response.text.strip()[:18]), checkpoint.size)
                continue
            response.raise_for_status()
            own = _own(witness.key, checkpoint, response.text[:ANSWER_BYTES_MAX])
            witness.seen = checkpoint.size
            metrics.audit_cosignatures_total.labels("given").inc()
            return own
    except (httpx.HTTPError, Unverified, ValueError) as error:
        log.warning("witness.failed", witness=witness.key.name, error=type(error).__name__)
    metrics.audit_cosignatures_total.labels("refused").inc()
    return []


async def _body(witness: Witness, database: Database, checkpoint: LogCheckpoint, note: str) -> str:
    seen = witness.seen

    def proof(connection: Connection) -> list[bytes]:
        return tree_of(connection, checkpoint.size).consistency_proof(seen)

    hashes = await database.run_read(proof)
    lines = [f"old {seen}", *(base64.b64encode(each).decode() for each in hashes)]
    return "\n".join([*lines, "", note])


def _own(key: VerifierKey, checkpoint: LogCheckpoint, answer: str) -> list[Signature]:
    own = [each for each in signatures_of(answer) if (each.name, each.key_id) == (key.name, key.key_id)]
    if not own:
        raise Unverified("unknown_key", "The witness signed with another key than the one configured.")
    for signature in own:
        key.check(checkpoint.text(), signature)
    return own


def _keep(connection: Connection, size: int, given: Sequence[Signature]) -> None:
    found = repository.checkpoint_of(connection, size)
    if found is not None and found[0] == size:
        repository.set_note(connection, size, str(SignedNote.parse(found[1]).signed(*given)))
