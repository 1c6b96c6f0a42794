"""The base learning rate of a study: a number, or `auto`."""

from __future__ import annotations

from typing import Any

import pytest

from objectives.segmentation.config import SegmentationConfig
from search.planning.base_rate import AUTO, BASE_LR, wants_probe
from search.planning.plan import make_plan
from spaces.config_tree import ConfigTree
from spaces.errors import StudyError
from spaces.study import StudySpec

LR = {"kind": "float", "low": 0.1, "high": 10, "log": True}
CHOICE = {"kind": "choice", "choices": ["sgd", "adamw"]}


def study(**given: Any) -> StudySpec:
    """Make a study whose base rate is found by a probe, with these keys."""
    return StudySpec.model_validate(
        {"name": "demo", "base": {BASE_LR: AUTO}, "space": {"optimizer.lr_multiple": LR}, **given}
    )


class TestResolved:
    @pytest.mark.parametrize("base", [{BASE_LR: AUTO}, {"optimizer": {"base_lr": AUTO}}])
    def test_default_before(self, base: dict[str, Any]) -> None:
        """Before the probe, configurations have the objective's default; the study says auto."""
        plan = make_plan(study(base=base))
        assert wants_probe(plan.spec)
        default = SegmentationConfig().optimizer.base_lr
        for config in (plan.first_config(), plan.make_config({}, 3)):
            assert ConfigTree(config.model_dump())[BASE_LR] == default
        assert plan.complete_values(None)[BASE_LR] == default
        assert ConfigTree.from_paths(plan.spec.definition()["base"])[BASE_LR] == AUTO

    def test_number_afterwards(self) -> None:
        """With the result of the probe, every configuration has its number, presets included."""
        plan = make_plan(study(base={"optimizer": {"base_lr": AUTO, "momentum": 0.5}}), 0.03)
        config = plan.make_config({"optimizer.lr_multiple": 2.0}, 0, "recommended")
        values = ConfigTree(config.model_dump())
        assert (values[BASE_LR], values["optimizer.momentum"]) == (0.03, 0.5)
        assert values["optimizer.lr_multiple"] == 2.0

    def test_number_in_study(self) -> None:
        """A number in the study switches the probe off, whatever a probe found."""
        plan = make_plan(study(base={BASE_LR: 0.2}), 0.03)
        assert not wants_probe(plan.spec)
        assert ConfigTree(plan.first_config().model_dump())[BASE_LR] == 0.2

    def test_searched_optimizer(self) -> None:
        """A study that searches the optimizer too is warned: the rate is found for one of them."""
        space = {"optimizer.lr_multiple": LR, "optimizer.kind": CHOICE}
        assert any(
            "optimizer of the base" in text for text in make_plan(study(space=space)).warnings
        )
        assert make_plan(study()).warnings == ()


class TestRefused:
    def test_word(self) -> None:
        """Any other word than auto is refused, with its place."""
        with pytest.raises(StudyError) as caught:
            make_plan(study(base={BASE_LR: "automatic"}))
        assert caught.value.place == ("base", "optimizer", "base_lr")

    def test_searched(self) -> None:
        """A base rate that is searched cannot be found by a probe as well."""
        with pytest.raises(StudyError, match="no probe is to find it"):
            make_plan(study(space={BASE_LR: LR}))

    def test_without_probe(self) -> None:
        """A custom objective has no probe, so it needs a number."""
        with pytest.raises(StudyError, match="has no probe of the learning rate") as caught:
            make_plan(study(objective="tests.contract.gated_objective:train"))
        assert caught.value.place == ("base", "optimizer", "base_lr")
        assert caught.value.allowed == "a positive number"
