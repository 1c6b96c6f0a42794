"""The commands. Each one reads its options, calls the room that does the work, and hands the result to the console.

Imports stand inside the commands: `search --help` must not wait for Optuna, SQLAlchemy or torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from search.cli import (
    configure,
    inspect,
    replay,
    run,
    store,
)  # each joins its commands to the application
from search.cli.app import app
from search.cli.usage_errors import UsageError, is_help, refusal
from spaces.errors import SearchError
from spaces.exit_codes import ExitCode

__all__ = ["app", "configure", "inspect", "main", "replay", "run", "store"]

ORDER = (
    "run",
    "list",
    "show",
    "explain",
    "backtest",
    "convert",
    "weights",
    "export",
    "train",
    "dashboard",
    "worker",
    "schema",
)
"""As the help lists the commands."""

app.registered_commands.sort(
    key=lambda command: ORDER.index(command.name or str(getattr(command.callback, "__name__", "")))
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; whatever was foreseen ends in one message and an exit code, never in a traceback.

    Args:
        arguments: of the command line; None: those of this process.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        raise SystemExit(app(given, standalone_mode=False))
    except UsageError as problem:
        if is_help(problem):
            problem.show()  # type: ignore[attr-defined]
            raise SystemExit(ExitCode.BAD_INPUT) from None
        _end(refusal(problem, given))
    except SearchError as problem:
        _end(problem)
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:  # `search show | head`
        sys.stderr.close()
        raise SystemExit(ExitCode.DONE) from None


def _end(problem: SearchError) -> NoReturn:
    from search.console import terminal

    terminal.print_error(problem)
    raise SystemExit(problem.exit_code) from None
