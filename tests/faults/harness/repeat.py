"""A pytest plugin: runs chosen tests several times and writes down what became of each, one line of JSON a run.

`FAULTS_NODES`: JSON list of what the ids of tests begin with; others are left out. `FAULTS_RUNS`: how often each.
`FAULTS_OUT`: the file to write to.
"""

import json
import os
from pathlib import Path

import pytest

NODES = tuple(json.loads(os.environ.get("FAULTS_NODES", "[]")))
RUNS = int(os.environ.get("FAULTS_RUNS", "1"))
OUT = Path(os.environ.get("FAULTS_OUT", os.devnull))
RUN = "faults_run_number"


@pytest.fixture(scope="session")
def faults_run_number(request: pytest.FixtureRequest) -> int:
    """Which run this is."""
    number: int = request.param
    return number


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have each test run so many times."""
    metafunc.fixturenames.append(RUN)
    metafunc.parametrize(RUN, range(RUNS), indirect=True, ids=[f"run{number}" for number in range(RUNS)])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not chosen."""
    chosen = [item for item in items if item.nodeid.startswith(NODES)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down what became of a run: when it ended, or was broken off before."""
    if report.when == "call" or (report.when == "setup" and not report.passed):
        text = "" if report.passed else str(report.longrepr)[-600:]
        line = {"node": report.nodeid, "outcome": report.outcome, "seconds": report.duration, "text": text}
        with OUT.open("a") as file:
            print(json.dumps(line), file=file)
