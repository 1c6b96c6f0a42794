"""The studies that come with the package: each must work as it stands."""

from __future__ import annotations

import pytest

from search.planning.plan import make_plan
from spaces.loader import load_study, shipped_studies

NAMES = [
    "ce_dice",
    "class_weights",
    "combined",
    "focal_alpha",
    "focal_gamma",
    "lr_clip",
    "text_alpha",
    "text_focal",
    "text_regularization",
]


class TestShipped:
    def test_all(self) -> None:
        """So many studies are shipped."""
        assert sorted(shipped_studies()) == NAMES

    @pytest.mark.parametrize("name", NAMES)
    def test_named(self, name: str) -> None:
        """A study is called as its file is, says what it is about, and has room for its presets and for random trials."""
        spec = load_study(name)
        assert spec.name == name
        assert spec.about
        assert spec.trials >= spec.sampler.startup_trials + len(spec.presets)

    @pytest.mark.parametrize("epochs", [None, 3, 5, 30, 100])
    @pytest.mark.parametrize("name", NAMES)
    def test_plans(self, name: str, epochs: int | None) -> None:
        """A study plans without a warning, at its own length and at others."""
        assert make_plan(load_study(name, {"epochs": epochs} if epochs else {})).warnings == ()

    @pytest.mark.parametrize("epochs", [None, 3, 30])
    @pytest.mark.parametrize("name", NAMES)
    def test_presets_inside(self, name: str, epochs: int | None) -> None:
        """Each preset lies in the space, on every dimension that exists under it, and its values are the ones that the trial is given."""
        plan = make_plan(load_study(name, {"epochs": epochs} if epochs else {}))
        assert len(plan.spec.presets) >= (3 if plan.spec.objective == "segmentation" else 2)
        for preset in plan.spec.presets:
            params = plan.preset_params(preset)
            assert params
            assert all(plan.spec.space[path].contains(value) for path, value in params.items())
            assert (
                dict(plan.active_dimensions(plan.starting_tree(preset), params)).keys()
                == params.keys()
            )
            assert plan.make_config(params, 0, preset) == plan.make_config({}, 0, preset)

    @pytest.mark.parametrize("name", NAMES)
    def test_presets_differ(self, name: str) -> None:
        """No two presets of a study are the same trial."""
        plan = make_plan(load_study(name))
        configs = [
            plan.make_config(plan.preset_params(preset), 0, preset).model_dump_json()
            for preset in plan.spec.presets
        ]
        assert len(set(configs)) == len(configs)
