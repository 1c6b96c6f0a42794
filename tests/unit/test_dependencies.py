"""The packages import what pyproject.toml declares, so that `make demo` installs all it needs and no more."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.unit.test_structure import FILES, PACKAGES, imported

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
PROJECT = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
USER_EXTRAS = ("postgresql", "mysql", "ray", "slurm", "text")
"""Extras for a function of the program; `test` and `dev` are for those who change it."""

COMES_WITH = {"pydantic-core": "pydantic", "huggingface-hub": "tokenizers"}
"""A library that another one brings along."""

NOT_IMPORTED = {"torchvision"}
"""A dependency that only another one imports, and that has to be of a version made for torch's."""


def distribution(requirement: str) -> str:
    """The name in a requirement, spelled as an index compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~ ;]", requirement)[0]).lower()


def dependencies() -> set[str]:
    """What is always installed."""
    return {distribution(requirement) for requirement in PROJECT["dependencies"]}


def extras(*names: str) -> set[str]:
    """What extras install beside that."""
    optional = PROJECT["optional-dependencies"]
    return {distribution(requirement) for name in names for requirement in optional[name]}


def used() -> set[str]:
    """The libraries that are imported by name, wherever in a file of the packages."""
    owners = packages_distributions()
    found = set()
    for path in FILES:
        tops = {
            name.split(".")[0]
            for name in imported(ast.parse(path.read_text(encoding="utf-8")), "spaces")
        }
        for top in tops - {*sys.stdlib_module_names, *PACKAGES}:
            found |= {distribution(owner) for owner in owners.get(top, [top])}
    return {COMES_WITH.get(name, name) for name in found}


def test_declared() -> None:
    """Every library that the packages import is a dependency, or in an extra for users."""
    assert used() - dependencies() - extras(*USER_EXTRAS) == set()


def test_needed() -> None:
    """Every dependency is imported by the packages; what only tests or tools use is in an extra."""
    assert dependencies() - used() == NOT_IMPORTED


def test_extras_for_developers() -> None:
    """Nothing that a user needs is in the extras for tests and tools alone."""
    assert set(PROJECT["optional-dependencies"]) == {*USER_EXTRAS, "test", "dev"}
    assert extras("test", "dev") & dependencies() == set()
    user_extras = f"imbalance-search[{','.join(USER_EXTRAS)}]"
    assert user_extras in PROJECT["optional-dependencies"]["test"]
    assert "imbalance-search[test]" in PROJECT["optional-dependencies"]["dev"]
