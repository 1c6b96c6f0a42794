"""What the documentation and the docstrings of the losses show is run, and what they name exists."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from objectives import losses
from objectives.segmentation.config import SegmentationConfig
from search.planning.plan import make_plan, searchable_paths
from spaces.study import StudySpec

pytestmark = pytest.mark.docs

DOCS = Path(__file__).parents[4] / "docs"
MODULES = [name for _, name, _ in pkgutil.iter_modules(losses.__path__, "objectives.losses.")]


def blocks(page: str, language: str) -> list[str]:
    """The code of a page in a language, in order."""
    return re.findall(
        rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL
    )


class TestDocstrings:
    @pytest.mark.parametrize("name", MODULES)
    def test_examples(self, name: str) -> None:
        """Every example in a docstring gives what it says."""
        assert doctest.testmod(importlib.import_module(name)).failed == 0

    def test_there_are_some(self) -> None:
        """Each of the losses that people use has one."""
        for name in ("CrossEntropyLoss", "FocalLoss", "DiceLoss", "CombinedLoss"):
            assert ">>>" in (getattr(losses, name).__doc__ or "")


class TestPage:
    def test_examples(self) -> None:
        """The page's code runs from top to bottom, as one reads it."""
        scope: dict[str, Any] = {}
        code = blocks("losses.md", "python")
        assert len(code) == 3
        torch.manual_seed(0)
        for block in code:
            exec(compile(block, "docs/losses.md", "exec"), scope)
        assert scope["found"].ratio <= 25
        assert scope["parts"].total.isfinite()
        assert float(scope["by_part"].sum()) == pytest.approx(1)
        assert float(scope["by_class"].sum()) == pytest.approx(1)

    def test_names(self) -> None:
        """Every public loss is on the page, and every setting that it names is one of a configuration."""
        page = (DOCS / "losses.md").read_text(encoding="utf-8")
        missing = {name for name in losses.__all__ if name not in page} - {
            "Balance",
            "Criterion",
            "GradientShares",
            "LossParts",
        }
        assert missing == set()
        named = set(re.findall(r"`((?:loss|weights|schedule|optimizer|model)\.[a-z_]+)", page))
        assert named - set(searchable_paths(SegmentationConfig)) == set()


class TestStudies:
    def test_examples(self) -> None:
        """The studies that are written out in the documentation are sound."""
        found = [yaml.safe_load(block) for block in blocks("studies.md", "yaml")]
        specs = [StudySpec.model_validate(study) for study in found if "space" in study]
        assert len(specs) >= 2
        for spec in specs:
            make_plan(spec)
