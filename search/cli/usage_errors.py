"""What Typer refuses on the command line, in the words and the form of every other error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import typer

from spaces.errors import InputError, nearest

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What Typer raises for a command line that it cannot read; it has no public name."""


def is_help(problem: Exception) -> bool:
    """Whether it is no refusal but the help of a command that was called without any argument."""
    return type(problem).__name__ == "NoArgsIsHelpError"


def refusal(problem: Any, arguments: Sequence[str]) -> InputError:
    """A usage error of Typer as one of ours.

    Args:
        problem: what Typer raised.
        arguments: the command line, for where Typer forgets which command it was.
    """
    command = (
        problem.ctx.command_path
        if problem.ctx
        else " ".join(["search", *takewhile(lambda word: not word.startswith("-"), arguments)])
    )
    if isinstance(problem, typer.BadParameter):
        return _missing(problem, command) if problem.__cause__ is None else _wrong(problem, command)
    if hasattr(problem, "possibilities"):
        return _unknown(
            problem.option_name,
            "option",
            [option for param in _shown(problem.ctx) for option in param.opts],
            command,
        )
    if hasattr(problem, "option_name"):
        return _bare(problem, command)
    name = re.search(r"No such command '(.*?)'\.|extra argument\(s\) \((.*)\)", problem.message)
    if name and name[1]:
        return _unknown(name[1], "command", problem.ctx.command.list_commands(problem.ctx), command)
    if name:
        return InputError(
            f"`{command}` takes no argument {name[2]!r}",
            where=command,
            found=name[2],
            allowed="options, such as --name value",
            next_step=_help(command),
        )
    return InputError(f"{command}: {problem.message}", where=command, next_step=_help(command))


def _wrong(problem: Any, command: str) -> InputError:
    """A value that is of the wrong kind, or out of range."""
    name = _name(problem.param)
    complaints: list[Any] = getattr(problem.__cause__, "errors", list)()
    found = str(complaints[0]["input"]) if complaints else ""
    allowed = _allowed(problem.param, complaints[0] if complaints else {})
    near = nearest(found, allowed.split(", ")) if "," in allowed else ""
    return InputError(
        f"{name} cannot be {found!r}{near}",
        where=name,
        found=found,
        allowed=allowed or problem.message,
        next_step=_help(command),
    )


def _allowed(param: Any, complaint: Any) -> str:
    """The range of a number, or the words of a choice."""
    listed = re.findall(r"'([^']*)'", complaint.get("msg", "").partition(" is not one of ")[2])
    if listed:
        return ", ".join(listed)
    low, high = (getattr(param.type_descriptor.parameter_info, bound) for bound in ("min", "max"))
    kind = "a whole number" if "int" in str(param.type_descriptor.annotation) else "a number"
    if low is None or high is None:
        return (
            kind
            + ("" if low is None else f", {low:g} or more")
            + ("" if high is None else f", {high:g} or less")
        )
    return f"{kind}, {low:g} … {high:g}"


def _missing(problem: Any, command: str) -> InputError:
    kind, name = problem.param.param_type_name, _name(problem.param)
    allowed = f"{name}: {problem.param.help}" if getattr(problem.param, "help", None) else ""
    return InputError(
        f"the {kind} {name} is missing", where=command, allowed=allowed, next_step=_help(command)
    )


def _unknown(name: str, kind: str, known: Sequence[str], command: str) -> InputError:
    """An option or a command that is not there."""
    shown = [each for each in known if kind == "command" or each.startswith("--")]
    return InputError(
        f"there is no {kind} {name}{nearest(name, shown)}",
        where=command,
        found=name,
        allowed=", ".join(shown),
        next_step=_help(command),
    )


def _bare(problem: Any, command: str) -> InputError:
    """An option without the value that it needs, or with one that it does not take."""
    name, needs = problem.option_name, "not take" not in problem.message
    what, found, allowed = (
        (f"{name} needs a value", "none", f"{name} VALUE")
        if needs
        else (f"{name} takes no value", "a value", name)
    )
    return InputError(what, where=name, found=found, allowed=allowed, next_step=_help(command))


def _name(param: Any) -> str:
    """The long name of an option, or that of an argument."""
    return max(param.opts, key=len) if param.param_type_name == "option" else str(param.name)


def _shown(context: Any) -> list[Any]:
    return [
        param
        for param in context.command.get_params(context)
        if not getattr(param, "hidden", False)
    ]


def _help(command: str) -> str:
    return f"`{command} --help` tells what it takes"
