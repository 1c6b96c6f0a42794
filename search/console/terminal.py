"""The terminal: one console, made once. Text is printed as it is; nothing in it is taken for markup or emoji.

Where the output cannot show a character (a log in ASCII, half a surrogate pair in a path) it shows the nearest that it
can, and never raises UnicodeEncodeError.
"""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from spaces.errors import SearchError

PLAIN = {
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
"""What stands in for a character where only ASCII can be shown."""

_NEAREST = "search-nearest"


class _Console(Console):
    """A console that ends quietly, and well, when its reader has seen enough, as `search show | head` does."""

    def on_broken_pipe(self) -> None:
        """Leave nothing to be flushed into the closed pipe."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)


_out = _Console(markup=False, emoji=False, highlight=False)
_err = _Console(markup=False, emoji=False, highlight=False, stderr=True)


def console() -> Console:
    """The console on standard output, whatever that is at the moment."""
    _forgive(sys.stdout)
    return _out


def is_terminal() -> bool:
    """Whether somebody looks at the output as it comes, so that it may be redrawn in place."""
    return _out.is_terminal and not _out.is_dumb_terminal and sys.stdout.isatty()


def is_plain() -> bool:
    """Whether the output shows ASCII only."""
    return not _out.encoding.startswith("utf")


def fit(text: str) -> str:
    """`text` with stand-ins for what the output cannot show. Done before a table is laid out, it keeps the columns straight."""
    return _shown(text, _out.encoding)


def show(renderable: RenderableType) -> None:
    """Print something that fits itself to the width."""
    console().print(renderable)


def say(text: str = "", style: str = "") -> None:
    """Print text as it is, without breaking its lines."""
    console().print(Text(fit(text), style=style), soft_wrap=True)


def tell(text: str, indent: int = 0, style: str = "") -> None:
    """Print a sentence, its lines broken between words to fit the width, each of them indented."""
    line = Text(fit(text), style=style)
    console().print(Padding(line, (0, 0, 0, indent), expand=False) if indent else line)


def say_raw(text: str) -> None:
    """Print text for another program: no colour, no stand-ins."""
    _forgive(sys.stdout)
    print(text, flush=True)


def head(text: str) -> None:
    """Print the heading of a section, after an empty line."""
    console().print()
    say(text, style="bold")


def warn(text: str) -> None:
    """Print a warning to standard error."""
    _complain("warning", "yellow", text)


def print_error(problem: SearchError) -> None:
    """Print an error to standard error: what, where, what was found, what is allowed, and the next step."""
    _complain("error", "bold red", str(problem))


def _complain(word: str, style: str, text: str) -> None:
    _forgive(sys.stderr)
    _err.print(
        Text.assemble((f"{word}:", style), f" {_shown(text, _err.encoding)}"), soft_wrap=True
    )


def _shown(text: str, encoding: str) -> str:
    return text.encode(encoding, _NEAREST).decode(encoding)


def _forgive(stream: TextIO) -> None:
    """Have a stream write the nearest character instead of raising."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and stream.errors != _NEAREST:
        reconfigure(errors=_NEAREST)


def _nearest(problem: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: a stand-in where there is one, else the letter without its accents, else the number."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    wrong = problem.object[problem.start : problem.end]
    return "".join(
        PLAIN.get(character) or _bare(character) or ascii(character)[1:-1] for character in wrong
    ), problem.end


def _bare(character: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", character) if part.isascii())


codecs.register_error(_NEAREST, _nearest)
