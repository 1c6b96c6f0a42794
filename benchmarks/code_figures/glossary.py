"""The words that the glossary of CONTRIBUTING.md replaces everywhere, and where a text has them.

This is the only list of them: the figures count what is in it and a test refuses it. Words that
are right in one sense and wrong in another, such as "say" or "split", are in the glossary only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ForbiddenWord:
    """A word, or a few, that no identifier, comment, message or page has.

    Attributes:
        word: as the glossary's column "don't say" writes it.
        say: what is written in its place.
        forms: regular expression of all its forms; a space in it also matches a line break, an
            underscore or a hyphen.
    """

    word: str
    say: str
    forms: str

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Finds the word with no letter or digit next to it; an underscore is no letter."""
        spaced = self.forms.replace(" ", r"[\s_-]+")
        return re.compile(rf"(?<![^\W_])(?:{spaced})(?![^\W_])", re.IGNORECASE)


_BETWEEN = r"(?: [\w']+){0,3}"
"""Up to three words, as in "give the trial back"."""

FORBIDDEN_WORDS = (
    ForbiddenWord("told", "reported, recorded, logged", r"(?:un)?told"),
    # Optuna's and a file's `.tell(…)`, and the ask-and-tell interface, are other people's names.
    ForbiddenWord("tell", "report, record, log; distinguish", r"(?<![.-])tell(?:s|ing)?"),
    ForbiddenWord("held", "stored, contained, running, in", r"held(?! out)"),
    ForbiddenWord("books", "Optuna's tables and ours", r"books"),
    ForbiddenWord("mend", "fix", r"mend(?:s|ed|ing)?"),
    ForbiddenWord("anew", "again, from the start", r"anew"),
    ForbiddenWord("nobody", "no worker, no process; it", r"nobody"),
    ForbiddenWord("somebody", "another worker, another program", r"somebody"),
    ForbiddenWord("whoever", "the worker that, the process that", r"whoever"),
    ForbiddenWord("whom", "which trial, which worker", r"whom"),
    ForbiddenWord("whose turn", "next", r"whose turn"),
    ForbiddenWord("at hand", "current, available", r"at hand"),
    ForbiddenWord("lies beside", "is next to", r"(?:lies?|lay|lain|lying) beside"),
    ForbiddenWord("go on", "continue, resume", r"(?:go|goes|going|gone|went) on"),
    ForbiddenWord("give back", "release", rf"(?:gives?|given|giving|gave){_BETWEEN} back"),
    ForbiddenWord("take up", "resume, claim", rf"(?:takes?|taken|taking|took){_BETWEEN} up(?! to)"),
)


@dataclass(frozen=True)
class Finding:
    """A forbidden word in a text, and the line of it, counted from 1."""

    line: int
    word: ForbiddenWord


def find_forbidden(text: str) -> Iterator[Finding]:
    """Find every forbidden word of a text, word by word in the order of the list."""
    for word in FORBIDDEN_WORDS:
        for match in word.pattern.finditer(text):
            yield Finding(text.count("\n", 0, match.start()) + 1, word)
