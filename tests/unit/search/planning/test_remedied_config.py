"""Where remedied configurations are in a study's search space."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from search.planning.plan import Plan, make_plan
from search.planning.remedied_config import locate_in_space, make_remedy_trial
from search.sampling.sampler import start_from_attributes
from spaces.loader import parse_changes
from spaces.records import Diagnosis, Remedy
from spaces.study import StudySpec
from storage.rows import StoredTrial

SPACE = {
    "optimizer.lr_multiple": {"kind": "float", "low": 0.01, "high": 100, "log": True},
    "optimizer.grad_clip_norm": {"kind": "choice", "choices": [None, 5.0]},
    "loss.gamma": {"kind": "float", "low": 0, "high": 4, "step": 0.5},
    "weights.method": {"kind": "choice", "choices": ["uniform", "sqrt_inv_freq"]},
    "weights.clip_ratio": {
        "kind": "choice",
        "choices": [100, 25],
        "when": {"weights.method": "sqrt_inv_freq"},
    },
}
PARAMS = {
    "optimizer.lr_multiple": 30.0,
    "optimizer.grad_clip_norm": None,
    "loss.gamma": 2.0,
    "weights.method": "uniform",
}


@pytest.fixture
def plan() -> Plan:
    """A study with a dimension of every kind."""
    return make_plan(
        StudySpec.model_validate(
            {"name": "demo", "space": SPACE, "base": {"loss": {"kind": "focal"}}}
        )
    )


def configure(plan: Plan, patch: dict[str, Any] | None = None) -> dict[str, Any]:
    """The configuration of a trial."""
    return plan.make_config(PARAMS, 7, None, patch).model_dump(mode="json")


def make_trial(config: dict[str, Any], preset: str | None = None) -> StoredTrial:
    """A trial with this configuration; nothing else of it matters."""
    blank: Any = None
    trial = [blank] * len(StoredTrial.__dataclass_fields__)
    names = list(StoredTrial.__dataclass_fields__)
    for name, value in {"number": 7, "config": config, "preset": preset}.items():
        trial[names.index(name)] = value
    return StoredTrial(*trial)


class TestLocateInSpace:
    def test_inside(self, plan: Plan) -> None:
        """A change of a dimension is a value in the space, and nothing is outside."""
        slower = Remedy("slower", {"optimizer.lr_multiple": 0.5})
        place = locate_in_space(plan, configure(plan), slower)
        assert place.params == PARAMS | {"optimizer.lr_multiple": 0.5}
        assert place.patch == {}
        assert place.is_inside

    def test_not_searched(self, plan: Plan) -> None:
        """A change of what is not searched is next to the space, and the study can try it."""
        decay = Remedy("decay", {"optimizer.weight_decay": 0.01})
        place = locate_in_space(plan, configure(plan), decay)
        assert place.params == PARAMS
        assert place.patch == {"optimizer.weight_decay": 0.01}
        assert place.is_inside

    def test_wakes_a_dimension(self, plan: Plan) -> None:
        """A dimension that exists only now has the remedy's value, or is sampled without one."""
        weigh = {"weights.method": "sqrt_inv_freq"}
        clipped = Remedy("weigh", {**weigh, "weights.clip_ratio": 100.0})
        config = configure(plan)
        assert locate_in_space(plan, config, clipped).params["weights.clip_ratio"] == 100
        sampled = locate_in_space(plan, config, Remedy("weigh", weigh))
        assert "weights.clip_ratio" not in sampled.params
        assert sampled.is_inside

    @pytest.mark.parametrize(
        ("path", "value", "shown", "assignment"),
        [
            ("optimizer.lr_multiple", 0.005, "low 0.01 → 0.005", "optimizer.lr_multiple.low=0.005"),
            ("optimizer.lr_multiple", 300.0, "high 100 → 300", "optimizer.lr_multiple.high=300.0"),
            (
                "optimizer.grad_clip_norm",
                1.0,
                "choices [none, 5] → [none, 5, 1]",
                "optimizer.grad_clip_norm.choices=[null, 5.0, 1.0]",
            ),
            ("loss.gamma", 5.0, "high 4 → 5", "loss.gamma.high=5.0"),
            # Rounded outward, so that the range contains the value.
            ("optimizer.lr_multiple", 300.12, "high 100 → 301", "optimizer.lr_multiple.high=301.0"),
        ],
    )
    def test_outside(
        self, plan: Plan, path: str, value: float, shown: str, assignment: str
    ) -> None:
        """A value outside its dimension has the change of the space that would contain it."""
        place = locate_in_space(plan, configure(plan), Remedy("it", {path: value}))
        (widening,) = place.widenings
        assert not place.is_inside
        assert place.excluded == {path: value}
        assert str(widening) == f"space.{path}: {shown}"
        assert widening.assignment == f"space.{assignment}"
        assert shlex.split(shlex.quote(widening.assignment)) == [widening.assignment]
        ((_, read),) = parse_changes([widening.assignment]).items()
        assert read == (list(widening.new) if isinstance(widening.new, tuple) else widening.new)

    @pytest.mark.parametrize(("path", "value"), [("loss.gamma", 1.7)])
    def test_no_bound_helps(self, plan: Plan, path: str, value: float) -> None:
        """A value between the steps of a grid is outside, whatever the bounds are."""
        place = locate_in_space(plan, configure(plan), Remedy("it", {path: value}))
        assert not place.is_inside
        assert place.widenings == ()

    def test_no_configuration(self, plan: Plan) -> None:
        """A patch that does not fit the rest of the configuration has a problem with its path."""
        place = locate_in_space(plan, configure(plan), Remedy("odd", {"loss.gamma": -1.0}))
        assert not place.is_inside
        assert place.problem is not None
        assert "gamma" in place.problem.where


class TestMakeRemedyTrial:
    def test_of_a_remedy(self, plan: Plan) -> None:
        """What an earlier remedy changed outside the space stays changed."""
        trial = make_trial(configure(plan, {"optimizer.weight_decay": 0.01}), "remedy of 3")
        slower = Remedy("slower", {"optimizer.lr_multiple": 0.5})
        made = make_remedy_trial(plan, trial, 1, Diagnosis("rate", (), (slower,)))
        assert made is not None
        assert trial.config is not None
        assert made.user_attrs["remedy"] == {
            "of": 7,
            "preset": None,
            "patch": {"optimizer.weight_decay": 0.01},
            "choice": 1,
            "title": "slower",
            "cause": "rate",
            "by_sampler": False,
            "seed": trial.config["seed"],
        }

    def test_seed(self, plan: Plan) -> None:
        """A trial that tries a remedy is trained with the seed of the trial whose remedy it is."""
        trial = make_trial(configure(plan), "")
        assert trial.config is not None
        slower = Remedy("slower", {"optimizer.lr_multiple": 0.5})
        made = make_remedy_trial(plan, trial, 1, Diagnosis("rate", (), (slower,)))
        assert made is not None
        start = start_from_attributes(made.user_attrs)
        config = plan.make_config(made.params, 99, start.preset, start.patch, start.seed)
        assert config.seed == trial.config["seed"]
        assert plan.make_config(made.params, 99).seed != config.seed

    def test_older_store(self) -> None:
        """A remedy that an earlier version enqueued has a seed of its own."""
        start = start_from_attributes({"remedy": {"of": 7, "preset": None, "patch": {}}})
        assert start.seed is None

    @pytest.mark.parametrize("patch", [{}, {"optimizer.lr_multiple": 1e6}])
    def test_none(self, plan: Plan, patch: dict[str, Any]) -> None:
        """A remedy without a change, or outside the space, makes no trial."""
        diagnosis = Diagnosis("rate", (), (Remedy("it", patch),))
        assert make_remedy_trial(plan, make_trial(configure(plan)), 1, diagnosis) is None
