"""`python -m service.compactor.child`: the trainings of a compaction; reads a job a line, writes JSON lines."""

import json
import os
import queue
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
from service.settings import Settings, load_settings

log = structlog.get_logger()


def main() -> int:
    """Do one job after another, a line on standard input each; ends when that does."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format, "training")
    if settings.compaction_memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (settings.compaction_memory_bytes,) * 2)
    jobs: queue.SimpleQueue[TrainingJob] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), name="jobs", daemon=True).start()
    while _do(jobs.get(), settings):
        pass
    return 1


def _do(job: TrainingJob, settings: Settings) -> bool:
    """Do a job and tell what came of it; False where that is not known."""
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
        return False
    else:
        _tell({"done": True})
    finally:
        database.close()
    return True


def _tell(message: Mapping[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _listen(jobs: "queue.SimpleQueue[TrainingJob]") -> None:
    for line in sys.stdin:
        jobs.put(TrainingJob.read(line))
    os._exit(0)  # the compactor is gone, however it died; what was done is kept


if __name__ == "__main__":
    sys.exit(main())
