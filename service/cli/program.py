"""The command line's entry: which commands there are, and what becomes of errors.

Importing this imports typer and the settings, nothing heavy: torch, SQL and the server come with the command that needs
them.
"""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated

import typer

from service.cli import (
    adopt,
    audit,
    compact,
    data,
    data_map,
    demo,
    due,
    erase,
    evaluate,
    learn,
    operate,
    receipt,
    residue,
    serve,
    status,
)
from service.cli.context import Invocation
from service.cli.failures import explain

EPILOG = "EXPUNGE_* variables set the rest; docs/reference.md lists them. --home may stand behind the command, too."

app = typer.Typer(
    name="expunge",
    help="Recommendations that forget: train, serve, erase.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,  # it takes a default in square brackets for markup and leaves it out
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"expunge {distribution_version('expunge')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="Folder that holds all state [~/.expunge].")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    context.obj = Invocation(home)


app.command("demo")(demo.demo)
app.command("import")(data.import_)
app.command("train")(learn.train)
app.command("adopt")(adopt.adopt)
app.command("pretrain")(learn.pretrain)
app.command("serve")(serve.serve)
app.command("api")(serve.api)
app.command("worker")(serve.worker)
app.command("compactor")(serve.compactor)
app.command("erase")(erase.erase)
app.command("compact")(compact.compact)
app.command("due")(due.due)
app.command("residue")(residue.residue)
app.command("evaluate")(evaluate.evaluate)
app.command("status")(status.status)
app.command("data-map")(data_map.data_map)
app.add_typer(operate.db, name="db")
app.add_typer(operate.keys, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(receipt.app, name="receipt")


def _list_whole_sentences(group: typer.Typer) -> None:
    """Have commands listed with the first line of their description, which is cut short otherwise."""
    for command in group.registered_commands:
        command.short_help = (command.callback.__doc__ or "").partition("\n")[0] if command.callback else None
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _list_whole_sentences(inner.typer_instance)


_list_whole_sentences(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Errors become one sentence on standard error.

    With EXPUNGE_DEBUG=1 the traceback comes first.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = app(home_first(given), prog_name="expunge", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        return _fail(error)
    return result if isinstance(result, int) else 0


def _fail(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if os.environ.get("EXPUNGE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, BrokenPipeError):
        # Whoever read our output is gone; the interpreter must not complain about it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    failure = explain(error)
    if failure.text:
        from service.cli.terminal import folded

        print(folded(failure.text, sys.stderr), file=sys.stderr)
    return failure.exit_code


def home_first(arguments: Sequence[str]) -> list[str]:
    """Move `--home DIR` to the front, so that it may stand behind the command as well; what follows `--` stays."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    words, rest = list(arguments[:end]), list(arguments[end:])
    found: list[str] = []
    index = 0
    while index < len(words):
        if words[index] == "--home":
            found += words[index : index + 2]
            del words[index : index + 2]
        elif words[index].startswith("--home="):
            found.append(words.pop(index))
        else:
            index += 1
    return found + words + rest
