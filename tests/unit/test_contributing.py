"""CONTRIBUTING.md: the files that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NEW = ("NAME", "NNNN")
"""In the names of files that do not exist yet."""

PATHS = sorted(set(re.findall(r"`([\w.*-]+/[\w./*-]*)`", PAGE)))


@pytest.mark.parametrize("path", [path for path in PATHS if not any(word in path for word in NEW)])
def test_exists(path: str) -> None:
    """A path is one of the project's, from its root; a pattern matches something."""
    assert list(ROOT.glob(path.rstrip("/"))) != []


def test_all_additions() -> None:
    """Each kind of addition has its own list, and each list names files of code, docs and tests."""
    sections = PAGE.partition("## How to add …")[2].split("\n### … ")[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "a signal",
        "a cause",
        "a loss",
        "a data layout",
        "a launcher",
        "a migration",
    ]
    for section in sections:
        assert {"docs", "tests"} <= {
            path.split("/")[0] for path in re.findall(r"`([\w/.]+)`", section)
        }
