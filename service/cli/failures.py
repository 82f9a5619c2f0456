"""From an error to one plain sentence and an exit status: nobody should have to read a traceback to go on.

Classes are looked up among the modules that are loaded: an error of a module that was never imported cannot come, and
telling it apart must not import that module.
"""

import errno
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

FAILED: Final = 1
USAGE: Final = 2
DEFECT: Final = 70
TRY_AGAIN: Final = 75
REFUSES_TO_START: Final = 78
INTERRUPTED: Final = 130


class Refusal(Exception):
    """The command cannot do what was asked; the text is one sentence or two: what is wrong, what to do."""

    def __init__(self, text: str, exit_code: int = FAILED) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Failure:
    """What to print on standard error (empty: nothing), and the exit status."""

    text: str
    exit_code: int


def explain(error: BaseException) -> Failure:
    """The sentence and the exit status for an error that reached the top of a command."""
    if isinstance(error, Refusal):
        return Failure(str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return Failure("Stopped.", INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return Failure("", FAILED)
    for module, name, exit_code, text in _KNOWN:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return Failure(text(error), exit_code)
    if isinstance(error, OSError):
        return Failure(_os_error(error), FAILED)
    return Failure(_defect(error), DEFECT)


def _usage(error: Any) -> str:
    command = getattr(getattr(error, "ctx", None), "command_path", "expunge")
    sentence = str(error.format_message()).rstrip(".").replace("\n", " ")
    end = "" if sentence.endswith("?") else "."
    return f"{sentence}{end} `{command} --help` shows what there is."


def _detail(error: Any) -> str:
    return str(error.detail)


def _no_database(error: Any) -> str:
    # What a caller of the API does next is not what somebody at a terminal does.
    what = str(error.detail).removesuffix(error.next_step).strip()
    return f"{what} Make sure that the database runs where EXPUNGE_DATABASE_URL says, then run this again."


# The first that fits; subclasses before their bases.
_KNOWN: Final[tuple[tuple[str, str, int, Callable[[Any], str]], ...]] = (
    ("typer.exceptions", "TyperException", USAGE, _usage),
    ("service.settings", "SettingsError", REFUSES_TO_START, str),
    ("service.platform.redis", "RedisUnsuitable", REFUSES_TO_START, _detail),
    ("service.platform.embedded_server", "NoServerBinary", REFUSES_TO_START, _detail),
    ("service.platform.problem", "DatabaseUnusable", REFUSES_TO_START, _detail),
    ("service.platform.problem", "DatabaseBehind", REFUSES_TO_START, _detail),
    ("service.platform.identity", "SecretRefused", REFUSES_TO_START, _detail),
    ("service.platform.problem", "StorageUnavailable", FAILED, _no_database),
    ("service.platform.problem", "Problem", FAILED, _detail),
    ("service.interactions.refusals", "DataProblem", FAILED, str),
    ("model_store.errors", "StoreError", FAILED, str),
    ("service.worker.engine", "EncoderMissing", FAILED, str),
    ("service.recommender.soundness", "Unsound", FAILED, str),
    ("service.evaluation.grid", "GridError", USAGE, str),
)

_OS_ERRORS: Final = {
    errno.EADDRINUSE: "Another program listens there already. Stop it, or choose another port.",
    errno.EACCES: "Access is denied. Change the permissions, or name another place.",
    errno.EPERM: "That is not permitted. Change the permissions, or name another place.",
    errno.ENOSPC: "The disk is full. Free some space and run it again.",
    errno.EROFS: "The file system is read-only. Name another place.",
    errno.ENOENT: "There is no such file or folder. Check the path.",
    errno.EISDIR: "It is a folder. Name a file.",
    errno.ENOTDIR: "A part of the path is a file. Name another place.",
}


def _os_error(error: OSError) -> str:
    where = f"{error.filename}: " if isinstance(error.filename, str) else ""
    code = error.errno or 0
    return where + _OS_ERRORS.get(code, f"{error.strerror or type(error).__name__}.")


def _defect(error: BaseException) -> str:
    # Its text may quote an id, so only its kind is told here.
    kind = type(error).__name__
    return f"This should not have happened ({kind}). Run it again with EXPUNGE_DEBUG=1 to see where, and report that."
