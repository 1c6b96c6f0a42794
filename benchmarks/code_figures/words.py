"""Where the project has words that the glossary forbids: in code, and on pages for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from benchmarks.code_figures.glossary import find_forbidden
from benchmarks.code_figures.sources import (
    PACKAGES,
    ROOT,
    Kind,
    Piece,
    Place,
    Source,
    read_pages,
    read_sources,
    text_pieces,
)

CODE_AREAS: dict[str, tuple[str, ...]] = {
    "packages": PACKAGES,
    "tests and benchmarks": ("tests", "benchmarks"),
}
"""Parts of the project whose Python files are read, and their folders."""

PAGES = "pages"
"""The part that is no code: docs, what is at the top, and the shipped studies."""

NAMING_FILES = (
    "benchmarks/code_figures/glossary.py",
    "tests/unit/test_code_figures.py",
    "objectives/training/step_guard.py",  # a key of the checkpoints' format
)
"""Files whose strings have to name the forbidden words."""


@dataclass(frozen=True)
class WordPlace(Place):
    """A forbidden word in a file: the kind of text that has it, and what to write instead."""

    kind: Kind = "text"
    say: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what} ({self.kind}); say: {self.say}"

    @property
    def area(self) -> str:
        """The part of the project that the file belongs to."""
        folder = self.path.split("/", 1)[0]
        if not self.path.endswith(".py"):
            return PAGES
        return next(area for area, folders in CODE_AREAS.items() if folder in folders)


def find_words(root: Path = ROOT) -> list[WordPlace]:
    """Every forbidden word of the project, in its code and on its pages."""
    code = read_sources(*chain.from_iterable(CODE_AREAS.values()), root=root)
    return [*words_in_code(code), *words_in_pages(read_pages(root))]


def words_in_code(sources: Sequence[Source]) -> list[WordPlace]:
    """Forbidden words in names, comments and strings."""
    found: list[WordPlace] = []
    for source in sources:
        for piece in text_pieces(source):
            if piece.kind != "string" or source.path not in NAMING_FILES:
                found += _find_words(source.path, piece)
    return found


def words_in_pages(pages: Mapping[str, str]) -> list[WordPlace]:
    """Forbidden words in pages, path to text."""
    found: list[WordPlace] = []
    for path, text in pages.items():
        found += _find_words(path, Piece(1, "text", text))
    return found


def _find_words(path: str, piece: Piece) -> Iterator[WordPlace]:
    for found in find_forbidden(piece.text):
        line = piece.line + found.line - 1
        yield WordPlace(path, line, found.word.word, kind=piece.kind, say=found.word.say)
