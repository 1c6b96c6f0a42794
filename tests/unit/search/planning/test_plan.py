"""Plans: the checks of a study, and the configurations of its trials."""

from __future__ import annotations

from typing import Any

import pytest

from objectives.segmentation.config import SegmentationConfig
from search.planning.plan import NO_BOUND, Plan, make_plan, searchable_paths
from spaces.config_tree import ConfigTree
from spaces.errors import StudyError
from spaces.study import StudySpec

GAMMA = {"kind": "float", "low": 0, "high": 5}
LR = {"kind": "float", "low": 0.1, "high": 10, "log": True}


SWA = "schedule.swa_from_epoch"


def planned(**given: Any) -> Plan:
    """Make the plan of a study with these keys."""
    return make_plan(
        StudySpec.model_validate(
            {
                "name": "demo",
                "base": {"loss.kind": "focal"},
                "space": {"loss.gamma": GAMMA},
                **given,
            }
        )
    )


def refusal(**given: Any) -> StudyError:
    """Return the error of a study that is refused."""
    with pytest.raises(StudyError) as caught:
        planned(**given)
    return caught.value


def dimensions(plan: Plan, **params: Any) -> list[str]:
    """Return the dimensions that exist for these values; a keyword has __ for each dot."""
    return [
        path
        for path, _ in plan.active_dimensions(
            plan.starting_tree(None),
            {name.replace("__", "."): value for name, value in params.items()},
        )
    ]


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "what", "where", "allowed"),
        [
            (
                {"objective": "segmentaton"},
                "unknown objective 'segmentaton' (did you mean 'segmentation'?)",
                "objective",
                "segmentation",
            ),
            (
                {"metric": {"name": "mious"}},
                "unknown metric 'mious' (did you mean 'miou'?)",
                "study demo, metric → name",
                "miou, pixel_accuracy, macro_f1, val_ce",
            ),
            (
                {"metric": {"name": "val_ce"}},
                "val_ce is to be minimized",
                "study demo, metric → direction",
                "minimize",
            ),
            (
                {"metric": {"direction": "minimize"}},
                "miou is to be maximized",
                "study demo, metric → direction",
                "maximize",
            ),
            (
                {"base": {"loss": {"gama": 1}}},
                "unknown key 'gama' (did you mean 'gamma'?)",
                "study demo, base, loss → gama",
                "gamma",
            ),
            (
                {"base": {"loss.gamma": -1}},
                "gamma: input should be greater than or equal to 0",
                "study demo, base, loss → gamma",
                "",
            ),
            (
                {"base": {"loss": {"alpha": "x"}}},
                "alpha: input should be a valid number",
                "study demo, base, loss → alpha",
                "",
            ),
            (
                {"base": {"data": {"kind": "fodler"}}},
                "kind cannot be 'fodler' (did you mean 'folder'?)",
                "study demo, base, data",
                "digits, folder",
            ),
            (
                {"base": {"data": {"classes": 99}}},
                "classes: input should be less than or equal to 9",
                "study demo, base, data → classes",
                "",
            ),
            (
                {"base": {"epochs": 3}},
                "epochs belongs to the study",
                "study demo, base → epochs",
                "",
            ),
            ({"base": {"seed": 3}}, "seed belongs to the study", "study demo, base → seed", ""),
            (
                {"base": {"metric": {}}},
                "metric belongs to the study",
                "study demo, base → metric",
                "",
            ),
            (
                {"base": {"max_grad_norm": 3}},
                "max_grad_norm belongs to the study",
                "study demo, base → max_grad_norm",
                "",
            ),
            (
                {"space": {"epochs": {"kind": "int", "low": 1, "high": 9}}},
                "unknown hyperparameter 'epochs'",
                "study demo, space",
                "a path of the configuration",
            ),
            (
                {
                    "space": {
                        "weights.clip_ratio": {
                            "kind": "choice",
                            "choices": [10],
                            "when": {"weights.method": ["inverse_freq"]},
                        }
                    }
                },
                "weights.clip_ratio waits for a value that weights.method never has",
                "space → weights.clip_ratio → when",
                "inverse_freq",
            ),
            (
                {"space": {"loss.gama": GAMMA}},
                "unknown hyperparameter 'loss.gama' (did you mean 'loss.gamma'?)",
                "study demo, space",
                "a path of the configuration",
            ),
            (
                {"space": {"loss": GAMMA}},
                "unknown hyperparameter 'loss'",
                "study demo, space",
                "a path of the configuration",
            ),
            (
                {"space": {"loss.gamma": GAMMA | {"when": {"loss.knd": "focal"}}}},
                "unknown path 'loss.knd' in when (did you mean 'loss.kind'?)",
                "study demo, space → loss.gamma → when",
                "",
            ),
            (
                {
                    "space": {
                        "loss.kind": {"kind": "choice", "choices": ["ce", "focal"]},
                        "loss.gamma": GAMMA | {"when": {"loss.kind": ["focal", "dice"]}},
                    }
                },
                "loss.gamma waits for a value that loss.kind never has",
                "study demo, space → loss.gamma → when",
                "ce · focal",
            ),
            (
                {
                    "space": {
                        "loss.smooth": LR | {"when": {"loss.gamma": 2.0}},
                        "loss.gamma": GAMMA | {"when": {"loss.smooth": 1.0}},
                    }
                },
                "the conditions form a circle",
                "study demo, space",
                "",
            ),
            (
                {"space": {"loss.gamma": GAMMA | {"when": {"loss.gamma": 2.0}}}},
                "the conditions form a circle",
                "study demo, space",
                "",
            ),
            (
                {"space": {"loss.gamma": GAMMA | {"low": -1}}},
                "gamma: input should be greater than or equal to 0",
                "space → loss.gamma, tried with -1.0, loss → gamma",
                "",
            ),
            (
                {"space": {"loss.dice_weight": GAMMA}},
                "dice_weight: input should be less than or equal to 1",
                "space → loss.dice_weight, tried with 5.0, loss → dice_weight",
                "",
            ),
            (
                {
                    "space": {
                        "weights.method": {"kind": "choice", "choices": ["uniform", "sqrt_inv"]}
                    }
                },
                "method cannot be 'sqrt_inv' (did you mean 'sqrt_inv_freq'?)",
                "tried with sqrt_inv, weights → method",
                "uniform, inverse_freq",
            ),
            (
                {"presets": ["save"]},
                "unknown preset 'save' (did you mean 'safe'?)",
                "presets",
                "safe",
            ),
            (
                {"presets": ["safe"], "space": {"optimizer.lr_multiple": LR | {"low": 0.5}}},
                "the preset 'safe' is outside the space",
                "study demo, space → optimizer.lr_multiple",
                "0.5 … 10, log",
            ),
            (
                {
                    "presets": ["safe"],
                    "base": {"loss.ce_weight": 0.7},
                    "space": {"optimizer.lr_multiple": LR},
                },
                "must sum to 1",
                "study demo, the preset 'safe' over the base, loss",
                "",
            ),
            (
                {
                    "space": {
                        "loss.alpha": GAMMA,
                        "loss.alpha_tau": {"kind": "float", "low": 0, "high": 1},
                    }
                },
                "alpha and alpha_tau exclude each other",
                "study demo, trial 0, loss",
                "",
            ),
            (
                {
                    "space": {
                        "loss.ce_weight": {"kind": "float", "low": 0.2, "high": 0.8},
                        "loss.dice_weight": {"kind": "float", "low": 0.2, "high": 0.8},
                    }
                },
                "must sum to 1, but 0.2 + 0.2 is 0.4",
                "study demo, trial 0, loss",
                "",
            ),
        ],
    )
    def test_refused(self, given: dict[str, Any], what: str, where: str, allowed: str) -> None:
        """A study that cannot work is refused, with the place and what is allowed there."""
        error = refusal(**given)
        assert what in error.what
        assert error.where.endswith(where)
        assert allowed in error.allowed

    @pytest.mark.parametrize(
        ("given", "place"),
        [
            ({"base": {"loss.gama": 1}}, ("base", "loss", "gama")),
            ({"base": {"epochs": 1}}, ("base", "epochs")),
            ({"metric": {"name": "mious"}}, ("metric", "name")),
            ({"presets": ["save"]}, ("presets",)),
            ({"objective": "segmentaton"}, ("objective",)),
            ({"space": {"loss.gamma": GAMMA | {"low": -1}}}, ("space", "loss.gamma")),
        ],
    )
    def test_place(self, given: dict[str, Any], place: tuple[str, ...]) -> None:
        """An error has the keys of the study's YAML that lead to the value."""
        assert refusal(**given).place == place

    def test_preset_found(self) -> None:
        """A preset outside the space is refused, with its value and what to do."""
        error = refusal(presets=["safe"], space={"optimizer.lr_multiple": LR | {"low": 0.5}})
        assert (error.found, error.next_step) == (
            "0.3",
            "widen the dimension, or leave 'safe' out of presets",
        )

    def test_off_the_grid(self) -> None:
        """A preset between two steps of a grid is outside, too."""
        assert (
            refusal(
                presets=["safe"],
                space={
                    "loss.dice_weight": {"kind": "float", "low": 0.1, "high": 0.85, "step": 0.25}
                },
            ).found
            == "0.4"
        )


class TestAveraging:
    @pytest.mark.parametrize(
        ("given", "place"),
        [
            ({"base": {"loss.kind": "focal", "schedule.swa_from_epoch": 9}}, "base"),
            ({"space": {SWA: {"kind": "int", "low": 2, "high": 9}}}, "space"),
            ({"space": {SWA: {"kind": "int", "low": 9, "high": 12}}, "epochs": 8}, "space"),
            ({"space": {SWA: {"kind": "choice", "choices": [None, 9]}}}, "space"),
            (
                {
                    "base": {"loss.kind": "focal", SWA: 9},
                    "space": {
                        SWA: {"kind": "choice", "choices": [2], "when": {"loss.kind": "ce"}},
                        "loss.kind": {"kind": "choice", "choices": ["ce", "focal"]},
                    },
                },
                "base",
            ),
        ],
    )
    def test_too_late(self, given: dict[str, Any], place: str) -> None:
        """Averaged weights that would start after the last epoch are refused, in base and space."""
        error = refusal(**{"epochs": 8, **given})
        assert (
            error.what
            == "averaging the weights from epoch 9 on would never start in a training of 8 epochs"
        )
        assert (error.where, error.found, error.allowed) == (
            f"study demo, {place} → {SWA}",
            "9, with epochs: 8",
            "1 … 8, or null for no average",
        )

    @pytest.mark.parametrize(
        "given",
        [
            {"base": {"loss.kind": "focal", "schedule.swa_from_epoch": 8}},
            {"space": {SWA: {"kind": "int", "low": 2, "high": 11, "step": 6}}},
            {"space": {SWA: {"kind": "choice", "choices": [None, 8]}}},
            {
                "base": {"loss.kind": "focal", "schedule.swa_from_epoch": 9},
                "space": {SWA: {"kind": "choice", "choices": [None, 8]}},
            },
        ],
    )
    def test_in_time(self, given: dict[str, Any]) -> None:
        """An average from the last epoch on is accepted; a searched value replaces the base's."""
        assert planned(epochs=8, **given).warnings == ()


class TestWarnings:
    def test_none(self) -> None:
        """A study without problems has no warning."""
        assert planned().warnings == ()

    @pytest.mark.parametrize(("trials", "count"), [(1, 1), (2, 1), (3, 0)])
    def test_only_presets(self, trials: int, count: int) -> None:
        """As many presets as trials leave nothing to search, which is a warning."""
        warnings = planned(
            presets=["safe", "recommended"], trials=trials, space={"optimizer.lr_multiple": LR}
        ).warnings
        assert warnings == (f"{trials} trials leave nothing to search after the 2 presets",) * count

    def test_scalar_alpha(self) -> None:
        """Searching one alpha for all classes, a second learning rate, is a warning."""
        (warning,) = planned(
            space={"loss.alpha": {"kind": "float", "low": 0.1, "high": 1}}
        ).warnings
        assert "only rescales the loss, like a second learning rate" in warning
        assert "loss.alpha_tau changes the balance" in warning

    @pytest.mark.parametrize(("kind", "count"), [("auto", 1), ("tpe", 0)])
    def test_pauses_and_hyperband(self, kind: str, count: int) -> None:
        """A pruner that halves trials beside a sampler that pauses them is a warning."""
        warnings = planned(sampler={"kind": kind}, pruner={"kind": "hyperband"}).warnings
        assert sum("hyperband stops trials for good" in warning for warning in warnings) == count

    def test_base_never_settles(self) -> None:
        """A warm-up that is longer than the training is a warning with both epochs."""
        (warning,) = planned(
            epochs=10,
            base={
                "loss": {"kind": "focal", "dice_weight": 0.4},
                "schedule": {"dice_ce_only_epochs": 5, "dice_ramp_epochs": 10},
            },
        ).warnings
        assert warning == (
            "the base reaches its final CE/Dice weights, smooth and clip ratio only at epoch 15 "
            "of 10"
        )

    def test_stages_never_end(self) -> None:
        """A stage that is longer than the training is a warning."""
        (warning,) = planned(
            epochs=10,
            base={
                "loss.kind": "focal",
                "weights": {"method": "inverse_freq", "clip_ratio": 25},
                "schedule": {"stages": [{"before_epoch": 21, "clip_ratio": 4}]},
            },
        ).warnings
        assert "only at epoch 21 of 10" in warning

    def test_preset_never_settles(self) -> None:
        """In a study that is too short for the phases of a preset, the warning names the preset."""
        assert planned(
            epochs=1, presets=["safe"], space={"optimizer.lr_multiple": LR}
        ).warnings == (
            "the preset safe reaches its final CE/Dice weights, smooth and clip ratio only at "
            "epoch 2 of 1",
        )

    def test_settles_in_time(self) -> None:
        """A schedule that settles in the last epoch is no warning."""
        assert (
            planned(
                epochs=15,
                base={
                    "loss": {"kind": "focal", "dice_weight": 0.4},
                    "schedule": {"dice_ce_only_epochs": 5, "dice_ramp_epochs": 10},
                },
            ).warnings
            == ()
        )

    @pytest.mark.parametrize(("epochs", "count"), [(4, 1), (5, 0)])
    def test_mean_of_few(self, epochs: int, count: int) -> None:
        """A mean of the last five of fewer epochs is a warning."""
        assert len(planned(epochs=epochs, metric={"score": "mean_last_5"}).warnings) == count


class TestConfig:
    def test_whole(self) -> None:
        """A configuration is the base under the sampled values, with the study's own settings."""
        config: Any = planned(
            epochs=7,
            metric={"score": "last"},
            base={"loss": {"kind": "focal", "dice_weight": 0.3}, "batch_size": 4},
        ).make_config({"loss.gamma": 1.5}, 3)
        assert isinstance(config, SegmentationConfig)
        assert (
            config.loss.gamma,
            config.loss.kind,
            config.loss.dice_weight,
            config.loss.ce_weight,
        ) == (1.5, "focal", 0.3, 0.7)
        assert (config.objective, config.epochs, config.metric.score, config.batch_size) == (
            "segmentation",
            7,
            "last",
            4,
        )

    def test_same(self) -> None:
        """The same values and number give the same configuration, also from another plan."""
        assert planned().make_config({"loss.gamma": 1.5}, 3) == planned().make_config(
            {"loss.gamma": 1.5}, 3
        )

    def test_seeds(self) -> None:
        """Each trial has its own seed, which follows from the study's seed and its number."""
        seeds = {
            planned(seed=seed).make_config({}, number).seed
            for seed in (0, 1)
            for number in range(50)
        }
        assert len(seeds) == 100

    @pytest.mark.parametrize(
        ("signal", "bound"),
        [({}, 1000.0), ({"max_norm": 50}, 50.0), ({"enabled": False}, NO_BOUND)],
    )
    def test_explosion(self, signal: dict[str, Any], bound: float) -> None:
        """The bound of the gradient norm is the signal's; without the signal there is none."""
        config: Any = planned(signals={"gradient_explosion": signal}).make_config({}, 0)
        assert config.max_grad_norm == bound

    def test_preset(self) -> None:
        """A preset is laid over the base and under the sampled values."""
        plan = planned(
            base={"batch_size": 2, "optimizer": {"weight_decay": 0.01}},
            space={"optimizer.lr_multiple": LR},
        )
        config: Any = plan.make_config({"optimizer.lr_multiple": 7.0}, 0, "safe")
        assert (
            config.batch_size,
            config.loss.dice_weight,
            config.optimizer.lr_multiple,
            config.optimizer.weight_decay,
        ) == (8, 0.4, 7.0, 0.01)

    def test_focal_preset(self) -> None:
        """In a study of gamma a preset is written as focal loss, so that it is in the space."""
        plan = planned(presets=["safe"])
        config: Any = plan.make_config(plan.preset_params("safe"), 0, "safe")
        assert plan.preset_params("safe") == {"loss.gamma": 0.0}
        assert (config.loss.kind, config.loss.gamma, config.loss.alpha_tau) == ("focal", 0.0, 0.0)

    def test_do_not_go_together(self) -> None:
        """Values that exclude each other are an error with study and trial."""
        with pytest.raises(StudyError, match="exclude each other") as caught:
            planned(base={"loss": {"kind": "focal", "alpha": 0.25}}).make_config(
                {"loss.alpha_tau": 0.5}, 7
            )
        assert caught.value.where == "study demo, trial 7, loss"


BY_NAME: dict[str, Any] = {
    "loss.class_alpha.rider": {"kind": "float", "low": 0.5, "high": 20, "log": True},
    "loss.gamma": GAMMA,
}


class TestNamedFactors:
    """One alpha per class, by name: classes belong to the data, so a study may name any."""

    def test_config(self) -> None:
        """A sampled factor is laid over those of the base."""
        plan = planned(
            space=BY_NAME,
            base={"loss": {"kind": "focal", "class_alpha": {"bus": 2.0, "rider": 3.0}}},
        )
        config: Any = plan.make_config({"loss.class_alpha.rider": 7.0, "loss.gamma": 1.0}, 0)
        assert config.loss.class_alpha == {"bus": 2.0, "rider": 7.0}

    def test_preset(self) -> None:
        """A preset has no class by name: its factors are 1, which changes nothing."""
        plan = planned(space=BY_NAME, presets=["untuned"])
        assert plan.preset_params("untuned") == {"loss.class_alpha.rider": 1.0, "loss.gamma": 0.0}
        config: Any = plan.make_config(plan.preset_params("untuned"), 0, "untuned")
        assert (
            config.loss.kind,
            config.loss.gamma,
            config.loss.alpha_tau,
            config.loss.class_alpha,
        ) == ("focal", 0.0, 0.0, {"rider": 1.0})

    def test_first_config(self) -> None:
        """The first configuration has the names that are searched."""
        config: Any = planned(space=BY_NAME).first_config()
        assert config.loss.class_alpha == {"rider": 1.0}

    def test_whole_section(self) -> None:
        """The section itself is refused as a dimension, with the right form."""
        with pytest.raises(StudyError, match="each of them a dimension") as caught:
            planned(space={"loss.class_alpha": {"kind": "float", "low": 0.5, "high": 2}})
        assert caught.value.allowed == "loss.class_alpha.NAME"

    def test_below_a_value(self) -> None:
        """A path below a value is refused."""
        with pytest.raises(StudyError, match=r"unknown hyperparameter 'loss\.gamma\.rider'"):
            planned(space={"loss.gamma.rider": GAMMA})

    def test_without_focal_loss(self) -> None:
        """A factor requires what alpha requires."""
        with pytest.raises(
            StudyError, match=r"loss\.class_alpha\.rider has no effect where loss\.kind is ce"
        ):
            planned(
                space={"loss.class_alpha.rider": BY_NAME["loss.class_alpha.rider"]},
                base={"loss": {"kind": "ce"}},
            )

    def test_zero(self) -> None:
        """A factor of 0, which would drop a class, is refused with the class."""
        with pytest.raises(StudyError, match="factor of class rider"):
            planned(
                space={
                    "loss.class_alpha.rider": {"kind": "float", "low": 0, "high": 2},
                    "loss.gamma": GAMMA,
                }
            )


CONDITIONAL: dict[str, Any] = {
    "loss.gamma": GAMMA | {"when": {"loss.kind": "focal"}},
    "loss.kind": {"kind": "choice", "choices": ["ce", "focal"]},
    "weights.clip_ratio": {
        "kind": "choice",
        "choices": [None, 10],
        "when": {"weights.method": ["inverse_freq", "sqrt_inv_freq"]},
    },
}


WEIGHTED = {"weights.method": "inverse_freq"}


class TestDimensions:
    def test_parents_first(self) -> None:
        """A dimension comes after those in its condition, whatever the order in the file."""
        assert planned(space=CONDITIONAL, base=WEIGHTED).order == (
            "loss.kind",
            "weights.clip_ratio",
            "loss.gamma",
        )

    def test_chosen(self) -> None:
        """A choice decides which dimensions exist."""
        plan = planned(space=CONDITIONAL, base=WEIGHTED)
        assert dimensions(plan, loss__kind="focal") == [
            "loss.kind",
            "weights.clip_ratio",
            "loss.gamma",
        ]
        assert dimensions(plan, loss__kind="ce") == ["loss.kind", "weights.clip_ratio"]

    def test_base(self) -> None:
        """A condition on a value that is not searched depends on the base."""
        space = CONDITIONAL | {
            "weights.clip_ratio": CONDITIONAL["weights.clip_ratio"] | {"choices": [None, 100]}
        }
        for base, expected in (
            ({}, ["loss.kind"]),
            (WEIGHTED, ["loss.kind", "weights.clip_ratio"]),
        ):
            assert (
                dimensions(
                    planned(space=space, base=base, presets=["recommended"]), loss__kind="ce"
                )
                == expected
            )

    def test_read_while_growing(self) -> None:
        """Values that are added while iterating count for the next dimension."""
        plan, params, seen = planned(space=CONDITIONAL, base=WEIGHTED), {}, []
        for path, _ in plan.active_dimensions(plan.starting_tree(None), params):
            params[path] = "focal" if path == "loss.kind" else 10
            seen.append(path)
        assert seen == ["loss.kind", "weights.clip_ratio", "loss.gamma"]

    def test_preset_params(self) -> None:
        """A preset has values only for the dimensions that exist under it."""
        plan = planned(
            space=CONDITIONAL
            | {"weights.clip_ratio": CONDITIONAL["weights.clip_ratio"] | {"choices": [None, 100]}},
            base=WEIGHTED,
        )
        assert plan.preset_params("recommended") == {"loss.kind": "ce", "weights.clip_ratio": 100}
        assert plan.preset_params("untuned") == {"loss.kind": "ce"}


class TestSearchable:
    def test_leaves(self) -> None:
        """Every value of the configuration has a path, and no section has one."""
        paths = set(searchable_paths(SegmentationConfig))
        tree = ConfigTree(SegmentationConfig().model_dump())
        assert {
            "loss.gamma",
            "weights.method",
            "optimizer.lr_multiple",
            "schedule.stages",
            "batch_size",
        } <= paths
        assert not {"loss", "weights", "optimizer", "schedule"} & paths
        for path in paths:
            assert any(f"{leaf}.".startswith(f"{path}.") for leaf in tree), path
        assert {path for path in tree if path.split(".")[0] not in ("data", "model")} <= paths
