"""The five core modules, and the tests that concern each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CoreModule:
    """Files, some of which count with these functions alone, and tests."""

    files: dict[str, frozenset[str]]
    tests: tuple[str, ...]


ALL = frozenset[str]()
MODULES = {
    "fence": CoreModule(
        {
            "service/models/service.py": frozenset(
                {
                    "register",
                    "retire_unknown",
                    "move_alias",
                    "substitutes",
                    "admit",
                    "mark_purged",
                    "promote",
                    "_promote",
                }
                | {"_ready", "_fence", "_uncovered", "_take_base_along"}
            ),
            "service/models/repository.py": ALL,
            "service/worker/lease.py": ALL,
            "service/worker/repository/leases.py": ALL,
        },
        (
            *("tests/unit/models", "tests/unit/worker/test_lease.py", "tests/api/test_models.py"),
            *(
                "tests/unit/worker/test_retention.py",
                "tests/unit/purge/test_purge.py",
                "tests/unit/recommendations/test_live.py",
            ),
        ),
    ),
    "outbox": CoreModule(
        {"service/erasures/outbox.py": ALL, "service/erasures/relay.py": ALL},
        ("tests/unit/erasures/test_relay.py", "tests/unit/platform/test_gauges.py"),
    ),
    "suppression": CoreModule(
        {
            "service/interactions/repository.py": ALL,
            "service/erasures/repository.py": frozenset(
                {"suppress", "_covering", "cancel", "approve", "await_approval"}
            ),
            "service/erasures/decision_repository.py": ALL,
        },
        (
            *("tests/property/test_erasures.py", "tests/unit/interactions/test_recording.py"),
            *("tests/unit/interactions/test_importing.py", "tests/unit/interactions/test_vectors.py"),
            *("tests/unit/erasures/test_accepting.py", "tests/unit/erasures/test_decisions.py"),
            *("tests/unit/recommendations/test_reading.py", "tests/unit/recommendations/test_popularity.py"),
            *(
                "tests/api/test_erasures.py",
                "tests/api/test_interactions.py",
                "tests/api/test_erasure_access.py",
                "tests/api/test_approval.py",
            ),
        ),
    ),
    "ledger": CoreModule(
        {
            "model_store/erasure_ledger.py": ALL,
            "service/erasures/ledger_keeping.py": ALL,
            "service/erasures/replay.py": ALL,
        },
        (
            *("tests/unit/model_store/test_erasure_ledger.py", "tests/unit/erasures/test_replay.py"),
            "tests/unit/platform/test_integrity.py",
        ),
    ),
    "verifier": CoreModule(
        {
            "service/receipts/verification.py": ALL,
            "service/audit/verification.py": ALL,
            "service/audit/tlog/checkpoint.py": ALL,
            "service/audit/tlog/merkle.py": ALL,
            "service/audit/tlog/note.py": ALL,
            "service/audit/tlog/proof.py": ALL,
        },
        ("tests/attacks", "tests/unit/audit"),
    ),
}
