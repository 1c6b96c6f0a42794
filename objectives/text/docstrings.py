"""Embedded data set: docstrings of Python's standard library, classified by group of packages.

It is real text with a natural imbalance, available wherever Python is. It is read from the sources,
so that it does not matter whether the interpreter drops docstrings (`-OO`). Names of modules are
masked, as they would reveal the class; a text that occurs in two groups is left out, one that
occurs twice in a group is kept once; and the splits share no module. So little text by so few
authors is soon overfitted: the training loss falls while the validation loss rises, which a search
can improve.
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
from objectives.text.texts import LabeledTexts, Texts
from spaces.errors import DataError

VERSION = 2
"""Increased when the same parameters give other texts."""

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
"""Class → top-level packages and modules of its docstrings."""

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
MOST_CHARACTERS = 400
FEWEST = 25
"""Texts that a group must have; an installation with fewer has no docstrings."""


@dataclass(frozen=True)
class Docstring:
    """A text, its class, and the file that contains it."""

    text: str
    group: str
    module: str


def load_docstrings(config: DocstringsData) -> Texts:
    """Load the splits of the data set.

    Raises:
        DataError: when the installation has no sources, or they have no docstrings.
    """
    found = _drop_repeats(_load_cached())
    kept = [each for each in found if len(each.text.split()) >= config.min_words]
    _check_groups(kept)
    rng = np.random.default_rng(config.seed)
    splits: dict[str, list[Docstring]] = {name: [] for name in SHARES}
    for group in GROUPS:
        own = [each for each in kept if each.group == group]
        for name, texts in _split_modules(own, rng).items():
            splits[name] += texts
    fraction = min(1.0, config.texts / len(kept))
    names = tuple(GROUPS)
    train = _label_texts(_draw_share(splits["train"], fraction, rng), names)
    val = _label_texts(_draw_share(splits["val"], fraction, rng), names)
    test = _label_texts(_draw_share(splits["test"], fraction, rng), names)
    return Texts(names, train, val, test)


def source_marks() -> list[str]:
    """Identify what the texts depend on in addition to the configuration."""
    return [str(VERSION), sys.version]


def _label_texts(texts: list[Docstring], names: tuple[str, ...]) -> LabeledTexts:
    labels = tuple(names.index(each.group) for each in texts)
    return LabeledTexts(tuple(each.text for each in texts), labels)


def _split_modules(texts: list[Docstring], rng: np.random.Generator) -> dict[str, list[Docstring]]:
    """Assign modules, largest first, each to the split that is furthest below its share.

    Every split then has large and small modules, so that what is chosen on the validation texts
    also applies to the test texts.
    """
    modules: dict[str, list[Docstring]] = {}
    for each in texts:
        modules.setdefault(each.module, []).append(each)
    order = [list(modules.values())[index] for index in rng.permutation(len(modules))]
    names = list(SHARES)
    splits: dict[str, list[Docstring]] = {name: [] for name in names}
    assigned = 0
    for module in sorted(order, key=len, reverse=True):
        assigned += len(module)
        missing = {}
        for index in rng.permutation(len(names)):
            name = names[index]
            missing[name] = SHARES[name] * assigned - len(splits[name])
        splits[max(missing, key=lambda name: missing[name])] += module
    return splits


def _draw_share(
    texts: list[Docstring], fraction: float, rng: np.random.Generator
) -> list[Docstring]:
    """Draw the same share of every group, at least two texts of each."""
    kept = []
    for group in GROUPS:
        own = [each for each in texts if each.group == group]
        size = min(len(own), max(2, round(fraction * len(own))))
        kept += [own[index] for index in sorted(rng.permutation(len(own))[:size])]
    return kept


def _check_groups(texts: list[Docstring]) -> None:
    for group in GROUPS:
        count = sum(each.group == group for each in texts)
        if count < FEWEST:
            raise DataError(
                "the embedded texts are docstrings of Python's standard library, "
                "and this installation has hardly any",
                where="base.data, kind: docstrings",
                found=f"{count} in the group {group!r}, under {_library_path()}",
                allowed=f"{FEWEST} or more in every group",
                next_step="use a Python whose library has its .py files with their docstrings "
                "(python.org's or Debian's, not a stripped or zipped one), "
                "or data of your own: docs/text.md",
            )


def _drop_repeats(texts: list[Docstring]) -> list[Docstring]:
    """Keep each text once, and none that occurs in several groups."""
    groups: dict[str, set[str]] = {}
    for each in texts:
        groups.setdefault(each.text.lower(), set()).add(each.group)
    first = {each.text.lower(): each for each in reversed(texts)}
    kept = [each for key, each in first.items() if len(groups[key]) == 1]
    return sorted(kept, key=lambda each: (each.module, each.text))


def _library_path() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _load_cached() -> list[Docstring]:
    """Load the texts from the cache, or parse the sources, which takes seconds for 400 files.

    It is no error if the cache cannot be written.
    """
    path = _cache_file()
    source = {
        "library": str(_library_path()),
        "groups": {group: list(packages) for group, packages in GROUPS.items()},
    }
    try:
        cached = json.loads(path.read_text(encoding="utf-8")) if path else {}
        if cached["source"] == source:
            return [Docstring(*each) for each in cached["texts"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is no cache yet, or an incomplete one
    texts = list(_mask_modules(_read_all()))
    if path:
        rows = [[each.text, each.group, each.module] for each in texts]
        _write_cache(path, json.dumps({"source": source, "texts": rows}))
    return texts


def _cache_file() -> Path | None:
    """Return the path of the cache; None for a user without a home directory."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    python = ".".join(str(part) for part in sys.version_info[:3])
    return home / "imbalance-search" / f"docstrings-{VERSION}-{python}.json"


def _write_cache(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder) / path.name
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
    except OSError:
        pass


def _read_all() -> Iterator[Docstring]:
    """Read every docstring of the groups, in the order of the files."""
    for group, packages in GROUPS.items():
        for package in packages:
            for path in _source_files(package):
                module = path.relative_to(_library_path()).as_posix()
                for text in _read_docstrings(path):
                    yield Docstring(" ".join(text.split())[:MOST_CHARACTERS], group, module)


def _source_files(package: str) -> list[Path]:
    single = _library_path() / f"{package}.py"
    files = [single] if single.is_file() else sorted((_library_path() / package).rglob("*.py"))
    return [
        path
        for path in files
        if not {"test", "tests"} & set(path.relative_to(_library_path()).parts)
    ]


def _read_docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def _mask_modules(found: Iterator[Docstring]) -> Iterator[Docstring]:
    """Replace the names of all modules, of whichever group, in the texts."""
    texts = list(found)
    names: set[str] = set()
    for each in texts:
        names.update(part.strip("_") for part in Path(each.module).with_suffix("").parts)
    words = sorted(
        (name for name in names if len(name) > 1 and name != "init"), key=len, reverse=True
    )
    pattern = re.compile(
        rf"(?<![A-Za-z0-9])_*(?:{'|'.join(map(re.escape, words))})(?![A-Za-z0-9])", re.IGNORECASE
    )
    for each in texts:
        yield Docstring(pattern.sub("MODULE", each.text), each.group, each.module)
