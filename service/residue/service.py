"""Searches over REST: the one that completed an erasure, and one that is run now on what the caller presents."""

import asyncio
import threading
from typing import Any

from service.erasures import service as erasures
from service.erasures.repository import Erasure
from service.erasures.targets import Subjects
from service.platform.clock import rfc3339
from service.platform.dependencies import Services
from service.residue import repository
from service.residue.needles import Needles
from service.residue.problems import CommitmentMismatch, SearchUnderWay
from service.residue.report import about_one
from service.residue.scan import ResidueScan

SEARCH_SECONDS = 60.0
"""What a search for a caller may take; what it did not get to is told as not checked."""
RETRY_AFTER_S = 15

_searching = threading.Lock()


async def stored(services: Services, erasure_id: str, owner: str | None) -> dict[str, Any]:
    """What the latest search of its compaction found of an erasure, where there was one.

    Raises:
        ErasureNotFound: there is none of this id, or it is not of `owner`.
    """
    erasure = await erasures.get(services, erasure_id, owner)
    report = await services.database.run_read(lambda connection: repository.latest_report(connection, erasure_id))
    return _body(erasure, None if report is None else about_one(report, erasure_id))


async def search(
    services: Services, erasure_id: str, owner: str | None, subjects: Subjects, salt: bytes
) -> dict[str, Any]:
    """Search for what is presented, now. Nothing of it is stored, logged or answered.

    Raises:
        ErasureNotFound: there is none of this id, or it is not of `owner`.
        CommitmentMismatch: salt and subjects are not those of the erasure.
        SearchUnderWay: another search is under way in this process.
    """
    erasure = await erasures.get(services, erasure_id, owner)
    if subjects.commitment(salt) != erasure.commitment:
        raise CommitmentMismatch
    if not _searching.acquire(blocking=False):
        raise SearchUnderWay(retry_after_s=RETRY_AFTER_S)
    # The thread gives the lock back: a caller who goes away must not let a second search in.
    return _body(erasure, await asyncio.to_thread(_search, services, erasure_id, subjects, salt))


def _search(services: Services, erasure_id: str, subjects: Subjects, salt: bytes) -> dict[str, Any]:
    try:
        needles = services.database.query(
            lambda connection: Needles.presented(connection, services.identity, subjects, [salt], erasure_id)
        )
        scan = ResidueScan(services.database, services.store, services.stream, services.settings, services.clock)
        return scan.run(needles, seconds=SEARCH_SECONDS, stopping=services.stopping.is_set).as_dict()
    finally:
        _searching.release()


def _body(erasure: Erasure, report: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "erasure_id": erasure.id,
        "status": "not_searched_yet" if report is None else "searched",
        "due_at": rfc3339(erasure.due_at),
        "report": report,
    }
