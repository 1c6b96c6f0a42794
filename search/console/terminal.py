"""Print to the terminal. Text is printed literally: nothing in it is read as markup or emoji.

A character that the output cannot show (in an ASCII log, or half a surrogate pair in a path) is
replaced by the nearest one that it can; UnicodeEncodeError is never raised.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from spaces.errors import SearchError

ASCII_REPLACEMENTS = {
    "×": "x",
    "→": "->",
    "…": "...",
    "−": "-",
    "–": "-",
    "—": "-",
    "·": "|",
    "±": "+/-",
    "≈": "~",
    "√": "sqrt",
    "≤": "<=",
    "≥": ">=",
    "∝": "~",
    "’": "'",
    "“": '"',
    "”": '"',
    "‘": "'",
    "ß": "ss",
    "─": "-",
    "│": "|",
    "┌": "+",
    "┐": "+",
    "└": "+",
    "┘": "+",
    "├": "+",
    "┤": "+",
    "┬": "+",
    "┴": "+",
    "┼": "+",
    "━": "-",
    "•": "*",
}
"""The replacement of a character where only ASCII can be shown."""

_NEAREST = "search-nearest"


class _Console(Console):
    """A console that exits with code 0 when its reader closes the pipe, as `head` does."""

    def on_broken_pipe(self) -> None:
        """Exit without flushing into the closed pipe."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)


_out = _Console(markup=False, emoji=False, highlight=False)
_err = _Console(markup=False, emoji=False, highlight=False, stderr=True)


def get_console() -> Console:
    """Return the console on the current standard output."""
    _replace_unencodable(sys.stdout)
    return _out


@contextmanager
def capture_output(width: int) -> Iterator[io.StringIO]:
    """Capture what is printed to standard output, as plain text of `width` columns."""
    global _out
    captured, former = io.StringIO(), _out
    _out = _Console(
        file=captured,
        width=width,
        force_terminal=False,
        color_system=None,
        markup=False,
        emoji=False,
        highlight=False,
    )
    try:
        yield captured
    finally:
        _out = former


def is_terminal() -> bool:
    """Check whether the output is an interactive terminal, which can be redrawn in place."""
    return _out.is_terminal and not _out.is_dumb_terminal and sys.stdout.isatty()


def is_ascii_only() -> bool:
    """Check whether the output can show ASCII only."""
    return not _out.encoding.startswith("utf")


def to_printable(text: str) -> str:
    """Replace the characters that the output cannot show.

    Apply it before a table is laid out: a replacement may be wider than the character.
    """
    return _encode_nearest(text, _out.encoding)


def print_renderable(renderable: RenderableType) -> None:
    """Print a table or another object of Rich, fitted to the width of the output."""
    get_console().print(renderable)


def print_line(text: str = "", style: str = "") -> None:
    """Print text as it is; long lines are not wrapped."""
    get_console().print(Text(to_printable(text), style=style), soft_wrap=True)


def print_paragraph(text: str, indent: int = 0, style: str = "") -> None:
    """Print text wrapped between words, each line indented by `indent` columns."""
    paragraph = Text(to_printable(text), style=style)
    if indent:
        get_console().print(Padding(paragraph, (0, 0, 0, indent), expand=False))
    else:
        get_console().print(paragraph)


def print_raw(text: str) -> None:
    """Print text for another program: without color or replacements."""
    _replace_unencodable(sys.stdout)
    print(text, flush=True)


def print_json(value: object) -> None:
    """Print a JSON value for another program."""
    print_raw(json.dumps(value, indent=2, allow_nan=False))


def print_heading(text: str) -> None:
    """Print an empty line and the heading of a section."""
    get_console().print()
    print_line(text, style="bold")


def print_warning(text: str) -> None:
    """Print a warning to standard error."""
    _print_message("warning", "yellow", text)


def print_error(problem: SearchError) -> None:
    """Print an error to standard error: what, where, found, allowed, and the next step."""
    _print_message("error", "bold red", str(problem))


def _print_message(word: str, style: str, text: str) -> None:
    _replace_unencodable(sys.stderr)
    message = f" {_encode_nearest(text, _err.encoding)}"
    _err.print(Text.assemble((f"{word}:", style), message), soft_wrap=True)


def _encode_nearest(text: str, encoding: str) -> str:
    return text.encode(encoding, _NEAREST).decode(encoding)


def _replace_unencodable(stream: TextIO) -> None:
    """Configure a stream to write the nearest character instead of raising an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and stream.errors != _NEAREST:
        reconfigure(errors=_NEAREST)


def _handle_encode_error(problem: UnicodeError) -> tuple[str, int]:
    """Replace characters, as an error handler of `codecs`.

    A character becomes its replacement in `ASCII_REPLACEMENTS`, else its letter without accents,
    else its escape sequence.
    """
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    wrong = problem.object[problem.start : problem.end]
    replaced = [
        ASCII_REPLACEMENTS.get(character) or _strip_accents(character) or ascii(character)[1:-1]
        for character in wrong
    ]
    return "".join(replaced), problem.end


def _strip_accents(character: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", character) if part.isascii())


codecs.register_error(_NEAREST, _handle_encode_error)
