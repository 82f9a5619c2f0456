"""The pytest plugin that tries mutants: tests are collected and run once, then a fork of this process per mutant.

The first run tells which tests enter which function. A mutant of a function is put in place of the function's code, and
only those tests run, the quickest first, until one fails. A mutant outside functions needs modules that are not
imported yet: it gets a process of its own, in which the changed source is imported.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import hypothesis
import pytest

from tests.mutation.modules import MODULES
from tests.mutation.mutants import Mutant, Mutations, code_of

ROOT = Path(__file__).parents[2]
LEAST_S, TIMES = 3.0, 10.0
"""Of the processor: a test that takes more than these seconds and so many times what it took before never ends."""
WALL_S, WALL_TIMES = 60.0, 60.0
PROCESS_S = 600.0

hypothesis.settings.register_profile(
    "mutation", derandomize=True, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What to try, for how long, and where it is written."""
    parser.addoption("--mutate", help="a core module")
    parser.addoption("--mutate-results", type=Path, help="JSON file of what was tried so far")
    parser.addoption("--mutate-seconds", type=float, default=3600.0)


def pytest_configure(config: pytest.Config) -> None:
    """Import a changed source where one is named."""
    hypothesis.settings.load_profile("mutation")
    named = os.environ.get("EXPUNGE_MUTANT")
    if named:
        path, _, number = named.rpartition(":")
        sys.meta_path.insert(0, _Changed(path, int(number)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On SQLite alone."""
    items[:] = [item for item in items if "postgres" not in item.nodeid and not _is_on_postgresql(item)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Try the mutants in place of a plain run."""
    if session.config.getoption("--mutate") is None:
        return None
    if session.testsfailed or not session.items:
        raise session.Interrupted("The tests were not collected.")
    Trial(session).run()
    return True


class Trial:
    """One trial of a core module."""

    def __init__(self, session: pytest.Session) -> None:
        config = session.config
        self.session, self.module = session, MODULES[config.getoption("--mutate")]
        self.results: Path = config.getoption("--mutate-results")
        self.end = time.monotonic() + float(config.getoption("--mutate-seconds"))
        self.files = [Mutations(ROOT, path, functions) for path, functions in self.module.files.items()]
        self.known: dict[str, dict[str, Any]] = {}
        self.entered: dict[tuple[str, str], set[str]] = {}
        self.took: dict[str, float] = {}
        self.failed = False

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test failed."""
        self.failed |= report.failed

    def run(self) -> None:
        """The plain run, then each mutant that was not tried yet."""
        if self.results.exists():
            self.known = json.loads(self.results.read_text())
        self.session.config.pluginmanager.register(self)
        waiting = [(file, mutant) for file in self.files for mutant in file.all() if not self._is_known(file, mutant)]
        if not waiting:
            return
        sound = list(self._sound_items())
        # By chance, so that a part of them is a sample of all; the same at each run.
        waiting.sort(key=lambda each: hash_of(each[1].key))
        for file, mutant in waiting:
            if time.monotonic() > self.end:
                break
            verdict = self._try(file, mutant, sound)
            self.known[mutant.key] = {"hash": file.hash, "line": mutant.line, "verdict": verdict}
            self.results.write_text(json.dumps(self.known, indent=1, sort_keys=True))

    def _is_known(self, file: Mutations, mutant: Mutant) -> bool:
        found = self.known.get(mutant.key)
        return found is not None and found["hash"] == file.hash and found["verdict"] != "survived"

    def _sound_items(self) -> Iterator[pytest.Item]:
        """Each test that passes, run once with a look at which functions it enters."""
        wanted = {str(ROOT / file.path): file.path for file in self.files}
        entered = self.entered.setdefault
        for item in self.session.items:

            def look(frame: Any, event: str, _: object, item: pytest.Item = item) -> None:
                if event == "call" and (path := wanted.get(frame.f_code.co_filename)) is not None:
                    entered((path, frame.f_code.co_qualname.replace(".<locals>", "")), set()).add(item.nodeid)

            self.failed, begun = False, time.process_time()
            threading.setprofile(look)
            sys.setprofile(look)
            try:
                self._test(item)
            finally:
                sys.setprofile(None)
                threading.setprofile(None)  # type: ignore[arg-type]
            self.took[item.nodeid] = time.process_time() - begun
            if not self.failed:
                yield item

    def _test(self, item: pytest.Item) -> None:
        item._initrequest()  # type: ignore[attr-defined]
        self.session.config.hook.pytest_runtest_protocol(item=item, nextitem=_Nobody(self.session))

    def _try(self, file: Mutations, mutant: Mutant, sound: list[pytest.Item]) -> str:
        if not mutant.function:
            return self._in_a_process(mutant)
        nodes = set[str]()
        for (path, function), ids in self.entered.items():
            if path == mutant.path and (function + ".").startswith(mutant.function + "."):
                nodes |= ids
        items = sorted((item for item in sound if item.nodeid in nodes), key=lambda item: self.took[item.nodeid])
        if not items:
            return "survived"
        code = compile(file.changed(mutant.number), str(ROOT / mutant.path), "exec", dont_inherit=True)
        try:
            live, changed = function_of(mutant), code_of(code, mutant.function)
            if len(live.__code__.co_freevars) != len(changed.co_freevars):
                raise KeyError(mutant.function)
        except (KeyError, AttributeError):
            return self._in_a_process(mutant)
        return self._in_a_fork(live, changed, items)

    def _in_a_fork(self, live: FunctionType, changed: CodeType, items: list[pytest.Item]) -> str:
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os.setpgid(0, 0)
                nothing = os.open(os.devnull, os.O_RDWR)
                for descriptor in (0, 1, 2):
                    os.dup2(nothing, descriptor)
                live.__code__ = changed
                for item in items:
                    self.failed = False
                    used = time.process_time() + LEAST_S + TIMES * self.took[item.nodeid]
                    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used), resource.RLIM_INFINITY))
                    self._test(item)
                    if self.failed:
                        os._exit(1)
                os._exit(0)
            os._exit(1)
        end = time.monotonic() + WALL_S + WALL_TIMES * sum(self.took[item.nodeid] for item in items)
        while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return "killed (it never ends)"
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # what its tests had started
        if found[1] == 0:
            return "survived"
        return "killed (it never ends)" if os.WIFSIGNALED(found[1]) else "killed"

    def _in_a_process(self, mutant: Mutant) -> str:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "0",
            "-p",
            "tests.mutation.plugin",
            *self.module.tests,
        ]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, "EXPUNGE_MUTANT": f"{mutant.path}:{mutant.number}"},
                capture_output=True,
                timeout=PROCESS_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "killed (it never ends)"
        return "survived" if done.returncode == 0 else "killed"


class _Nobody:
    """Stands for a next test that shares nothing but the session: what a session makes once stays."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session

    def listchain(self) -> list[Any]:
        """Its nodes."""
        return [self._session]


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module with its change."""

    def __init__(self, path: str, number: int) -> None:
        self._path, self._name = path, path.removesuffix(".py").replace("/", ".")
        file = Mutations(ROOT, path, next(m.files[path] for m in MODULES.values() if path in m.files))
        self._code = compile(file.changed(number), str(ROOT / path), "exec", dont_inherit=True)

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Of this module alone."""
        if name != self._name:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=str(ROOT / self._path))

    def exec_module(self, module: Any) -> None:
        """Run the changed source."""
        module.__file__ = str(ROOT / self._path)
        exec(self._code, module.__dict__)  # noqa: S102


def function_of(mutant: Mutant) -> FunctionType:
    """The function that runs, out of what decorators put around it; raises KeyError, AttributeError."""
    found: Any = importlib.import_module(mutant.path.removesuffix(".py").replace("/", "."))
    for name in mutant.function.split("."):
        found = vars(found)[name]
        if isinstance(found, property):
            found = found.fget
        found = getattr(found, "__func__", found)
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    if not isinstance(found, FunctionType):
        raise KeyError(mutant.function)
    return found


def hash_of(text: str) -> int:
    """The same in every process."""
    import zlib

    return zlib.crc32(text.encode())


def _is_on_postgresql(item: pytest.Item) -> bool:
    return "postgres_url" in getattr(item, "fixturenames", ()) and not hasattr(item, "callspec")
