"""What the tests of the command line share: running a command, small data, and a home with a model in it."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import httpx
import pytest
import structlog

from service.cli import main
from service.interactions.generated import GeneratorConfig, generate_dataset
from service.recommender.dataset import Dataset

SMALL = GeneratorConfig(n_users=80, n_items=120, n_communities=4, mean_degree=20.0)
WAIT_S = 150.0
SERVING = {"EXPUNGE_METRICS_PORT": "0", "EXPUNGE_LOG_LEVEL": "warning", "EXPUNGE_TORCH_THREADS": "1"}


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], home: Path) -> Run:
    """Runs a command in this process, on a home of its own."""

    def run_(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        structlog.reset_defaults()  # as it is in a process of its own: another test may have run a service in this one
        status = main(["--home", str(home), *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run_


@pytest.fixture(scope="session")
def small() -> Dataset:
    """A generated data set that is learnt in a second."""
    return generate_dataset(5, plan=SMALL)


@pytest.fixture(scope="session")
def small_folder(small: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as CSV files."""
    folder = tmp_path_factory.mktemp("data") / "small"
    folder.mkdir()
    for name, part in (("train", small.train), ("test", small.test)):
        pairs = [(small.users.ids[user], small.items.ids[item]) for user, item in part.tolist()]
        _write(folder / f"{name}.csv", ("user_id", "item_id"), pairs)
    _write(folder / "items.csv", ("item_id", "title"), list(small.titles.items()))
    return folder


def _write(path: Path, header: tuple[str, str], rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


@pytest.fixture(scope="session")
def learnt_home(small_folder: Path) -> Iterator[Path]:
    """A home with data, a base and an encoder; tests copy it (`own_home`), they never change it."""
    folder = Path(tempfile.mkdtemp(prefix="expunge-"))
    learn = ("train", "--dimension", "16", "--batch-size", "256", "--epochs", "6", "--no-pretrain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_TORCH_THREADS", "1")  # so little work is done sooner by one
        for command in (("import", "--data", str(small_folder)), learn, ("pretrain", "--steps", "4")):
            assert main(["--home", str(folder), *command]) == 0
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_home(learnt_home: Path, home: Path) -> Path:
    """A copy of the learnt home that a test may change."""
    shutil.copytree(learnt_home, home, dirs_exist_ok=True)
    return home


@dataclass
class Serving:
    """A real `expunge serve`, with what it says line by line."""

    process: subprocess.Popen[str]
    lines: "Queue[str]"
    said: list[str] = field(default_factory=list)
    url: str = ""
    key: str = ""

    def until(self, text: str) -> str:
        """The first line from here on that holds a text; fails where none comes."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                line = self.lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except Empty:
                break
            self.said.append(line)
            if text in line:
                return line
        pytest.fail(f"{text!r} was not said; said was: {self.said}")

    def get(self, path: str) -> httpx.Response:
        """An authorised answer of the API."""
        with closing(httpx.Client(base_url=self.url, timeout=WAIT_S)) as client:
            return client.get(path, headers={"Authorization": f"Bearer {self.key}"})

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


@pytest.fixture
def serving(own_home: Path) -> Iterator[Serving]:
    """`expunge serve` on a copy of the learnt home, ready to answer; a test may do to it what it likes."""
    with start_serving(own_home) as service:
        await_ready(service)
        yield service


@pytest.fixture(scope="session")
def service(learnt_home: Path) -> Iterator[Serving]:
    """The same, one for all tests that leave it running; each erases from users of its own."""
    folder = Path(tempfile.mkdtemp(prefix="expunge-"))
    shutil.copytree(learnt_home, folder, dirs_exist_ok=True)
    with start_serving(folder) as shared:
        await_ready(shared)
        yield shared
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def start_serving(home: Path, *arguments: str) -> Iterator[Serving]:
    """`expunge serve` on a free port; ended at the end of the block, whatever happened in it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "--home", str(home), "serve", "--port", "0", *arguments],
        env={**os.environ, **SERVING},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: Queue[str] = Queue()
    reader = Thread(target=_collect, args=(process, lines), daemon=True)
    reader.start()
    try:
        yield Serving(process, lines)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(WAIT_S)
        finally:
            process.kill()
            process.wait()
        reader.join(WAIT_S)


def await_ready(service: Serving) -> None:
    """Take the key and the address from what it says."""
    service.key = service.until("Admin key").split()[2]
    service.url = service.until("API       ").split()[1]


def _collect(process: subprocess.Popen[str], lines: "Queue[str]") -> None:
    assert process.stdout is not None
    with process.stdout as out:
        for line in out:
            lines.put(line.rstrip())
