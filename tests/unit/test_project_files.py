"""The files at the top and in .github agree with the project: versions, make targets, tools."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read_yaml(path: str) -> dict[str, Any]:
    """A YAML file of the project."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    return loaded


def workflow_steps() -> list[dict[str, Any]]:
    """Every step of every job of the workflow."""
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


class TestPackage:
    def test_citation(self) -> None:
        """A citation names the version, the license and the authors of the package."""
        citation = read_yaml("CITATION.cff")
        assert citation["version"] == PROJECT["version"]
        assert citation["license"] == PROJECT["license"]
        assert citation["authors"] == PROJECT["authors"]

    def test_license(self) -> None:
        """The license is the one that the package declares, of the authors that it names."""
        text = (ROOT / "LICENSE").read_text()
        assert text.startswith(f"{PROJECT['license']} License\n")
        assert PROJECT["authors"][0]["name"] in text

    def test_changelog(self) -> None:
        """The changelog has a section for what is not released yet, then the package's version."""
        page = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        sections = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}))?$", page, re.MULTILINE)
        assert sections[0] == ("Unreleased", "")
        assert sections[1][0] == PROJECT["version"]
        assert all(date for _, date in sections[1:])

    def test_python_versions(self) -> None:
        """Every version of Python that the package declares is tested, and the first is required."""
        prefix = "Programming Language :: Python :: 3."
        minors = [name.removeprefix(prefix) for name in PROJECT["classifiers"]]
        declared = [f"3.{minor}" for minor in minors if minor.isdigit()]
        jobs = read_yaml(".github/workflows/ci.yml")["jobs"].values()
        assert [job["strategy"]["matrix"]["python"] for job in jobs] == [declared] * len(jobs)
        assert PROJECT["requires-python"] == f">={declared[0]}"


class TestWorkflow:
    def test_make_targets(self) -> None:
        """What runs on a hosted runner is what people run: targets of the Makefile."""
        commands = [step.get("run", "") for step in workflow_steps()]
        called = {command.split()[1] for command in commands if command.startswith("make ")}
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert called == {"check", "test"}
        assert called <= set(targets)

    def test_databases(self) -> None:
        """The tests find both services at the addresses that the fixtures read."""
        job = read_yaml(".github/workflows/ci.yml")["jobs"]["test"]
        fixtures = (ROOT / "tests" / "conftest.py").read_text()
        published = {service["ports"][0] for service in job["services"].values()}
        ports = [urlsplit(url).port for url in job["env"].values()]
        assert {f"{port}:{port}" for port in ports} == published
        assert [name for name in job["env"] if f'"{name}"' not in fixtures] == []
        assert len(published) == 2


class TestHooks:
    def test_local(self) -> None:
        """Hooks use the tools of the virtual environment and fetch nothing from anywhere."""
        repositories = read_yaml(".pre-commit-config.yaml")["repos"]
        hooks = [hook for repository in repositories for hook in repository["hooks"]]
        assert {repository["repo"] for repository in repositories} == {"local"}
        assert {hook["language"] for hook in hooks} == {"system", "pygrep"}
        programs = {hook["entry"].split()[0] for hook in hooks if hook["language"] == "system"}
        assert programs == {".venv/bin/ruff"}
