"""A service's log and a real receipt out of it, and an attacker with a key of their own."""

import asyncio
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Connection

from service.audit import service as audit
from service.audit.checkpoints import CheckpointPublisher
from service.audit.service import AuditEvent
from service.audit.tlog.note import SigningKey
from service.erasures import decisions
from service.erasures.grounds import DecisionOutcome, ExtensionGround, RefusalGround
from service.platform.database import Database
from service.platform.tables import erasures
from service.receipts import service as receipts
from service.receipts.document import Receipt
from tests.factories.domains import Domains
from tests.factories.evidence import Compacted, Lie

KEY = SigningKey("test.example/log", b"k" * 32)
VERIFIER = Path(__file__).parents[2] / "docs" / "verifier" / "verify_receipt.py"


@dataclass(frozen=True)
class Issued:
    """A receipt, and what its caller kept."""

    erasure_id: str
    receipt: Receipt
    salt: str
    users: tuple[str, ...]


@dataclass
class LogService:
    """A service whose erasures are forgotten at a word."""

    domains: Domains
    key: SigningKey = KEY

    @property
    def publisher(self) -> CheckpointPublisher:
        """What signs its log."""
        return CheckpointPublisher(self.domains.database, self.key, self.domains.clock)

    def issued(self, *users: str, forgotten: bool = True) -> Issued:
        """Accept an erasure of users, have it forgotten, and issue its receipt."""
        erasure = self.domains.accept(users=users)
        if forgotten:
            self.forget(erasure.id)
        assert erasure.salt is not None
        return Issued(erasure.id, self.receipt(erasure.id), erasure.salt, users)

    def forget(self, erasure_id: str) -> None:
        """What a settled batch leaves of an erasure."""
        self.domains.clock.step(1)
        now = self.domains.clock.now()

        def unit(connection: Connection) -> None:
            seq = audit.reserve(connection)
            done = erasures.update().where(erasures.c.id == erasure_id)
            connection.execute(done.values(status="forgotten", forgotten_at=now, version_before=1, version_after=2))
            gate = {"passed": True, "figures": {"auc": 0.5031, "drift": 1e-7}, "reasons": []}
            body = {"mode": "forget", "version_before": 1, "gate": gate}
            audit.write(connection, seq, [AuditEvent("erasure.forgotten", body, erasure_id, 2)], now)

        self.domains.database.transact(unit)

    def decide(self, erasure_id: str, *, held: bool) -> None:
        """Extend its deadline and put it under legal hold, or refuse it."""
        services, at = self.domains.services, self.domains.clock.now()
        if held:
            until = at + timedelta(days=60)
            ground = ExtensionGround.COMPLEXITY
            asyncio.run(decisions.extend(services, erasure_id, until, ground, "words"))
            asyncio.run(decisions.set_hold(services, erasure_id))
        else:
            ground_of_refusal = RefusalGround.LEGAL_CLAIMS
            asyncio.run(decisions.decide(services, erasure_id, DecisionOutcome.REFUSED, ground_of_refusal))

    def erase(self, *erasure_ids: str, lie: Lie | None = None, **entry: Any) -> None:
        """What a compaction leaves of erasures; with `lie`, or members of the entry, the service itself lies."""
        with tempfile.TemporaryDirectory() as folder:
            Compacted(self.domains, Path(folder)).erase(*erasure_ids, lie=lie, entry=entry)

    def receipt(self, erasure_id: str) -> Receipt:
        """The receipt of an erasure as it is now."""
        return asyncio.run(receipts.issue(self.domains.services, self.publisher, erasure_id))


@pytest.fixture
def service(database: Database) -> LogService:
    """A service with some erasures in its log."""
    made = LogService(Domains(database))
    for number in range(5):
        made.domains.accept(users=(f"other-{number}",))
    return made


@pytest.fixture
def other_service(open_database: Callable[[str], Database], tmp_path: Path) -> LogService:
    """Another service, with another log under another key."""
    import migrations

    url = f"sqlite:///{tmp_path / 'other.db'}"
    migrations.upgrade(url)
    return LogService(Domains(open_database(url)), SigningKey("test.example/log", b"x" * 32))


@pytest.fixture(scope="session")
def stand_alone() -> ModuleType:
    """The verifier that shares no code with the service."""
    spec = importlib.util.spec_from_file_location("verify_receipt", VERIFIER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
