"""The `expunge` command: every command in its own module, imported when it is asked for."""

from service.cli.program import main

__all__ = ["main"]
