"""Every option of loss, schedule, model and optimiser in real trainings: it does what it says, resumes, and can be searched."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from objectives.data.loading import SegmentationData
from objectives.segmentation.config import SegmentationConfig
from objectives.segmentation.train import METRICS, Run
from objectives.training.steps import pool_batches
from objectives.training.validation import validate
from search.planning.plan import Plan, make_plan, searchable_paths
from search.sampling.sampler import TrialSeededSampler, suggest_params
from search.worker.readback import check_used
from spaces.errors import ConfigError, UnusedHyperparameterError
from spaces.loader import load_study, shipped_studies
from spaces.records import EpochRecord
from spaces.study import StudySpec
from tests.contract.training import SMALL, Keeper, Kit, comparable, machine, segmentation

__all__ = ["machine", "segmentation"]

NO_BATCH_NORM = {
    "model.encoder": "tu-test_convnext",
    "model.options": {"encoder_depth": 2, "decoder_channels": [32, 16], "decoder_use_norm": False},
}
"""A model without batch normalization; it has dropout layers, with rate 0 by default."""


def run_of(kit: Kit, changes: dict[str, Any], data: SegmentationData | None = None) -> Run:
    return Run(kit.config(changes), data or kit.prepared, kit.counts, torch.device("cpu"))


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_all_close(found: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


class TestResume:
    @pytest.mark.parametrize(
        "changes",
        [
            {"loss.kind": "soft_ce", "loss.label_smoothing": 0.1},
            {"loss.overlap": "jaccard"},
            {"loss.overlap": "tversky", "loss.tversky_alpha": 0.3, "loss.tversky_beta": 0.7},
            {"loss.overlap": "lovasz"},
            {"loss.kind": "ce_focal", "loss.alpha_tau": 0.5, "loss.dice_reduction": "image"},
            {"loss.normalize": True, "loss.normalize_momentum": 0.7},
            {"loss.normalize": True, "optimizer.accumulate": 3, "batch_size": 4},
            {"loss.kind": "focal", "optimizer.accumulate": 2, "batch_size": 4},
            {"schedule.swa_from_epoch": 2, "epochs": 4},
            {
                "schedule": {"plan": "progressive", "smooth_steps": True, "light_clip_epochs": 1},
                "weights.clip_ratio": 25.0,
            },
            NO_BATCH_NORM | {"model.dropout": 0.3, "schedule.swa_from_epoch": 1},
        ],
        ids=[
            "soft_ce",
            "jaccard",
            "tversky",
            "lovasz",
            "ce_focal",
            "normalize",
            "normalize+accumulate",
            "accumulate",
            "swa",
            "schedules",
            "dropout+swa",
        ],
    )
    def test_bit_for_bit(self, segmentation: Kit, tmp_path: Path, changes: dict[str, Any]) -> None:
        """Each option trains without a broken step, and resumes as if it had never stopped."""
        keeper = Keeper(tmp_path / "state", (2,))
        whole = segmentation.train(changes)
        assert all(record.broken_step is None for record in whole)
        interrupted = segmentation.start(segmentation.config(changes), keeper)
        assert comparable(list(itertools.islice(interrupted, 2))) == comparable(whole[:2])
        interrupted.close()  # type: ignore[attr-defined]
        torch.rand(3)
        assert comparable(segmentation.train(changes, Keeper(keeper.path))) == comparable(whole[1:])


class TestAccumulation:
    EVERY = (
        {},
        {"loss.kind": "focal", "loss.alpha_tau": 0.5, "loss.label_smoothing": 0.1},
        {"loss.kind": "ce_focal", "loss.dice_reduction": "image"},
        {"loss.normalize": True},
        {"loss.dice_weight": 0.0},
    )

    @pytest.mark.parametrize(
        "changes", EVERY, ids=["ce", "focal smoothed", "ce_focal image", "normalize", "no dice"]
    )
    @pytest.mark.parametrize("kind", ["sgd", "adamw"])
    def test_is_the_large_batch(
        self, segmentation: Kit, changes: dict[str, Any], kind: str
    ) -> None:
        """Four batches of 2 make the step that one batch of 8 makes: weights after two epochs and the records' losses, to float32's rounding."""
        changes = NO_BATCH_NORM | {"optimizer.kind": kind, "optimizer.base_lr": 1e-3} | changes
        small, large = (
            run_of(segmentation, changes | batches)
            for batches in ({"batch_size": 2, "optimizer.accumulate": 4}, {"batch_size": 8})
        )
        assert not any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) for module in small.model.modules()
        )
        for _ in range(2):
            ours, theirs = small.next_epoch(), large.next_epoch()
            assert ours.steps == theirs.steps == 2
            for name in ("train_loss", "ce_loss", "dice_loss", "grad_norm_median", "grad_norm_max"):
                assert getattr(ours, name) == (
                    getattr(theirs, name)
                    and pytest.approx(getattr(theirs, name), rel=2e-4, abs=1e-6)
                )
        assert_all_close(weights(small.model), weights(large.model), rtol=1e-3, atol=2e-5)

    def test_to_the_digit(self, segmentation: Kit) -> None:
        """In float64 the step's gradients agree to float64's rounding, and with them the loss."""
        found = []
        for batches in ({"batch_size": 2, "optimizer.accumulate": 4}, {"batch_size": 8}):
            run = run_of(segmentation, NO_BATCH_NORM | batches)
            run.model.double()
            images, target = next(
                iter(run_of(segmentation, {"batch_size": 8}).train_batches.epoch(1))
            )
            group = list(
                zip(
                    images.double().split(run.config.batch_size),
                    target.split(run.config.batch_size),
                    strict=True,
                )
            )
            run.model.train()
            others = pool_batches(run.criterion, run.model, run.model, group)
            assert (others is None) == (len(group) == 1)
            losses = []
            for images_NCHW, target_NHW in group:
                parts = run.criterion(run.model(images_NCHW), target_NHW, others)
                parts.total.backward()
                losses.append(parts.total.detach())
            found.append(
                (
                    torch.stack(losses).sum(),
                    [
                        parameter.grad
                        for parameter in run.model.parameters()
                        if parameter.grad is not None
                    ],
                )
            )
        torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-13, atol=0)
        assert_all_close(*(gradients for _, gradients in found), rtol=1e-8, atol=1e-14)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "changes",
        [{}, {"loss.normalize": True}, NO_BATCH_NORM | {"model.dropout": 0.5}],
        ids=["batch norm", "normalize", "dropout"],
    )
    def test_extra_pass_leaves_no_trace(self, segmentation: Kit, changes: dict[str, Any]) -> None:
        """The pass that gathers the sums leaves weights, batch statistics and random numbers as they were, and sees the dropout that the training will see."""
        run = run_of(segmentation, changes | {"batch_size": 4})
        group = list(itertools.islice(run.train_batches.epoch(1), 2))
        run.model.train()
        before, rng = (
            {name: tensor.clone() for name, tensor in run.model.state_dict().items()},
            torch.get_rng_state(),
        )
        seen: list[Tensor] = []

        def predict(images: Tensor) -> Tensor:
            seen.append(run.predict(images))
            return seen[-1]

        assert pool_batches(run.criterion, run.model, predict, group) is not None
        assert torch.equal(torch.get_rng_state(), rng)
        assert all(
            torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items()
        )
        assert all(parameter.grad is None for parameter in run.model.parameters())
        assert all(
            torch.equal(run.predict(images), first)
            for (images, _), first in zip(group, seen, strict=True)
        )

    @pytest.mark.parametrize(
        ("changes", "passes"),
        [
            ({"loss.dice_weight": 0.0}, 0),
            ({"loss.dice_reduction": "image"}, 0),
            ({"loss.overlap": "jaccard"}, 0),
            ({}, 2),
        ],
    )
    def test_no_pass_for_nothing(
        self, segmentation: Kit, changes: dict[str, Any], passes: int
    ) -> None:
        """Where the labels are enough, the model is not asked; nor for a single batch."""
        run, seen = run_of(segmentation, changes | {"batch_size": 4}), list[Tensor]()
        group = list(itertools.islice(run.train_batches.epoch(1), 2))

        def predict(images: Tensor) -> Tensor:
            seen.append(images)
            return run.predict(images)

        assert pool_batches(run.criterion, run.model, predict, group) is not None
        assert len(seen) == passes
        assert pool_batches(run.criterion, run.model, predict, group[:1]) is None
        assert len(seen) == passes


class TestAveraging:
    def test_mean_of_weights(self, segmentation: Kit) -> None:
        """From the epoch on the mean of the weights is validated; the training itself does not change."""
        without, run = (
            run_of(segmentation, {"epochs": 4}),
            run_of(segmentation, {"epochs": 4, "schedule.swa_from_epoch": 3}),
        )
        plain: list[list[Tensor]] = []
        for epoch in range(1, 5):
            without.next_epoch()
            run.next_epoch()
            plain.append(weights(without.model))
            assert all(
                torch.equal(ours, theirs)
                for ours, theirs in zip(weights(run.model), plain[-1], strict=True)
            )
            counting = run.averager.model_of(epoch)
            assert (counting is run.model) == (epoch < 3)
            if epoch >= 3:
                expected = [
                    torch.stack(tensors).mean(0) for tensors in zip(*plain[2:epoch], strict=True)
                ]
                assert_all_close(weights(counting), expected, rtol=1e-5, atol=1e-7)

    def test_statistics(self, segmentation: Kit) -> None:
        """Batch statistics of the mean weights are the cumulative mean over the epoch's batches."""
        run = run_of(segmentation, {"epochs": 2, "schedule.swa_from_epoch": 1})
        run.next_epoch()
        averaged = run.averager.model_of(1)
        first = next(module for module in averaged.modules() if isinstance(module, nn.BatchNorm2d))
        seen: list[Tensor] = []
        hook = first.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].mean((0, 2, 3)))
        )
        running_mean = first.running_mean
        assert running_mean is not None
        expected_of = running_mean.clone()
        averaged.train()
        with torch.no_grad():
            for images_NCHW, _ in run.train_batches.epoch(1):
                averaged(images_NCHW)
        hook.remove()
        torch.testing.assert_close(expected_of, torch.stack(seen).mean(0), rtol=1e-4, atol=1e-6)

    def test_validated_and_kept(self, segmentation: Kit) -> None:
        """Validation, kept weights and test score are those of the average."""
        run = run_of(
            segmentation, {"epochs": 4, "schedule.swa_from_epoch": 2, "metric.score": "last"}
        )
        record = None
        for epoch in range(1, 5):
            record = run.next_epoch()
            found = validate(
                run.averager.model_of(epoch),
                run.val_batches.epoch(0),
                run.criterion,
                7,
                255,
                METRICS,
            )
            assert (record.val_loss, record.metrics) == (found.loss, found.metrics)
            if record.metric == run.best.metric:
                counting = run.averager.model_of(epoch).state_dict()
                assert all(
                    torch.equal(tensor, counting[name]) for name, tensor in run.best.weights.items()
                )
        assert record is not None
        assert record.test is not None
        test_split = segmentation.prepared.test
        swapped = run_of(
            segmentation, {}, replace(segmentation.prepared, val=test_split)
        ).val_batches
        assert (
            record.test.metric
            == validate(
                run.averager.model_of(4), swapped.epoch(0), run.criterion, 7, 255, METRICS
            ).metrics["miou"]
        )

    def test_best_before_it_began(self, segmentation: Kit) -> None:
        """A best epoch before the averaging began is tested with its own weights, not with the average's."""
        run = run_of(segmentation, {"epochs": 3, "schedule.swa_from_epoch": 3})
        for _ in range(2):
            run.next_epoch()
        kept = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        run.best.weights = kept
        run.best.metric = 1.0  # nothing will be better
        record = run.next_epoch()
        alone = run_of(segmentation, {})
        alone.model.load_state_dict(kept)
        alone.best.weights = kept
        assert record.test == alone.score_test_split()

    def test_never(self, segmentation: Kit) -> None:
        """An epoch beyond the last averages nothing and is not in `used`."""
        records = segmentation.train({"schedule.swa_from_epoch": 9})
        assert [replace(record, used={}) for record in map(steady_clock, records)] == [
            replace(record, used={}) for record in map(steady_clock, segmentation.train())
        ]
        assert "schedule.swa_from_epoch" not in records[0].used


def steady_clock(record: EpochRecord) -> EpochRecord:
    return replace(record, seconds=1.0, samples_per_s=1.0, peak_mib=1.0)


class TestDropout:
    def test_rate(self, segmentation: Kit) -> None:
        """The rate is set on every dropout layer, has an effect in training, and is in `used`."""
        run = run_of(segmentation, NO_BATCH_NORM | {"model.dropout": 0.4})
        assert {module.p for module in run.model.modules() if isinstance(module, nn.Dropout)} == {
            0.4
        }
        assert run.used["model.dropout"] == 0.4
        images = next(iter(run.train_batches.epoch(1)))[0]
        run.model.train()
        assert not torch.equal(run.model(images), run.model(images))
        run.model.eval()
        assert torch.equal(run.model(images), run.model(images))

    def test_searched_zero(self, segmentation: Kit) -> None:
        """A rate of 0 is a rate, and null leaves the architecture's own."""
        assert (
            run_of(segmentation, NO_BATCH_NORM | {"model.dropout": 0.0}).used["model.dropout"]
            == 0.0
        )
        assert run_of(segmentation, NO_BATCH_NORM).used["model.dropout"] is None

    def test_without_layers(self, segmentation: Kit) -> None:
        """A model without dropout is refused with its name and the rate, before the training."""
        with pytest.raises(ConfigError, match="the model has no dropout layer") as caught:
            segmentation.trainer.prepare(segmentation.config({"model.dropout": 0.2}), "cpu")
        assert (caught.value.where, caught.value.found) == (
            "base.model.dropout",
            "unet with tu-test_resnet, dropout 0.2",
        )


FOCAL = {"loss.kind": "focal"}
DICE = {"loss.dice_weight": 0.4}
WEIGHTED = {"weights.method": "sqrt_inv_freq", "weights.clip_ratio": 25.0}


def between(low: float, high: float) -> dict[str, Any]:
    return {"kind": "float", "low": low, "high": high}


def one_of(*choices: Any) -> dict[str, Any]:
    return {"kind": "choice", "choices": list(choices)}


SEARCHED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]] = {
    "loss.kind": (
        one_of("ce", "focal", "ce_focal", "soft_ce"),
        {"weights.method": "uniform"},
        None,
    ),
    "loss.focal_share": (between(0.1, 0.9), {"loss.kind": "ce_focal"}, FOCAL),
    "loss.overlap": (
        one_of("dice", "jaccard", "tversky", "lovasz"),
        DICE,
        {"loss.dice_weight": 0.0},
    ),
    "loss.tversky_alpha": (
        between(0.1, 0.9),
        DICE | {"loss.overlap": "tversky"},
        DICE | {"loss.overlap": "jaccard"},
    ),
    "loss.tversky_beta": (between(0.1, 0.9), DICE | {"loss.overlap": "tversky"}, DICE),
    "loss.normalize": (one_of(True, False), DICE, None),
    "loss.normalize_momentum": (between(0.5, 0.99), {"loss.normalize": True}, {}),
    "loss.smooth": (
        between(0.1, 10),
        DICE | {"loss.overlap": "jaccard"},
        DICE | {"loss.overlap": "lovasz"},
    ),
    "loss.dice_reduction": (one_of("global", "image"), DICE, DICE | {"loss.overlap": "tversky"}),
    "loss.square_denominator": (one_of(True, False), DICE, {"loss.dice_weight": 0.0}),
    "loss.label_smoothing": (between(0.0, 0.3), FOCAL, None),
    "loss.gamma": (between(0, 5), {"loss.kind": "ce_focal"}, {"loss.kind": "soft_ce"}),
    "loss.class_alpha.digit_3": (
        between(0.5, 9),
        FOCAL | {"loss.class_alpha": {"digit_1": 2.0}},
        {"loss.kind": "ce"},
    ),
    "weights.method": (
        one_of("uniform", "sqrt_inv_freq", "inverse_freq"),
        FOCAL,
        {"loss.kind": "soft_ce"},
    ),
    "schedule.smooth_steps": (one_of(True, False), DICE, {"loss.dice_weight": 0.0}),
    "schedule.light_clip_epochs": (
        {"kind": "int", "low": 0, "high": 2},
        WEIGHTED,
        {"weights.method": "uniform"},
    ),
    "schedule.light_clip_ratio": (
        between(1.5, 8),
        WEIGHTED | {"schedule.light_clip_epochs": 1},
        WEIGHTED,
    ),
    "schedule.plan": (one_of("none", "progressive"), DICE, None),
    "schedule.dice_ce_only_epochs": (
        {"kind": "int", "low": 0, "high": 2},
        DICE | {"loss.overlap": "lovasz"},
        {"loss.dice_weight": 0.0},
    ),
    "schedule.swa_from_epoch": (one_of(None, 1, 2, 3), {}, None),
    "model.dropout": (between(0.0, 0.5), NO_BATCH_NORM, None),
    "optimizer.accumulate": ({"kind": "int", "low": 1, "high": 4}, {"batch_size": 4}, None),
    "optimizer.weight_decay": (between(0.0, 0.1), {}, None),
    "optimizer.momentum": (
        between(0.0, 0.95),
        {"optimizer.kind": "sgd"},
        {"optimizer.kind": "adamw", "optimizer.base_lr": 1e-3},
    ),
}
"""Path → a dimension, a base on which it takes effect, and one on which it cannot (None: there is none)."""


def planned(path: str, dimension: dict[str, Any], base: dict[str, Any]) -> Plan:
    small = {
        key: value
        for key, value in SMALL["segmentation"].items()
        if key not in ("epochs", "seed", "loss", "weights")
    }
    weighted = (
        {"weights.method": "sqrt_inv_freq"}
        if "weights.method" not in base and path != "weights.method"
        else {}
    )
    spec = {
        "name": "one",
        "epochs": 3,
        "trials": 9,
        "base": small | weighted | base,
        "space": {path: dimension},
        "sampler": {"kind": "random"},
    }
    return make_plan(StudySpec.model_validate(spec))


def values_of(plan: Plan, path: str) -> list[Any]:
    """Every choice, or three drawn values."""
    dimension = plan.spec.space[path]
    if hasattr(dimension, "choices"):
        return list(dimension.choices)
    sampler = TrialSeededSampler(plan.spec)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)
    return [suggest_params(study.ask(), plan)[path] for _ in range(3)]


class TestEveryDimension:
    @pytest.mark.parametrize("path", SEARCHED)
    def test_reaches_the_training(self, segmentation: Kit, path: str) -> None:
        """A study of it alone: each of its values is what a real training says it used."""
        dimension, base, _ = SEARCHED[path]
        plan = planned(path, dimension, base)
        for number, value in enumerate(values_of(plan, path)):
            training = segmentation.start(plan.make_config({path: value}, number))
            record = next(training)
            training.close()  # type: ignore[attr-defined]
            check_used({path: value}, record.used)
            assert record.broken_step is None

    @pytest.mark.parametrize(
        "path", [path for path, (_, _, without) in SEARCHED.items() if without is not None]
    )
    def test_refused_where_it_cannot(self, segmentation: Kit, path: str) -> None:
        """Where it cannot take effect, a trial that sampled it ends with an error that names it, and not as one of several equal trials."""
        dimension, possible, base = SEARCHED[path]
        assert base is not None
        value = values_of(planned(path, dimension, possible), path)[-1]
        training = segmentation.start(segmentation.config(base | {path: value}))
        record = next(training)
        training.close()  # type: ignore[attr-defined]
        with pytest.raises(UnusedHyperparameterError, match=path):
            check_used({path: value}, record.used)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("loss.focal_share", 0.0),
            ("loss.focal_share", 1.0),
            ("loss.tversky_alpha", -0.1),
            ("loss.tversky_beta", -0.1),
            ("loss.normalize_momentum", 1.0),
            ("loss.label_smoothing", 1.0),
            ("loss.overlap", "dise"),
            ("loss.kind", "focall"),
            ("schedule.light_clip_epochs", -1),
            ("schedule.light_clip_ratio", 0.5),
            ("schedule.plan", "regressive"),
            ("schedule.swa_from_epoch", 0),
            ("model.dropout", 1.0),
            ("optimizer.accumulate", 0),
            ("optimizer.weight_decay", -1e-3),
        ],
    )
    def test_out_of_range(self, segmentation: Kit, path: str, value: Any) -> None:
        """A value that cannot be is refused where the configuration is read, by its name."""
        with pytest.raises(ValidationError, match=path.split(".")[-1]):
            segmentation.config({path: value})

    def test_dropout_of_a_model_without(self, segmentation: Kit) -> None:
        """A dropout rate for a model that has none ends the trial at once, with words."""
        plan = planned("model.dropout", between(0.1, 0.5), {})
        with pytest.raises(ConfigError, match="no dropout layer"):
            next(segmentation.start(plan.make_config({"model.dropout": 0.2}, 0)))

    def test_all_new_ones_are_here(self) -> None:
        """Every leaf of loss, and of schedule but the stages, is a dimension somewhere in this table or in a shipped study."""
        shipped = {path for name in shipped_studies() for path in load_study(name).space}
        leaves = {
            path
            for path in searchable_paths(SegmentationConfig)
            if path.startswith(("loss.", "schedule.", "optimizer.", "weights."))
        }
        elsewhere = {
            "schedule.stages",
            "schedule.lr",
            "schedule.lr_warmup_epochs",
            "schedule.dice_ramp_epochs",
            "loss.ce_weight",
            "loss.alpha",
            "loss.class_alpha",
            "optimizer.kind",
            "optimizer.base_lr",
            "weights.beta",
        }
        assert leaves - shipped - set(SEARCHED) == elsewhere - shipped
