"""The rules of the code itself: which module may import which, how long things may be, and what a help text may load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
PACKAGES = ("spaces", "objectives", "storage", "search")

OURS = {
    "spaces": {"spaces"},
    "objectives": {"objectives", "spaces"},
    "storage": {"storage", "spaces"},
    "search": set(PACKAGES),
}

HOMES = {
    "torch": ("objectives/",),
    "torchvision": ("objectives/",),
    "segmentation_models_pytorch": ("objectives/",),
    "timm": ("objectives/",),
    "transformers": ("objectives/text/",),
    "tokenizers": ("objectives/text/",),
    "datasets": ("objectives/text/",),
    "pyarrow": ("objectives/text/",),
    "sqlalchemy": ("storage/",),
    "alembic": ("storage/",),
    "psycopg": ("storage/",),
    "pymysql": ("storage/",),
    "optuna": (
        "search/sampling/",
        "search/pruners/",
        "search/replay/pruner.py",
    ),  # the last: Optuna's own pruner over recorded trials
    "optuna_dashboard": ("search/dashboard.py",),
    "ray": ("search/launch/ray.py", "search/launch/ray_cluster.py"),
    "submitit": ("search/launch/slurm.py",),
    "typer": ("search/cli/",),
    "rich": ("search/console/", "search/cli/"),
    "plotext": ("search/console/", "search/cli/"),
}
"""Library → the only places that may import it."""

HEAVY = {
    "torch",
    "torchvision",
    "segmentation_models_pytorch",
    "timm",
    "optuna",
    "sqlalchemy",
    "alembic",
    "psycopg",
    "pymysql",
    "sklearn",
    "wandb",
    "ray",
    "submitit",
    "transformers",
    "tokenizers",
    "datasets",
    "pyarrow",
}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50

FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The dotted name of every module that the code imports, wherever in it; a relative import counts as `package`'s."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield package if node.level else node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            yield from (
                argument.value
                for argument in node.args
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            )


def trespasses(name: str, text: str) -> list[str]:
    """The imports of the file `name` (relative to the root) that break a rule."""
    package = name.split("/", 1)[0]
    tops = {module.split(".")[0] for module in imported(ast.parse(text), package)}
    wrong = {top for top in tops if top in PACKAGES and top not in OURS[package]}
    return sorted(wrong | {top for top in tops if top in HOMES and not name.startswith(HOMES[top])})


def function_lengths(text: str) -> dict[str, int]:
    """Name → lines of every function, its docstring left out."""
    lengths = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            said = (
                (first.end_lineno or 0) - first.lineno + 1
                if ast.get_docstring(node) is not None
                else 0
            )
            lengths[f"{node.name}:{node.lineno}"] = (node.end_lineno or 0) - node.lineno + 1 - said
    return lengths


def relative(path: Path) -> str:
    """The path from the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


class TestImports:
    def test_all_files_seen(self) -> None:
        """The rules look at every package; an empty list would keep them all."""
        assert {relative(path).split("/")[0] for path in FILES} == set(PACKAGES)
        assert len(FILES) > 50

    @pytest.mark.parametrize("path", FILES, ids=relative)
    def test_arrows(self, path: Path) -> None:
        """Packages import along the arrows only, and each library in its own place."""
        assert trespasses(relative(path), path.read_text(encoding="utf-8")) == []

    @pytest.mark.parametrize(
        ("name", "text", "found"),
        [
            ("spaces/a.py", "import storage.store", ["storage"]),
            ("spaces/a.py", "def f():\n    from objectives import registry", ["objectives"]),
            ("objectives/a.py", "from storage.store import Store", ["storage"]),
            ("objectives/a.py", "importlib.import_module('search.worker.trial')", ["search"]),
            ("storage/a.py", "import objectives.registry as r", ["objectives"]),
            ("storage/a.py", "from torch import nn", ["torch"]),
            ("search/a.py", "import torch, sqlalchemy.orm", ["sqlalchemy", "torch"]),
            ("search/worker/trial.py", "import typer", ["typer"]),
            ("search/report/study_report.py", "from rich.table import Table", ["rich"]),
            ("storage/a.py", "import optuna", ["optuna"]),
            ("search/console/a.py", "import rich, plotext", []),
            ("search/worker/a.py", "def f():\n    import optuna", ["optuna"]),
            ("search/cli/a.py", "from optuna_dashboard import run_server", ["optuna_dashboard"]),
            ("search/sampling/a.py", "import spaces, objectives, storage, optuna", []),
            ("objectives/a.py", "from . import b\nimport torch, spaces", []),
        ],
    )
    def test_rule_bites(self, name: str, text: str, found: list[str]) -> None:
        """An import that breaks a rule is found wherever it stands in the file; one that keeps it is not."""
        assert trespasses(name, text) == found


RUNS_WHAT_IT_READS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
}
"""Modules by which a file can bring code along."""


def unsafe_reads(text: str) -> list[str]:
    """The places in the code where something that is read could be run."""
    tree = ast.parse(text)
    found = [
        f"import {module}"
        for module in imported(tree, "")
        if module.split(".")[0] in RUNS_WHAT_IT_READS
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, given = (
            ast.unparse(node.func),
            {word.arg: ast.unparse(word.value) for word in node.keywords},
        )
        unsafe = (
            (name == "torch.load" and given.get("weights_only") != "True")
            or given.get("allow_pickle") == "True"
            or name in ("eval", "exec", "yaml.unsafe_load", "yaml.full_load")
            or (name == "yaml.load" and given.get("Loader") not in ("_Loader", "yaml.SafeLoader"))
        )
        found += [name] if unsafe else []
    return found


class TestReading:
    @pytest.mark.parametrize("path", FILES, ids=relative)
    def test_data_only(self, path: Path) -> None:
        """Nothing that is read from a store or a file is run: no pickle, tensors as `weights_only`, YAML by a safe loader."""
        assert unsafe_reads(path.read_text(encoding="utf-8")) == []

    @pytest.mark.parametrize(
        "text",
        [
            "import pickle",
            "def f():\n    from joblib import load",
            "torch.load(path)",
            "torch.load(path, weights_only=False)",
            "eval(text)",
            "np.load(path, allow_pickle=True)",
            "yaml.load(text, Loader=yaml.Loader)",
            "yaml.load(text)",
        ],
    )
    def test_rule_bites(self, text: str) -> None:
        """Each way to run what is read is found."""
        assert len(unsafe_reads(text)) == 1

    def test_safe_loader(self) -> None:
        """The loader that the rule lets pass is a safe one."""
        from spaces.loader import _Loader

        assert issubclass(_Loader, yaml.SafeLoader)


class TestHelp:
    def test_light(self) -> None:
        """`python -m search.cli --help` answers without loading any of the heavy libraries."""
        command = [sys.executable, "-X", "importtime", "-m", "search.cli", "--help"]
        answer = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )

        loaded = {
            line.rsplit("|", 1)[1].strip().split(".")[0]
            for line in answer.stderr.splitlines()
            if line.startswith("import time:")
        }
        assert "Usage" in answer.stdout
        assert "typer" in loaded  # the list of imports was read
        assert loaded & HEAVY == set()


class TestBudgets:
    @pytest.mark.parametrize("path", FILES, ids=relative)
    def test_file(self, path: Path) -> None:
        """No file is longer than 400 lines."""
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES

    @pytest.mark.parametrize("path", FILES, ids=relative)
    def test_functions(self, path: Path) -> None:
        """No function is longer than 50 lines, its docstring not counted."""
        lengths = function_lengths(path.read_text(encoding="utf-8"))
        assert {
            name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES
        } == {}

    def test_docstring_is_free(self) -> None:
        """The length counts from `def` to the last line, and leaves the docstring out."""
        text = 'class A:\n    def f(self):\n        """One\n\n        two.\n        """\n        return 1\n\n\nasync def g(): ...\n'
        assert function_lengths(text) == {"f:2": 2, "g:10": 1}


class TestNames:
    def test_no_utils(self) -> None:
        """No file is called after nothing in particular."""
        assert [
            relative(path)
            for path in FILES
            if re.fullmatch(r"(utils?|helpers?|misc|common)", path.stem)
        ] == []
