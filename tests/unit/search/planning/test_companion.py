"""The companion of a study: its definition, and trainings that repeat a configuration exactly."""

from __future__ import annotations

from typing import Any

import pytest

from search.planning.companion import (
    find_main_name,
    list_choices,
    make_companion,
    make_training,
)
from search.planning.plan import Plan, make_plan
from search.planning.random_seeds import derive_seed
from search.sampling.sampler import start_from_attributes
from spaces.errors import StudyError
from spaces.loader import load_study
from storage.rows import StoredTrial


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The shipped study with the most dimensions, conditions and presets."""
    return make_plan(load_study("combined", {"epochs": 5}))


@pytest.fixture(scope="module")
def companion(plan: Plan) -> Plan:
    """Of its companion."""
    return make_plan(make_companion(plan.spec, 6))


def make_trial(config: dict[str, Any], number: int = 7) -> StoredTrial:
    """A complete trial with this configuration."""
    unknown = dict.fromkeys(StoredTrial.__dataclass_fields__)
    return StoredTrial(**{**unknown, "number": number, "config": config, "state": "complete"})  # type: ignore[arg-type]


class TestMakeCompanion:
    def test_definition(self, plan: Plan, companion: Plan) -> None:
        """It trains what the study trains, and neither samples, prunes, nor stops for a trend."""
        spec, own = companion.spec, plan.spec
        assert (spec.name, spec.trials) == ("combined.confirm", 6)
        assert (spec.base, spec.space, spec.metric, spec.seed) == (
            own.base,
            own.space,
            own.metric,
            own.seed,
        )
        assert (spec.presets, spec.sampler.kind, spec.pruner.kind) == ((), "random", "none")
        signals = spec.signals.model_dump()
        enabled = {
            name for name, value in signals.items() if isinstance(value, dict) and value["enabled"]
        }
        assert enabled == {"nonfinite_loss"}
        assert find_main_name(spec.name) == "combined"
        assert find_main_name("combined") is None

    def test_long_name(self, plan: Plan) -> None:
        """A study whose companion's name would be too long is refused."""
        spec = plan.spec.model_copy(update={"name": "x" * 95})
        with pytest.raises(StudyError, match="name"):
            make_companion(spec, 1)


class TestMakeTraining:
    @pytest.mark.parametrize("preset", [None, "recommended", "progressive", "untuned"])
    def test_repeats(self, plan: Plan, companion: Plan, preset: str | None) -> None:
        """Its configuration is that of the trial, whatever preset or remedy that came from."""
        start = preset or "recommended"
        params = plan.preset_params(start) | ({} if preset else {"optimizer.lr_multiple": 1.25})
        config = plan.make_config(params, 7, preset, {"batch_size": 3}).model_dump(mode="json")
        training = make_training(companion, make_trial(config), 2)

        assert training is not None
        begin = start_from_attributes(training.user_attrs)
        made = companion.make_config(training.params, 0, begin.preset, begin.patch, begin.seed)
        assert list_choices(made.model_dump(mode="json")) == list_choices(config)
        assert made.seed == derive_seed(plan.spec.seed, 2, "confirm")
        assert made.seed != config["seed"]
        assert begin.label == "trial 7, seed 2"

    def test_outside(self, plan: Plan, companion: Plan) -> None:
        """A value that its dimension does not contain cannot be repeated."""
        config = plan.make_config(plan.preset_params("recommended"), 7, "recommended")
        dumped = config.model_dump(mode="json")
        dumped["optimizer"]["lr_multiple"] = 1e6
        assert make_training(companion, make_trial(dumped), 1) is None
