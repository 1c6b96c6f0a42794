"""The Makefile installs what a target needs, once, by uv where that can be had; the programs that it calls only note their calls."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $*" in
*" -m venv "*)
    mkdir -p .venv/bin
    for name in python search ruff mypy lint-imports; do cp "$0" ".venv/bin/$name"; done ;;
python*" uv")
    test "$UV" != absent && cp "$0" .venv/bin/uv ;;
"uv "*)
    test "$UV" != broken ;;
esac
"""
"""Every program of the environment: it notes how it was called."""


class Checkout:
    """A folder with the Makefile, and programs that only note their calls in place of Python and its tools."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._calls = folder, folder / "calls.txt"
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        (folder / "python3").write_text(TOOL, encoding="utf-8")
        (folder / "python3").chmod(0o755)

    def make(self, *arguments: str, uv: str = "works") -> list[str]:
        """Run make. Returns the calls that it made, in order."""
        self._calls.write_text("", encoding="utf-8")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))
        }
        command = ["make", "PYTHON=./python3", *arguments]
        variables = kept | {"CALLS": str(self._calls), "UV": uv}
        subprocess.run(
            command,
            cwd=self.folder,
            env=variables,
            check=True,
            capture_output=True,
            timeout=PATIENCE_S,
        )
        return self._calls.read_text(encoding="utf-8").splitlines()


def installs(calls: list[str]) -> list[tuple[str, str]]:
    """Program and requirement of every call that installs this package."""
    return [(call.split()[0], call.split()[-1]) for call in calls if " -e " in call]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout in which nothing was made yet."""
    return Checkout(tmp_path)


class TestInstall:
    @pytest.mark.parametrize(
        ("target", "requirement", "last"),
        [
            ("demo", ".", "search run --study focal_gamma"),
            (
                "test",
                ".[test]",
                "python -m pytest tests -n 2 --dist loadgroup --no-loadscope-reorder",
            ),
            ("docs", ".[test]", "python -m pytest -m docs tests"),
            ("check", ".[dev]", "python -m pytest tests/unit/test_structure.py"),
        ],
    )
    def test_fresh(self, target: str, requirement: str, last: str, checkout: Checkout) -> None:
        """A target makes the environment, installs what it needs and no more, within the constraints, and does its work."""
        calls = checkout.make(target)
        assert calls[0] == "python3 -m venv .venv"
        assert installs(calls) == [("uv", requirement)]
        assert all("-c constraints.txt" in call for call in calls if " install " in call)
        assert calls[-1] == last

    def test_second_call(self, checkout: Checkout) -> None:
        """What is installed is not installed again, nor is a part of it."""
        checkout.make("check")
        assert checkout.make("demo") == ["search run --study focal_gamma"]
        assert checkout.make("test") == [
            "python -m pytest tests -n 2 --dist loadgroup --no-loadscope-reorder"
        ]
        assert installs(checkout.make("check")) == []

    def test_more(self, checkout: Checkout) -> None:
        """After the demo, the tests install the rest."""
        checkout.make("demo")
        assert installs(checkout.make("test")) == [("uv", ".[test]")]

    @pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
    def test_changed(self, name: str, checkout: Checkout) -> None:
        """Changed requirements are installed again."""
        checkout.make("test")
        os.utime(checkout.folder / name, (time.time() + 5, time.time() + 5))
        assert installs(checkout.make("test")) == [("uv", ".[test]")]

    @pytest.mark.parametrize(("uv", "tried"), [("absent", []), ("broken", [("uv", ".")])])
    def test_pip(self, uv: str, tried: list[tuple[str, str]], checkout: Checkout) -> None:
        """Where uv cannot be had, or cannot install, pip installs the same."""
        assert installs(checkout.make("demo", uv=uv)) == [*tried, ("python", ".")]
        assert installs(checkout.make("demo")) == []


class TestHelp:
    def test_default(self, checkout: Checkout) -> None:
        """Without a target, make lists every target with a line about it, and installs nothing."""
        answer = subprocess.run(
            ["make"],
            cwd=checkout.folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
        (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
        listed = re.findall(r"^make (\S+) +(\S.*)$", answer.stdout, re.MULTILINE)
        assert [name for name, _ in listed] == phony.split()
        assert not (checkout.folder / ".venv").exists()
