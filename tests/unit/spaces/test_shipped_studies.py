"""The studies that come with the package: each works unchanged."""

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
        """Nine studies are shipped."""
        assert sorted(shipped_studies()) == NAMES

    @pytest.mark.parametrize("name", NAMES)
    def test_named(self, name: str) -> None:
        """A study has its file's name, a description, and enough trials for its start."""
        spec = load_study(name)
        assert spec.name == name
        assert spec.about
        assert spec.trials >= spec.sampler.startup_trials + len(spec.presets)

    @pytest.mark.parametrize("epochs", [None, 3, 5, 30, 100])
    @pytest.mark.parametrize("name", NAMES)
    def test_plans(self, name: str, epochs: int | None) -> None:
        """A study is planned without a warning, with its own number of epochs and with others."""
        assert make_plan(load_study(name, {"epochs": epochs} if epochs else {})).warnings == ()

    @pytest.mark.parametrize("epochs", [None, 3, 30])
    @pytest.mark.parametrize("name", NAMES)
    def test_presets_inside(self, name: str, epochs: int | None) -> None:
        """Each preset is in the space, and its trial has exactly its values."""
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
