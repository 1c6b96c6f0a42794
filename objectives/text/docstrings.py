"""The embedded data set: docstrings of Python's own standard library. Which group of packages does one come from?

Real text with a natural imbalance, on every machine that has Python. It is read from the sources, so it does not matter
whether the interpreter was told to forget docstrings (`-OO`). Names of modules are masked, as they would give the answer
away; a text that stands in two groups is left out, one that stands twice in a group is kept once; and the splits share no
module. So little text, written by so few hands, is soon learnt by heart: the training loss falls while the validation
loss rises, which is the trouble that a search is to find a way out of.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from objectives.text.config import DocstringsData
from objectives.text.texts import Labelled, Texts
from spaces.errors import DataError

VERSION = 2
"""Raised when the same parameters give other texts."""

GROUPS: dict[str, tuple[str, ...]] = {
    "markup": ("xml", "html"),
    "tools": (
        "importlib",
        "unittest",
        "logging",
        "inspect",
        "pydoc",
        "doctest",
        "typing",
        "pdb",
        "bdb",
        "ast",
        "traceback",
        "dis",
        "argparse",
        "optparse",
        "trace",
        "cProfile",
        "profile",
        "pstats",
        "timeit",
        "tokenize",
        "symtable",
        "pkgutil",
        "modulefinder",
        "venv",
        "site",
        "warnings",
        "contextlib",
        "functools",
        "dataclasses",
        "enum",
        "abc",
        "types",
        "code",
        "codeop",
        "cmd",
        "pyclbr",
        "tracemalloc",
        "zipimport",
        "runpy",
        "sysconfig",
        "platform",
        "pickletools",
        "pickle",
        "copyreg",
        "collections",
        "_collections_abc",
        "operator",
        "weakref",
        "configparser",
        "codecs",
        "encodings",
        "locale",
        "difflib",
        "textwrap",
    ),
    "concurrency": ("asyncio", "multiprocessing", "concurrent", "threading", "queue", "sched"),
    "mail": ("email", "mailbox", "imaplib", "smtplib", "poplib", "nntplib"),
}
"""Class → the top-level packages and modules whose docstrings it holds."""

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
MOST_CHARACTERS = 400
FEWEST = 25
"""Texts that a group must have: an installation with fewer has lost them."""


@dataclass(frozen=True)
class Docstring:
    """A text, its class, and the file that it stands in."""

    text: str
    group: str
    module: str


def load_docstrings(config: DocstringsData) -> Texts:
    """The splits of the data set.

    Raises:
        DataError: when the installation has no sources, or they have no docstrings.
    """
    found = _distinct(_cached())
    kept = [each for each in found if len(each.text.split()) >= config.min_words]
    _check(kept)
    rng = np.random.default_rng(config.seed)
    splits: dict[str, list[Docstring]] = {name: [] for name in SHARES}
    for group in GROUPS:
        for name, texts in _split([each for each in kept if each.group == group], rng).items():
            splits[name] += texts
    fraction = min(1.0, config.texts / len(kept))
    names = tuple(GROUPS)
    return Texts(
        names,
        **{
            name: _labelled(_thinned(texts, fraction, rng), names) for name, texts in splits.items()
        },
    )


def marks() -> list[str]:
    """What the texts depend on besides the configuration."""
    return [str(VERSION), sys.version]


def _labelled(texts: list[Docstring], names: tuple[str, ...]) -> Labelled:
    return Labelled(
        tuple(each.text for each in texts), tuple(names.index(each.group) for each in texts)
    )


def _split(texts: list[Docstring], rng: np.random.Generator) -> dict[str, list[Docstring]]:
    """Whole modules at a time, from the largest to the smallest, each to the split that lacks most of what there is so far.

    So every split has large modules and small ones: what is chosen on the validation texts is to hold for the test texts.
    """
    modules: dict[str, list[Docstring]] = {}
    for each in texts:
        modules.setdefault(each.module, []).append(each)
    order = [list(modules.values())[index] for index in rng.permutation(len(modules))]
    names = list(SHARES)
    splits: dict[str, list[Docstring]] = {name: [] for name in names}
    handed_out = 0
    for module in sorted(order, key=len, reverse=True):
        handed_out += len(module)
        lacking = {
            names[index]: SHARES[names[index]] * handed_out - len(splits[names[index]])
            for index in rng.permutation(len(names))
        }
        splits[max(lacking, key=lambda name: lacking[name])] += module
    return splits


def _thinned(texts: list[Docstring], fraction: float, rng: np.random.Generator) -> list[Docstring]:
    """The same share of every group, at least two texts of each."""
    kept = []
    for group in GROUPS:
        own = [each for each in texts if each.group == group]
        size = min(len(own), max(2, round(fraction * len(own))))
        kept += [own[index] for index in sorted(rng.permutation(len(own))[:size])]
    return kept


def _check(texts: list[Docstring]) -> None:
    for group in GROUPS:
        count = sum(each.group == group for each in texts)
        if count < FEWEST:
            raise DataError(
                "the embedded texts are docstrings of Python's standard library, and this installation has hardly any",
                where="base.data, kind: docstrings",
                found=f"{count} in the group {group!r}, under {_library()}",
                allowed=f"{FEWEST} or more in every group",
                next_step="use a Python whose library has its .py files with their docstrings (python.org's or Debian's, not a stripped or zipped one), or data of your own: docs/text.md",
            )


def _distinct(texts: list[Docstring]) -> list[Docstring]:
    """One of each; none of what several groups say."""
    groups: dict[str, set[str]] = {}
    for each in texts:
        groups.setdefault(each.text.lower(), set()).add(each.group)
    first = {each.text.lower(): each for each in reversed(texts)}
    kept = [each for key, each in first.items() if len(groups[key]) == 1]
    return sorted(kept, key=lambda each: (each.module, each.text))


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _cached() -> list[Docstring]:
    """From a cache, where there is one: to parse 400 files takes seconds. A cache that cannot be written is no error."""
    path = _cache_file()
    source = {
        "library": str(_library()),
        "groups": {group: list(packages) for group, packages in GROUPS.items()},
    }
    try:
        held = json.loads(path.read_text(encoding="utf-8")) if path else {}
        if held["source"] == source:
            return [Docstring(*each) for each in held["texts"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache yet, or half a one
    texts = list(_masked(_all()))
    if path:
        _write(
            path,
            json.dumps(
                {
                    "source": source,
                    "texts": [[each.text, each.group, each.module] for each in texts],
                }
            ),
        )
    return texts


def _cache_file() -> Path | None:
    """Where the cache is; None for a user without a home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return (
        home
        / "imbalance-search"
        / f"docstrings-{VERSION}-{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}.json"
    )


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder) / path.name
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
    except OSError:
        pass


def _all() -> Iterator[Docstring]:
    """Every docstring of the groups, in the order of the files."""
    for group, packages in GROUPS.items():
        for package in packages:
            for path in _files(package):
                for text in _docstrings(path):
                    yield Docstring(
                        " ".join(text.split())[:MOST_CHARACTERS],
                        group,
                        path.relative_to(_library()).as_posix(),
                    )


def _files(package: str) -> list[Path]:
    single = _library() / f"{package}.py"
    files = [single] if single.is_file() else sorted((_library() / package).rglob("*.py"))
    return [
        path for path in files if not {"test", "tests"} & set(path.relative_to(_library()).parts)
    ]


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and (text := ast.get_docstring(node)):
            yield text


def _masked(texts: Iterator[Docstring]) -> Iterator[Docstring]:
    """No name of a module, of whichever group, is left in a text."""
    held = list(texts)
    names = {part.strip("_") for each in held for part in Path(each.module).with_suffix("").parts}
    words = sorted(
        (name for name in names if len(name) > 1 and name != "init"), key=len, reverse=True
    )
    pattern = re.compile(
        rf"(?<![A-Za-z0-9])_*(?:{'|'.join(map(re.escape, words))})(?![A-Za-z0-9])", re.IGNORECASE
    )
    for each in held:
        yield Docstring(pattern.sub("MODULE", each.text), each.group, each.module)
