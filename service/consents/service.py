"""New consent: tombstones and dislikes that name just what is consented to are lifted; it may be recorded again.

What a consent says is that whoever was erased comes back of their own will. It shows nothing that was erased, for that
is gone. Only what is erased can be consented to: before that the erasure itself would take away what was recorded anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from service.audit import service as audit
from service.audit.service import AuditEvent
from service.consents import repository
from service.consents.problems import ErasureOpen, NoConsent
from service.consents.repository import SuppressionFact
from service.erasures.targets import EVERY, Subjects, Target, TargetKind, new_salt
from service.platform.dependencies import Services
from service.platform.problem import FieldError

COVERED = "An erasure that is not erased covers it."

log = structlog.get_logger()


@dataclass(frozen=True)
class RefusedStill:
    """How many targets are refused still, by what else was erased: the user, the item, single interactions of it."""

    count: int
    user: int
    item: int
    interactions: int


@dataclass(frozen=True)
class Consent:
    """What a consent did. `commitment` (hex) stands in the log, `salt` (hex) nowhere; None where nothing was lifted."""

    lifted: int
    still_refused: RefusedStill
    commitment: str | None
    salt: str | None


async def give(services: Services, subjects: Subjects, pointers: Sequence[str]) -> Consent:
    """Lift what refuses late writes of just these targets, where their erasures are erased; one transaction.

    Args:
        services: of the process.
        subjects: what is consented to.
        pointers: where each target was given, in the order of `subjects.targets`.

    Raises:
        NoConsent: it names nothing.
        ErasureOpen: an erasure that is not erased covers some of it; nothing was changed.
    """
    if not len(subjects):
        raise NoConsent(errors=[FieldError("#", "None of interactions, users and items names anything.")])
    targets, salt = subjects.targets(services.identity), new_salt()
    commitment = subjects.commitment(salt)

    def unit(connection: Connection) -> Consent:
        audit.reserve(connection, 0)  # no erasure is accepted or finished meanwhile
        known = _look_up(connection, targets)
        found = [_covering(target, known) for target in targets]
        refused = [place for place, facts in enumerate(found) if not all(fact.erased for fact in facts)]
        if refused:
            raise ErasureOpen(errors=[FieldError(pointers[place], COVERED) for place in refused])
        lifted = [
            (target.user_digest, target.item_digest)
            for target, facts in zip(targets, found, strict=True)
            if any((fact.user, fact.item) == (target.user_digest, target.item_digest) for fact in facts)
        ]
        still = _still_refused(targets, found, known)
        if not lifted:
            return Consent(0, still, None, None)
        repository.lift(connection, lifted)
        counts = {
            "interactions": len(subjects.interactions),
            "items": len(subjects.items),
            "users": len(subjects.users),
        }
        entry = AuditEvent("consent.given", {"commitment": commitment, "lifted": len(lifted), "targets": counts})
        audit.write(connection, audit.reserve(connection), [entry], services.clock.now())
        return Consent(len(lifted), still, commitment, salt.hex())

    consent = await services.database.run_write(unit)
    log.info("consent.given", count=consent.lifted)
    return consent


@dataclass(frozen=True)
class _Known:
    """What is suppressed of what was asked for: by user, whole items, and items that are named in interactions."""

    of_user: dict[bytes, list[SuppressionFact]]
    of_item: dict[bytes, list[SuppressionFact]]
    in_interactions: set[bytes]


def _look_up(connection: Connection, targets: Sequence[Target]) -> _Known:
    users = sorted({target.user_digest for target in targets} - {EVERY})
    items = sorted({target.item_digest for target in targets} - {EVERY})
    whole = sorted({target.item_digest for target in targets if target.kind is TargetKind.ITEM})
    of_user: dict[bytes, list[SuppressionFact]] = {}
    of_item: dict[bytes, list[SuppressionFact]] = {}
    for fact in repository.of_users(connection, users):
        of_user.setdefault(fact.user, []).append(fact)
    for fact in repository.of_whole_items(connection, items):
        of_item.setdefault(fact.item, []).append(fact)
    return _Known(of_user, of_item, repository.named_in_interactions(connection, whole))


def _covering(target: Target, known: _Known) -> list[SuppressionFact]:
    """What suppresses a target whole."""
    facts = known.of_item.get(target.item_digest, []) if target.item_digest != EVERY else []
    if target.user_digest == EVERY:
        return facts
    wanted = (EVERY, target.item_digest)
    return [*facts, *(fact for fact in known.of_user.get(target.user_digest, []) if fact.item in wanted)]


def _still_refused(
    targets: Sequence[Target], found: Sequence[Sequence[SuppressionFact]], known: _Known
) -> RefusedStill:
    users = items = interactions = 0
    consented = {(target.user_digest, target.item_digest) for target in targets}
    for target, facts in zip(targets, found, strict=True):
        left = [fact for fact in facts if (fact.user, fact.item) not in consented]
        match target.kind:
            case TargetKind.INTERACTION:
                by_user = any(fact.item == EVERY for fact in left)
                users, items = users + by_user, items + (bool(left) and not by_user)
            case TargetKind.USER:
                own = known.of_user.get(target.user_digest, [])
                interactions += any((fact.user, fact.item) not in consented for fact in own)
            case TargetKind.ITEM:
                interactions += target.item_digest in known.in_interactions
    return RefusedStill(users + items + interactions, users, items, interactions)
