"""The public names of the packages: `from spaces import …` and so on."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from spaces.lazy_exports import lazy_exports
from tests.unit.test_structure import HEAVY, PACKAGES
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]

PUBLIC = {
    "spaces": [
        "Choice",
        "ClassCounts",
        "ConfigError",
        "DataError",
        "DeviceError",
        "EpochRecord",
        "Evidence",
        "FloatRange",
        "Frozen",
        "InputError",
        "IntRange",
        "LauncherError",
        "LossConfig",
        "MetricConfig",
        "OptimizerConfig",
        "OutOfMemoryError",
        "PrunerConfig",
        "RecordedStudy",
        "RecordedTrial",
        "Recording",
        "RecordsError",
        "SamplerConfig",
        "ScheduleConfig",
        "SearchError",
        "SignalsConfig",
        "Stage",
        "StoreError",
        "StudyError",
        "StudySpec",
        "TestScore",
        "TrialConfig",
        "TrialFailedError",
        "UnusedHyperparameterError",
        "WeightsConfig",
        "load_study",
        "make_record",
        "read_recording",
        "shipped_studies",
        "write_recording",
    ],
    "objectives": [
        "OBJECTIVES",
        "Checkpoints",
        "ClassWeights",
        "CombinedLoss",
        "Criterion",
        "CrossEntropyLoss",
        "DiceLoss",
        "EpochValues",
        "FocalLoss",
        "FocalLossFunction",
        "FocalLossTrainer",
        "FocalTrainingArguments",
        "GradientShares",
        "LibraryLoss",
        "LossParts",
        "NoCheckpoints",
        "NormalizedCombinedLoss",
        "Objective",
        "ObjectiveContract",
        "Trainer",
        "build_criterion",
        "class_weights",
        "cross_entropy",
        "dice",
        "focal",
        "focal_alpha",
        "gradient_shares",
        "objective",
        "values_at",
    ],
    "storage": ["Store", "StoreLocation"],
    "search": [
        "DivergencePruner",
        "Export",
        "Plan",
        "Session",
        "StoreLocation",
        "WorkerOptions",
        "find_divergence",
        "load_export",
        "make_plan",
        "open_session",
        "rank_recording",
        "run_backtest",
        "run_worker",
        "study_report",
        "trial_report",
    ],
}


def typed_names(package: str) -> list[str]:
    """The names that a type checker sees in a package's `__init__`."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    (checking,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in checking.body if isinstance(node, ast.ImportFrom)]
    return sorted(alias.name for node in imports for alias in node.names)


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh process has loaded after it ran the code."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    answer = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    return {name.split(".")[0] for name in answer.stdout.split()}


class TestNames:
    def test_every_package(self) -> None:
        """Each package has a list of public names."""
        assert set(PUBLIC) == set(PACKAGES)

    @pytest.mark.parametrize("package", PUBLIC)
    def test_exported(self, package: str) -> None:
        """The public names are these, each exists, and a type checker sees the same ones."""
        module = importlib.import_module(package)
        assert module.__all__ == PUBLIC[package]
        assert typed_names(package) == sorted(PUBLIC[package])
        for name in PUBLIC[package]:
            assert getattr(module, name) is not None

    def test_same_object(self) -> None:
        """A public name is the very object that its module defines."""
        from objectives import CombinedLoss
        from objectives.losses.combined import CombinedLoss as Defined

        assert CombinedLoss is Defined

    @pytest.mark.parametrize("package", PUBLIC)
    def test_unknown(self, package: str) -> None:
        """Any other name is an AttributeError that has the package and the name."""
        module = importlib.import_module(package)
        with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Combined'"):
            _ = module.Combined

    def test_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name is imported at its first use and is an ordinary attribute afterwards."""
        module = importlib.import_module("spaces")
        monkeypatch.delitem(vars(module), "StudySpec", raising=False)
        found = lazy_exports("spaces", {"spaces.study": ("StudySpec",)})("StudySpec")
        assert vars(module)["StudySpec"] is found


class TestLight:
    @pytest.mark.parametrize("package", PUBLIC)
    def test_import(self, package: str) -> None:
        """Importing a package loads none of the heavy libraries, and pydantic only when it is used."""
        loaded = loaded_by(f"import {package}")
        assert package in loaded
        assert loaded & (HEAVY | {"pydantic"}) == set()

    def test_names_of_a_study(self) -> None:
        """Reading a study by the public names loads none of the heavy libraries."""
        loaded = loaded_by("from spaces import StudySpec, load_study\nload_study('focal_gamma')")
        assert "pydantic" in loaded
        assert loaded & HEAVY == set()
