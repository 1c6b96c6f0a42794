"""The entry point: run a command and turn its errors into a message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from typer.models import CommandInfo

from search.cli.app import app
from search.cli.usage_errors import UsageError, is_help, to_input_error
from spaces.errors import SearchError
from spaces.exit_codes import ExitCode

HELP_ORDER = (
    "run",
    "list",
    "show",
    "explain",
    "confirm",
    "backtest",
    "convert",
    "weights",
    "export",
    "train",
    "dashboard",
    "worker",
    "schema",
)
"""The order in which the help lists the commands; `store`, a group of commands, is the last."""

MODULES = (
    "backtest_command",
    "confirm_command",
    "convert_command",
    "dashboard_command",
    "explain",
    "export_command",
    "list",
    "run",
    "schema",
    "show",
    "store",
    "train",
    "weights",
    "worker",
)
"""The files with the commands; each one registers its commands with the application."""

for module in MODULES:
    import_module(f"search.cli.{module}")


def _find_position(command: CommandInfo) -> int:
    """Find the place of a command in the help."""
    function_name = getattr(command.callback, "__name__", "")
    return HELP_ORDER.index(command.name or function_name)


app.registered_commands.sort(key=_find_position)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; an expected error ends in one message and an exit code, not in a traceback.

    Args:
        arguments: of the command line; None: those of this process.
    """
    given = sys.argv[1:] if arguments is None else [*arguments]
    try:
        raise SystemExit(app(given, standalone_mode=False))
    except UsageError as problem:
        if is_help(problem):
            problem.show()  # type: ignore[attr-defined]
            raise SystemExit(ExitCode.BAD_INPUT) from None
        _exit_with_error(to_input_error(problem, given))
    except SearchError as problem:
        _exit_with_error(problem)
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:  # `search show | head`
        sys.stderr.close()
        raise SystemExit(ExitCode.DONE) from None


def _exit_with_error(problem: SearchError) -> NoReturn:
    from search.console import terminal

    terminal.print_error(problem)
    raise SystemExit(problem.exit_code) from None
