"""`python -m service.compactor.child`: one training of a compaction; reads a job as a line, writes JSON lines."""

import json
import os
import resource
import sys
import threading
from collections.abc import Mapping
from typing import Any

import structlog

from model_store import ModelStore, StoreError
from service.compactor.jobs import AttemptRefused, HopelessTraining, TrainingJob, TrainingTrouble
from service.platform.database import Database
from service.platform.logging import configure_logging, error_facts
from service.platform.problem import Problem
from service.platform.secret_check import SecretCheck
from service.settings import load_settings

log = structlog.get_logger()


def main() -> int:
    """Do the job on standard input; the exit status is 0 where what came of it was told."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format, "training")
    if settings.compaction_memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (settings.compaction_memory_bytes,) * 2)
    job = TrainingJob.read(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    database = Database(settings.sql_url, pool_size=settings.pool_size, logs_damage=False)
    try:
        store = ModelStore(settings.store_root, key=SecretCheck(settings, database).unlock().derive("manifest"))
        from service.compactor.training import perform  # torch

        perform(job, settings, database, store, lambda share, note: _tell({"share": share, "note": note}))
    except AttemptRefused as error:
        _tell({"refused": error.facts})
    except HopelessTraining as error:
        _tell({"hopeless": error.code})
    except TrainingTrouble as error:
        _tell({"trouble": error.code})
    except Problem as problem:
        _tell({"trouble": problem.code})
    except (StoreError, OSError) as error:
        log.error("training.failed", step=job.kind, **error_facts(error))
        _tell({"trouble": type(error).__name__})
    except Exception as error:  # what it was is in the log: the compactor only learns that it ended
        log.error("training.failed", step=job.kind, **error_facts(error))
        return 1
    else:
        _tell({"done": True})
    finally:
        database.close()
    return 0


def _tell(message: Mapping[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _end_with_parent() -> None:
    # Nothing more is written: the read ends when the compactor is gone, however it died. What was done is kept.
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
