"""The files of the project as they are read for figures, and the texts that people read in them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
PACKAGES = ("spaces", "objectives", "storage", "search")
GLOSSARY = re.compile(r"^## Glossary$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
"""The section of CONTRIBUTING.md that has to name the forbidden words."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

Kind = Literal["name", "comment", "string", "text"]


@dataclass(frozen=True)
class Piece:
    """A text that people read: a name that is defined, a comment, a string, or a whole page.

    Attributes:
        line: of the file on which it starts, counted from 1.
    """

    line: int
    kind: Kind
    text: str


@dataclass(frozen=True)
class Source:
    """A Python file.

    Attributes:
        path: relative to the root, with slashes.
    """

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> list[str]:
        """The lines, without their ends."""
        return self.text.splitlines()

    @property
    def package(self) -> str:
        """The top-level package, or folder, that the file is in."""
        return self.path.split("/", 1)[0]


@dataclass(frozen=True)
class Place:
    """Where something was found.

    Attributes:
        line: counted from 1.
        size: a length or a count, where the measure has one.
    """

    path: str
    line: int
    what: str
    size: int = 0

    def __str__(self) -> str:
        size = f" {self.size}" if self.size else ""
        return f"{self.path}:{self.line}:{size} {self.what}"


def read_sources(*folders: str, root: Path = ROOT) -> list[Source]:
    """Read all Python files below the folders, in order of their paths."""
    paths = chain.from_iterable((root / folder).rglob("*.py") for folder in folders)
    return [Source(path.relative_to(root).as_posix(), _read_text(path)) for path in sorted(paths)]


def read_pages(root: Path = ROOT) -> dict[str, str]:
    """Read the pages for people, path to text: docs, those at the top, and the shipped studies.

    The glossary of CONTRIBUTING.md is left blank, line by line.
    """
    found = [*root.glob("*.md"), *(root / "docs").glob("*.md"), *root.glob("spaces/studies/*.yaml")]
    return {path.relative_to(root).as_posix(): without_glossary(_read_text(path)) for path in found}


def without_glossary(page: str) -> str:
    """The page with as many lines, those of its section "Glossary" empty."""
    return GLOSSARY.sub(lambda section: "\n" * section[0].count("\n"), page)


def text_pieces(source: Source) -> Iterator[Piece]:
    """The names that a file defines, its own among them, its comments and its strings.

    Names that it only uses are left out: they are defined elsewhere, here or in a library.
    """
    yield Piece(1, "name", source.path)
    yield from _comment_pieces(source.text)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Piece(node.lineno, "string", node.value)
        elif name := _defined_name(node):
            yield Piece(getattr(node, "lineno", 1), "name", _HUMP.sub("_", name))


def _defined_name(node: ast.AST) -> str | None:
    """The name that the node gives to something."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.ExceptHandler():
            return node.name
        case ast.arg():
            return node.arg
        case ast.Name(ctx=ast.Store()):
            return node.id
        case ast.Attribute(ctx=ast.Store()):
            return node.attr
        case ast.alias():
            return node.asname
        case _:
            return None


def _comment_pieces(text: str) -> Iterator[Piece]:
    """The comments, those on consecutive lines as one, so that a phrase may break between them."""
    block: list[str] = []
    first_line = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if block and line != first_line + len(block):
            yield Piece(first_line, "comment", "\n".join(block))
            block = []
        if not block:
            first_line = line
        block.append(token.string.lstrip("#"))
    if block:
        yield Piece(first_line, "comment", "\n".join(block))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
