"""Convert the usage errors of Typer into errors of our own form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, takewhile
from typing import Any

import typer

from spaces.errors import InputError, nearest

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What Typer raises for a command line that it cannot parse; it has no public name."""


def is_help(problem: Exception) -> bool:
    """Check for the help of a command that was called without arguments, which is not an error."""
    return type(problem).__name__ == "NoArgsIsHelpError"


def to_input_error(problem: Any, arguments: Sequence[str]) -> InputError:
    """Convert a usage error of Typer.

    Args:
        problem: the exception that Typer raised.
        arguments: the command line; it names the command where Typer's exception does not.
    """
    command = _find_command(problem, arguments)
    if isinstance(problem, typer.BadParameter):
        if problem.__cause__ is None:
            return _missing_value(problem, command)
        return _wrong_value(problem, command)
    if hasattr(problem, "possibilities"):
        options = chain.from_iterable(param.opts for param in _list_params(problem.ctx))
        return _unknown_name(problem.option_name, "option", [*options], command)
    if hasattr(problem, "option_name"):
        return _wrong_use_of_value(problem, command)
    name = re.search(r"No such command '(.*?)'\.|extra argument\(s\) \((.*)\)", problem.message)
    if name and name[1]:
        known = problem.ctx.command.list_commands(problem.ctx)
        return _unknown_name(name[1], "command", known, command)
    if name:
        return InputError(
            f"`{command}` takes no argument {name[2]!r}",
            where=command,
            found=name[2],
            allowed="options, such as --name value",
            next_step=_suggest_help(command),
        )
    return InputError(
        f"{command}: {problem.message}", where=command, next_step=_suggest_help(command)
    )


def _find_command(problem: Any, arguments: Sequence[str]) -> str:
    """Find the command of a usage error, such as `search store check`."""
    if problem.ctx:
        return str(problem.ctx.command_path)
    words = takewhile(lambda word: not word.startswith("-"), arguments)
    return " ".join(["search", *words])


def _wrong_value(problem: Any, command: str) -> InputError:
    """Describe a value of the wrong type, or out of range."""
    name = _name_param(problem.param)
    complaints: list[Any] = getattr(problem.__cause__, "errors", list)()
    found = str(complaints[0]["input"]) if complaints else ""
    choices = _list_choices(complaints[0] if complaints else {})
    allowed = ", ".join(choices) or _describe_range(problem.param)
    near = nearest(found, choices) if choices else ""
    return InputError(
        f"{name} cannot be {found!r}{near}",
        where=name,
        found=found,
        allowed=allowed or problem.message,
        next_step=_suggest_help(command),
    )


def _list_choices(complaint: Any) -> list[str]:
    """List the words of a choice from click's complaint; none for another type."""
    return re.findall(r"'([^']*)'", complaint.get("msg", "").partition(" is not one of ")[2])


def _describe_range(param: Any) -> str:
    """Describe the range of a number."""
    info = param.type_descriptor.parameter_info
    kind = "a whole number" if "int" in str(param.type_descriptor.annotation) else "a number"
    if info.min is not None and info.max is not None:
        return f"{kind}, {info.min:g} … {info.max:g}"
    if info.min is not None:
        return f"{kind}, {info.min:g} or more"
    if info.max is not None:
        return f"{kind}, {info.max:g} or less"
    return kind


def _missing_value(problem: Any, command: str) -> InputError:
    kind, name = problem.param.param_type_name, _name_param(problem.param)
    help_text = getattr(problem.param, "help", None)
    allowed = f"{name}: {help_text}" if help_text else ""
    return InputError(
        f"the {kind} {name} is missing",
        where=command,
        allowed=allowed,
        next_step=_suggest_help(command),
    )


def _unknown_name(name: str, kind: str, known: Sequence[str], command: str) -> InputError:
    """Describe an option or a command that does not exist."""
    shown = [each for each in known if kind == "command" or each.startswith("--")]
    return InputError(
        f"there is no {kind} {name}{nearest(name, shown)}",
        where=command,
        found=name,
        allowed=", ".join(shown),
        next_step=_suggest_help(command),
    )


def _wrong_use_of_value(problem: Any, command: str) -> InputError:
    """Describe an option without the value that it needs, or with a value that it does not take."""
    name, next_step = problem.option_name, _suggest_help(command)
    if "not take" in problem.message:
        return InputError(
            f"{name} takes no value",
            where=name,
            found="a value",
            allowed=name,
            next_step=next_step,
        )
    return InputError(
        f"{name} needs a value",
        where=name,
        found="none",
        allowed=f"{name} VALUE",
        next_step=next_step,
    )


def _name_param(param: Any) -> str:
    """Return the long name of an option, or the name of an argument."""
    if param.param_type_name == "option":
        return str(max(param.opts, key=len))
    return str(param.name)


def _list_params(context: Any) -> list[Any]:
    return [
        param
        for param in context.command.get_params(context)
        if not getattr(param, "hidden", False)
    ]


def _suggest_help(command: str) -> str:
    return f"`{command} --help` lists the options"
