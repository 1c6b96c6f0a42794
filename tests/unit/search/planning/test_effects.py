"""Effects: searches without one are refused, and requirements match what loss and optimizer use."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn

from objectives.losses import build_criterion
from objectives.segmentation.config import SegmentationConfig
from objectives.training.optimizer import build_optimizer, used_by
from search.planning.effects import REQUIREMENTS, Requirement
from search.planning.plan import make_plan
from spaces.config_tree import ConfigTree
from spaces.errors import StudyError
from spaces.loader import load_study, shipped_studies
from spaces.records import ClassCounts
from spaces.study import StudySpec

COUNTS = ClassCounts(("road", "car", "person"), (900, 90, 10))
FOCAL = {"loss.kind": "focal"}
GAMMA = {"kind": "float", "low": 0, "high": 5}
SMOOTH = {"kind": "float", "low": 1, "high": 10}

EFFECTIVE: dict[str, dict[str, Any]] = {
    "loss.gamma": FOCAL,
    "loss.alpha": FOCAL | {"loss.alpha": 0.25},
    "loss.alpha_tau": FOCAL | {"loss.alpha_tau": 0.5},
    "loss.class_alpha": FOCAL | {"loss.class_alpha": {"person": 3.0}},
    "loss.focal_share": {"loss.kind": "ce_focal"},
    "loss.overlap": {"loss.dice_weight": 0.3},
    "loss.smooth": {"loss.dice_weight": 0.3},
    "loss.square_denominator": {"loss.dice_weight": 0.3},
    "loss.dice_reduction": {"loss.dice_weight": 0.3},
    "loss.tversky_alpha": {"loss.dice_weight": 0.3, "loss.overlap": "tversky"},
    "loss.tversky_beta": {"loss.dice_weight": 0.3, "loss.overlap": "tversky"},
    "loss.normalize_momentum": {"loss.normalize": True},
    "weights.clip_ratio": {"weights.method": "inverse_freq", "weights.clip_ratio": 10.0},
    "weights.beta": {"weights.method": "effective_number"},
    "optimizer.momentum": {"optimizer.kind": "sgd"},
}
"""Hyperparameter → a configuration in which it has an effect, except those of the Dice warm-up."""

OTHERS: dict[str, tuple[Any, ...]] = {
    "loss.kind": ("ce", "focal", "ce_focal", "soft_ce"),
    "loss.dice_weight": (0.0, 0.3, 1.0),
    "loss.overlap": ("dice", "jaccard", "tversky", "lovasz"),
    "loss.normalize": (False, True),
    "weights.method": (
        "uniform",
        "inverse_freq",
        "sqrt_inv_freq",
        "median_freq",
        "effective_number",
        "log_inv_freq",
    ),
    "optimizer.kind": ("sgd", "adamw"),
}
"""What can be required, with every kind of value that it can have."""


def used(values: dict[str, Any]) -> set[str]:
    """Return the hyperparameters that loss and optimizer use, without names of classes."""
    config = SegmentationConfig.model_validate(ConfigTree.from_paths(values).nested)
    criterion = build_criterion(config.loss, config.weights, COUNTS, 255, torch.device("cpu"))
    return {path.removesuffix(".person") for path in criterion.used()} | {
        *used_by(build_optimizer(nn.Linear(1, 1), config.optimizer), config.optimizer)
    }


def planned(space: dict[str, Any], **given: Any) -> object:
    """Make the plan of a study with this space."""
    return make_plan(StudySpec.model_validate({"name": "demo", "space": space, **given}))


def refusal(space: dict[str, Any], **given: Any) -> StudyError:
    """Return the error of a study that is refused."""
    with pytest.raises(StudyError) as caught:
        planned(space, **given)
    return caught.value


class TestTruth:
    def test_whole(self) -> None:
        """Every requirement is tested."""
        required = {each.path for each in chain.from_iterable(REQUIREMENTS.values())}
        assert {path for path in required if not path.startswith("schedule.")} == set(OTHERS)
        assert {path for path in REQUIREMENTS if not path.startswith("schedule.")} == set(EFFECTIVE)

    @pytest.mark.parametrize(
        ("path", "required", "value"),
        [
            pytest.param(path, required, value, id=f"{path}-{required.path}-{value}")
            for path in EFFECTIVE
            for required in REQUIREMENTS[path]
            for value in OTHERS[required.path]
        ],
    )
    def test_each(self, path: str, required: Requirement, value: Any) -> None:
        """A hyperparameter is used exactly where its requirements are met."""
        found = used(EFFECTIVE[path] | {required.path: value})
        assert (path in found) == required.is_met(value)


class TestCheckEffects:
    def test_fixed(self) -> None:
        """A gamma that never reaches the loss is refused, with the reason and what to do."""
        error = refusal({"loss.gamma": GAMMA}, base={"loss.kind": "ce"})
        assert error.what == "loss.gamma has no effect where loss.kind is ce"
        assert error.where == "study demo, space → loss.gamma"
        assert (error.found, error.allowed) == (
            "loss.kind can be ce",
            "loss.kind: focal or ce_focal",
        )
        assert error.next_step == "set base.loss.kind, or take loss.gamma out of the space"

    @pytest.mark.parametrize(
        ("path", "dimension", "idle", "enough"),
        [
            (
                "schedule.smooth_steps",
                {"kind": "choice", "choices": [True, False]},
                {},
                {"loss.dice_weight": 0.3},
            ),
            (
                "schedule.light_clip_epochs",
                {"kind": "int", "low": 0, "high": 9},
                {},
                {"weights.method": "inverse_freq"},
            ),
            (
                "schedule.light_clip_ratio",
                {"kind": "float", "low": 2, "high": 9},
                {"weights.method": "inverse_freq"},
                {"weights.method": "inverse_freq", "schedule.light_clip_epochs": 3},
            ),
        ],
    )
    def test_schedules(
        self, path: str, dimension: dict[str, Any], idle: dict[str, Any], enough: dict[str, Any]
    ) -> None:
        """A schedule of an unused value is refused, and accepted where the value is used."""
        assert f"{path} has no effect" in refusal({path: dimension}, base=idle).what
        assert planned({path: dimension}, base=enough)

    def test_searched(self) -> None:
        """A gamma that only reaches the loss in some trials is refused; a condition fixes that."""
        kinds = {"kind": "choice", "choices": ["ce", "focal", "soft_ce"]}
        error = refusal({"loss.kind": kinds, "loss.gamma": GAMMA})
        assert error.what == "loss.gamma has no effect where loss.kind is ce or soft_ce"
        assert (
            error.next_step == "give loss.gamma a `when`, so that it exists only where loss.kind "
            "is focal or ce_focal"
        )
        assert planned({"loss.kind": kinds, "loss.gamma": GAMMA | {"when": {"loss.kind": "focal"}}})
        assert (
            "is ce"
            in refusal(
                {"loss.kind": kinds, "loss.gamma": GAMMA | {"when": {"loss.kind": ["ce", "focal"]}}}
            ).what
        )

    @pytest.mark.parametrize(
        ("share", "refused"),
        [
            ({"kind": "float", "low": 0, "high": 0.8}, False),
            ({"kind": "float", "low": 0, "high": 0}, True),
            ({"kind": "choice", "choices": [0.0, 0.3]}, True),
            ({"kind": "choice", "choices": [0.2, 0.3]}, False),
        ],
    )
    def test_range(self, share: dict[str, Any], refused: bool) -> None:
        """A range with one bound without effect is accepted, a choice without effect is refused."""
        space = {"loss.dice_weight": share, "loss.smooth": SMOOTH}
        if refused:
            assert "loss.smooth has no effect where loss.dice_weight is 0" in refusal(space).what
        else:
            assert planned(space)

    def test_stage(self) -> None:
        """Smooth has an effect if Dice has a weight in some stage."""
        stages = {"schedule": {"stages": [{"before_epoch": 5, "dice_weight": 0.3}]}}
        assert planned({"loss.smooth": SMOOTH}, base=stages)
        assert refusal(
            {"loss.smooth": SMOOTH},
            base={"schedule": {"stages": [{"before_epoch": 5, "smooth": 10}]}},
        )

    def test_only_under_preset(self) -> None:
        """A dimension that does not exist under the base may exist under a preset."""
        space = {"loss.smooth": SMOOTH | {"when": {"loss.dice_weight": 0.3}}}
        assert planned(space, presets=["recommended"])

    def test_preset(self) -> None:
        """A preset under which a dimension has no effect is refused, with its value."""
        error = refusal(
            {"loss.smooth": SMOOTH}, base={"loss.dice_weight": 0.3}, presets=["untuned"]
        )
        assert error.what == "loss.smooth has no effect under the preset 'untuned'"
        assert (error.found, error.allowed) == (
            "loss.dice_weight = 0.0",
            "loss.dice_weight: above 0",
        )

    @pytest.mark.parametrize("name", shipped_studies())
    def test_shipped(self, name: str) -> None:
        """The shipped studies are accepted."""
        assert make_plan(load_study(name))
