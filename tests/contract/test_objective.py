"""Contract of every objective, and of segmentation in particular."""

from __future__ import annotations

import gc
import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from objectives.data.loading import SegmentationData
from objectives.losses.class_weights import class_weights
from objectives.registry import OBJECTIVES
from objectives.segmentation.train import Run
from search.planning.plan import Plan, make_plan
from search.pruners.signals import find_divergence
from search.sampling.sampler import TrialSeededSampler, suggest_params
from search.worker.readback import check_used
from spaces.config import WeightsConfig
from spaces.errors import ConfigError, DataError
from spaces.loader import load_study, shipped_studies
from spaces.records import EpochRecord, best_record
from spaces.thresholds import SignalsConfig
from tests.contract.training import (
    DIGITS,
    SMALL,
    Keeper,
    Kit,
    comparable,
    machine,
    make_kit,
    segmentation,
    split,
)

__all__ = ["machine", "segmentation"]

RESTLESS = {"epochs": 6, "optimizer.lr_multiple": 20.0}
"""A rate at which the validation goes up and down."""


@pytest.fixture(scope="module", params=list(OBJECTIVES))
def kit(request: pytest.FixtureRequest) -> Kit:
    """Each objective in turn."""
    return make_kit(request.param)


@pytest.fixture(scope="module")
def kits(segmentation: Kit) -> dict[str, Kit]:
    """All of them by name."""
    return {"segmentation": segmentation} | {
        name: make_kit(name) for name in OBJECTIVES if name != "segmentation"
    }


@pytest.fixture(scope="module")
def records(kit: Kit) -> list[EpochRecord]:
    """Records of a training."""
    return kit.train()


@pytest.fixture(scope="module")
def restless(segmentation: Kit) -> list[EpochRecord]:
    """A training whose validation goes up and down."""
    return segmentation.train(RESTLESS)


@pytest.fixture
def only_new() -> Iterator[None]:
    """The garbage collector sees only what comes from here on."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def alive() -> int:
    """How many models, parts of models and optimisers the garbage collector sees."""
    gc.collect()
    return sum(
        issubclass(type(thing), torch.nn.Module | torch.optim.Optimizer)
        for thing in gc.get_objects()
    )


def steady(record: EpochRecord) -> tuple[Any, ...]:
    """The schedule of an epoch."""
    return record.ce_weight, record.dice_weight, record.smooth, record.lr


class TestRecords:
    def test_order(self, records: list[EpochRecord]) -> None:
        """One record an epoch, counted from 1."""
        assert [record.epoch for record in records] == [1, 2, 3]

    def test_whole(self, kit: Kit, records: list[EpochRecord]) -> None:
        """Every metric that a study may name is in every record, the study's own among them, and a value for every class."""
        for record in records:
            assert record.metrics.keys() == OBJECTIVES[kit.name].metrics.keys()
            assert record.metric == record.metrics[kit.config().metric.name]
            assert len(record.class_metric) == len(kit.counts.names)
            assert all(
                math.isfinite(value)
                for value in (record.train_loss, record.val_loss, record.val_ce, record.metric)
            )
            assert 0 < record.grad_norm_median <= record.grad_norm_max
            assert record.steps > 0
            assert min(record.seconds, record.samples_per_s, record.peak_mib) > 0
            assert record.broken_step is None

    def test_data_figures(self, kit: Kit, records: list[EpochRecord]) -> None:
        """Each epoch has the classes that it trained on, and figures of its images, if they are some."""
        for record in records:
            assert len(record.target_shares) == len(kit.counts.names)
            assert sum(record.target_shares) == pytest.approx(1)
            assert record.skipped_steps == 0
            if kit.name == "segmentation":
                assert record.inputs is not None
                assert record.val_inputs is not None
                assert 0.5 < record.inputs.deviation[0] < 2
                assert record.inputs.constant == 0
                assert record.batch_norm_samples == kit.config().batch_size
            else:
                assert (record.inputs, record.batch_norm_samples) == (None, None)

    @pytest.mark.parametrize("name", ["macro_f1", "val_ce"])
    def test_chosen_metric(self, kit: Kit, name: str) -> None:
        """The metric is the one that the study names."""
        direction = OBJECTIVES[kit.name].metrics[name]
        (record,) = kit.train({"epochs": 1, "metric.name": name, "metric.direction": direction})
        assert record.metric == record.metrics[name]
        assert record.test is not None

    def test_plain_data(self, records: list[EpochRecord]) -> None:
        """A record is plain data, ready for JSON, and comes back the same."""
        for record in records:
            assert repr(EpochRecord.from_dict(json.loads(json.dumps(record.as_dict())))) == repr(
                record
            )

    def test_test_score(self, records: list[EpochRecord]) -> None:
        """The last record, and no other, has the test score."""
        assert [record.test is not None for record in records] == [False, False, True]
        test = records[-1].test
        assert test is not None
        assert len(test.class_metric) == len(records[-1].class_metric)

    def test_loss_adds_up(self, records: list[EpochRecord]) -> None:
        """The total is the sum of the parts, with the epoch's CE/Dice weights."""
        for record in records:
            assert record.train_loss == pytest.approx(
                record.ce_weight * record.ce_loss + record.dice_weight * (record.dice_loss or 0),
                rel=1e-5,
            )

    def test_learns(self, records: list[EpochRecord]) -> None:
        """The loss falls."""
        assert records[-1].train_loss < records[0].train_loss

    def test_used(self, records: list[EpochRecord]) -> None:
        """What was used is read back, the same in every record, with the machine that used it."""
        assert all(record.used == records[0].used for record in records)
        assert {
            "environment.device",
            "environment.threads",
            "environment.torch",
            "environment.classes",
        } <= records[0].used.keys()
        assert (records[0].used["environment.device"], records[0].used["environment.threads"]) == (
            "cpu",
            1,
        )


class TestDeterminism:
    def test_twice(self, kit: Kit, records: list[EpochRecord]) -> None:
        """The same configuration gives the same records, whatever was trained or drawn in between."""
        kit.train({"epochs": 1, "seed": 77})
        torch.rand(3)
        assert comparable(kit.train()) == comparable(records)

    def test_side_by_side(self, kit: Kit, records: list[EpochRecord]) -> None:
        """Two trainings that take turns do not disturb each other."""
        turns = list(
            zip(
                kit.start(kit.config()),
                kit.start(kit.config({"seed": 6, "epochs": 2})),
                strict=False,
            )
        )
        assert comparable([ours for ours, _ in turns]) == comparable(records[:2])

    def test_seed(self, kit: Kit, records: list[EpochRecord]) -> None:
        """Another seed gives another training."""
        assert kit.train({"seed": 6, "epochs": 1})[0].train_loss != records[0].train_loss

    @pytest.mark.parametrize("seed", [0, 2**32 - 1])
    def test_any_seed(self, kit: Kit, seed: int) -> None:
        """Any seed that a study derives will do."""
        assert kit.train({"seed": seed, "epochs": 1})[0].epoch == 1

    def test_prepare(self, kit: Kit) -> None:
        """Preparing the data draws nothing from the generators."""
        torch.manual_seed(1)
        before = torch.get_rng_state()
        kit.trainer.prepare(kit.config(), "cpu")
        assert torch.equal(torch.get_rng_state(), before)


class TestResume:
    @pytest.mark.parametrize(
        ("changes", "epoch"),
        [
            ({}, 1),
            (
                {
                    "optimizer.kind": "adamw",
                    "optimizer.base_lr": 0.01,
                    "optimizer.weight_decay": 0.01,
                    "optimizer.accumulate": 2,
                    "batch_size": 4,
                    "metric.score": "last",
                },
                1,
            ),
            (
                {
                    "schedule": {
                        "dice_ce_only_epochs": 1,
                        "dice_ramp_epochs": 1,
                        "lr": "cosine",
                        "stages": [{"before_epoch": 3, "smooth": 5}],
                    }
                },
                2,
            ),
            ({"optimizer.lr_multiple": 20.0, "epochs": 6, "early_stopping_patience": 2}, 2),
        ],
    )
    def test_bit_for_bit(
        self, kit: Kit, tmp_path: Path, changes: dict[str, Any], epoch: int
    ) -> None:
        """A resumed training yields its checkpoint's epoch again, then what an uninterrupted one does."""
        keeper = Keeper(tmp_path / "state", (epoch,))
        whole = kit.train(changes)
        broken_off = kit.start(kit.config(changes), keeper)
        assert comparable(list(itertools.islice(broken_off, epoch))) == comparable(whole[:epoch])
        broken_off.close()  # type: ignore[attr-defined]
        torch.rand(3)
        assert comparable(kit.train(changes, Keeper(keeper.path))) == comparable(whole[epoch - 1 :])

    def test_after_the_end(self, kit: Kit, tmp_path: Path, records: list[EpochRecord]) -> None:
        """A training that is resumed after its last epoch yields that record again, and nothing else."""
        keeper = Keeper(tmp_path / "state", (3,))
        kit.train(checkpoints=keeper)
        assert comparable(kit.train(checkpoints=keeper)) == comparable(records[-1:])

    def test_written_before_yielded(self, kit: Kit, tmp_path: Path) -> None:
        """The state of an epoch is written before its record is yielded; `due` is called once per epoch."""
        keeper = Keeper(tmp_path / "state", (1, 2))
        for record in kit.start(kit.config({"epochs": 2}), keeper):
            assert keeper.latest() is not None
            assert keeper.asked == list(range(1, record.epoch + 1))

    def test_no_code(self, kit: Kit, tmp_path: Path) -> None:
        """A checkpoint contains tensors and plain data only: it loads with `weights_only`."""
        keeper = Keeper(tmp_path / "state", (1,))
        kit.train({"epochs": 1}, keeper)
        assert torch.load(keeper.path, weights_only=True)["record"]["epoch"] == 1


class TestClose:
    def test_ends(self, kit: Kit) -> None:
        """A closed training yields nothing more."""
        training = kit.start(kit.config())
        next(training)
        training.close()  # type: ignore[attr-defined]
        assert list(training) == []

    @pytest.mark.usefixtures("only_new")
    def test_freed(self, kit: Kit) -> None:
        """Its model and its optimiser are gone with it."""
        training = kit.start(kit.config())
        next(training)
        assert alive() > 1
        training.close()  # type: ignore[attr-defined]
        assert alive() == 0


class TestData:
    def test_counts(self, kit: Kit) -> None:
        """The counts are those of the training data, the same each time."""
        again = kit.trainer.count_classes(kit.config())
        assert again == kit.counts
        assert sum(kit.counts.counts) > 0
        assert len(set(kit.counts.names)) == len(kit.counts.names)

    def test_fingerprint(self, kit: Kit) -> None:
        """A fingerprint stays while only the training changes, and changes with the data."""
        marks = [
            kit.trainer.fingerprint(kit.config(changes))
            for changes in ({}, {"loss.dice_weight": 0.1, "seed": 9, "epochs": 9}, {"data.seed": 1})
        ]
        assert marks[0] == marks[1] != marks[2]

    def test_data_key(self, kit: Kit) -> None:
        """So does the key by which a worker knows that it must prepare again."""
        keys = [
            OBJECTIVES[kit.name].data_key(kit.config(changes))
            for changes in ({}, {"loss.dice_weight": 0.1, "seed": 9}, {"data.seed": 1})
        ]
        assert keys[0] == keys[1] != keys[2]


class TestStudies:
    """The shipped studies reach the training with all that they sample."""

    @staticmethod
    def first(kits: dict[str, Kit], config: Any) -> EpochRecord:
        """The first record of a training."""
        training = kits[config.objective].start(config)
        record = next(training)
        training.close()  # type: ignore[attr-defined]
        return record

    @staticmethod
    def small(name: str, changes: dict[str, Any]) -> Plan:
        """A shipped study on little data."""
        kind = load_study(name).objective
        model = (
            {}
            if kind == "segmentation"
            else {f"base.model.{key}": value for key, value in SMALL[kind]["model"].items()}
        )
        return make_plan(
            load_study(name, {"base.data": SMALL[kind]["data"], "epochs": 3} | model | changes)
        )

    @pytest.mark.parametrize("name", sorted(shipped_studies()))
    def test_presets(self, kits: dict[str, Kit], name: str) -> None:
        """Every preset's place in the space is what the training used."""
        plan = self.small(name, {})
        for number, preset in enumerate(plan.spec.presets):
            params = plan.preset_params(preset)
            record = self.first(kits, plan.make_config(params, number, preset))
            check_used(params, record.used)
            assert record.broken_step is None

    @pytest.mark.parametrize("name", sorted(shipped_studies()))
    def test_sampled(self, kits: dict[str, Kit], name: str) -> None:
        """So is whatever the sampler draws, of each choice and each condition some."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        plan = self.small(name, {"sampler.kind": "random"})
        study = optuna.create_study(sampler=TrialSeededSampler(plan.spec))
        for number in range(3):
            params = suggest_params(study.ask(), plan)
            check_used(params, self.first(kits, plan.make_config(params, number)).used)


class TestEarlyStopping:
    @pytest.mark.parametrize("patience", [1, 2])
    def test_stops(self, segmentation: Kit, restless: list[EpochRecord], patience: int) -> None:
        """The training ends after so many epochs without a lower validation loss, and the last record has the test score."""
        losses = [record.val_loss for record in restless]
        gains = [epoch for epoch, loss in enumerate(losses) if loss == min(losses[: epoch + 1])]
        stop = next(
            epoch
            for epoch in range(len(losses))
            if epoch - max(gain for gain in gains if gain <= epoch) >= patience
        )
        assert stop < len(losses) - 1

        found = segmentation.train(RESTLESS | {"early_stopping_patience": patience})
        assert [(record.train_loss, record.val_loss) for record in found] == [
            (record.train_loss, record.val_loss) for record in restless[: stop + 1]
        ]
        assert found[-1].epoch == stop + 1
        assert found[-1].test is not None


class TestKeptWeights:
    def test_best(self, segmentation: Kit, restless: list[EpochRecord]) -> None:
        """Where the best epoch is the score, the weights of that epoch are tested."""
        best = best_record(restless, "maximize").epoch
        assert best < len(restless)
        assert restless[-1].test == segmentation.train(RESTLESS | {"epochs": best})[-1].test

    def test_last(self, segmentation: Kit, restless: list[EpochRecord]) -> None:
        """Where the last epoch is the score, those of the last are."""
        last = segmentation.train(RESTLESS | {"metric.score": "last"})
        assert comparable(last)[:-1] == comparable(restless)[:-1]
        assert last[-1].test != restless[-1].test


class TestAccumulation:
    def test_steps(self, segmentation: Kit) -> None:
        """An optimiser step takes so many batches, and what is left at the end of an epoch makes one more."""
        (record,) = segmentation.train({"epochs": 1, "batch_size": 2, "optimizer.accumulate": 3})
        assert record.steps == 3
        assert record.used["optimizer.accumulate"] == 3

    @pytest.mark.parametrize(("accumulate", "steps"), [(4, 1), (3, 2), (8, 1)])
    def test_mean(self, segmentation: Kit, accumulate: int, steps: int) -> None:
        """The gradient is the mean over the batches: of equal batches it is that of one, also where fewer are left at the end."""
        train = segmentation.prepared.train
        same = split(train.images_NCHW[:1].repeat(8, 1, 1, 1), train.target_NHW[:1].repeat(8, 1, 1))
        one = split(same.images_NCHW[:2], same.target_NHW[:2])
        changes = {"epochs": 1, "batch_size": 2, "optimizer.lr_multiple": 1e-9}
        (alone,) = segmentation.train(changes, data=replace(segmentation.prepared, train=one))
        (gathered,) = segmentation.train(
            changes | {"optimizer.accumulate": accumulate},
            data=replace(segmentation.prepared, train=same),
        )
        assert gathered.steps == steps
        assert (gathered.grad_norm_median, gathered.grad_norm_max) == (
            pytest.approx(alone.grad_norm_max, rel=1e-4),
        ) * 2


class TestBroken:
    @pytest.fixture
    def poisoned(self, segmentation: Kit) -> Callable[[float], SegmentationData]:
        """The training data with one value in one scene replaced."""

        def poison(value: float) -> SegmentationData:
            train = segmentation.prepared.train
            broken = split(train.images_NCHW.clone(), train.target_NHW)
            broken.images_NCHW[7, 0, 10, 10] = value
            return replace(segmentation.prepared, train=broken)

        return poison

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_data(
        self,
        segmentation: Kit,
        poisoned: Callable[[float], SegmentationData],
        tmp_path: Path,
        value: float,
    ) -> None:
        """A value in the data that is no number breaks the step that meets it: its record is the last, has no metric and no checkpoint, and fires the signal."""
        keeper = Keeper(tmp_path / "state", (1, 2, 3))
        (record,) = segmentation.train({"batch_size": 4}, keeper, poisoned(value))
        assert record.broken_step in (1, 2, 3, 4)
        assert record.steps == record.broken_step
        assert math.isnan(record.train_loss)
        assert math.isnan(record.metric)
        assert record.class_metric == (None,) * 7
        assert record.test is None
        assert keeper.latest() is None
        found = find_divergence([record], SignalsConfig(), "maximize")
        assert found is not None
        assert (found.signal, found.step) == ("nonfinite_loss", record.broken_step)

    def test_weights_stay(
        self, segmentation: Kit, poisoned: Callable[[float], SegmentationData]
    ) -> None:
        """The broken step is not applied: the weights are those of the step before."""
        run = Run(
            segmentation.config({"batch_size": 16}),
            poisoned(math.nan),
            segmentation.counts,
            torch.device("cpu"),
        )
        before = [parameter.detach().clone() for parameter in run.model.parameters()]
        assert run.next_epoch().broken_step == 1
        assert all(
            torch.equal(parameter, old)
            for parameter, old in zip(run.model.parameters(), before, strict=True)
        )

    def test_weights_move(self, segmentation: Kit) -> None:
        """A step that is not broken is applied."""
        run = Run(
            segmentation.config({"batch_size": 16}),
            segmentation.prepared,
            segmentation.counts,
            torch.device("cpu"),
        )
        before = [parameter.detach().clone() for parameter in run.model.parameters()]
        assert run.next_epoch().broken_step is None
        assert not all(
            torch.equal(parameter, old)
            for parameter, old in zip(run.model.parameters(), before, strict=True)
        )

    def test_later_step(
        self, segmentation: Kit, poisoned: Callable[[float], SegmentationData]
    ) -> None:
        """The steps before it have been made, and the weights are numbers."""
        run = Run(
            segmentation.config({"batch_size": 4, "seed": 1}),
            poisoned(math.nan),
            segmentation.counts,
            torch.device("cpu"),
        )
        record = run.next_epoch()
        assert record.broken_step is not None
        assert record.broken_step > 1
        assert all(torch.isfinite(parameter).all() for parameter in run.model.parameters())
        assert len(run.optimizer.state) > 0

    def test_bound(self, segmentation: Kit) -> None:
        """A gradient norm over its bound breaks the step, although the loss is a number."""
        (record,) = segmentation.train({"max_grad_norm": 1e-6})
        assert record.broken_step == 1
        assert math.isfinite(record.train_loss)
        assert record.grad_norm_max > 1e-6
        found = find_divergence(
            [record],
            SignalsConfig.model_validate({"gradient_explosion": {"max_norm": 1e-6}}),
            "maximize",
        )
        assert found is not None
        assert (found.signal, found.step) == ("gradient_explosion", 1)

    @pytest.mark.parametrize("bound", [1000.0, 1e300])
    def test_absurd_rate(self, segmentation: Kit, bound: float) -> None:
        """An absurd rate without clipping ends in records, not in a traceback, whether the signal of explosions is on or off."""
        records = segmentation.train(
            {"optimizer.lr_multiple": 1e6, "optimizer.grad_clip_norm": None, "max_grad_norm": bound}
        )
        assert [record.epoch for record in records] == list(range(1, len(records) + 1))
        assert all(record.broken_step is None for record in records[:-1])
        assert len(records) == 3 or records[-1].broken_step is not None

    def test_mask(self, segmentation: Kit) -> None:
        """A value in a validation mask that is not a class is reported with the number of its pixels."""
        val = segmentation.prepared.val
        broken = split(val.images_NCHW, val.target_NHW.clone())
        broken.target_NHW[0, :3, :3] = 200
        with pytest.raises(DataError, match="targets contain values that are no class") as caught:
            segmentation.train(data=replace(segmentation.prepared, val=broken))
        assert (caught.value.found, caught.value.allowed) == ("9 labels", "0 … 6 or 255")

    def test_nothing_valid(self, segmentation: Kit) -> None:
        """Training data that are ignored altogether give a loss of 0 and no NaN in it."""
        train = segmentation.prepared.train
        ignored = split(train.images_NCHW, torch.full_like(train.target_NHW, 255))
        records = segmentation.train(
            {"epochs": 1}, data=replace(segmentation.prepared, train=ignored)
        )
        assert (records[0].train_loss, records[0].grad_norm_max, records[0].broken_step) == (
            0.0,
            0.0,
            None,
        )


class TestSchedule:
    def test_warmup(self, segmentation: Kit) -> None:
        """Warm-ups of Dice and of the rate show in the records, epoch by epoch."""
        changes = {
            "epochs": 5,
            "loss.smooth": 1.0,
            "optimizer.base_lr": 0.1,
            "schedule": {"dice_ce_only_epochs": 1, "dice_ramp_epochs": 2, "lr_warmup_epochs": 2},
        }
        records = segmentation.train(changes)
        assert [steady(record) for record in records] == [
            pytest.approx(row)
            for row in [
                (1, 0, 1, 0.05),
                (0.8, 0.2, 1, 0.1),
                (0.6, 0.4, 1, 0.1),
                (0.6, 0.4, 1, 0.1),
                (0.6, 0.4, 1, 0.1),
            ]
        ]
        assert [record.settled for record in records] == [False, False, True, True, True]
        assert [record.dice_loss is None for record in records] == [
            True,
            False,
            False,
            False,
            False,
        ]

    def test_stages(self, segmentation: Kit) -> None:
        """So do stages, the class weights' ratio among them; the values that are used are the final ones."""
        stages = [
            {"before_epoch": 2, "dice_weight": 0.0, "lr_multiple": 0.5, "clip_ratio": 2.0},
            {"before_epoch": 3, "dice_weight": 0.2, "smooth": 5.0},
        ]
        records = segmentation.train(
            {
                "loss.smooth": 1.0,
                "optimizer.base_lr": 0.1,
                "weights.clip_ratio": 4.0,
                "schedule.stages": stages,
            }
        )
        assert [steady(record) for record in records] == [
            pytest.approx(row) for row in [(1, 0, 5, 0.05), (0.8, 0.2, 5, 0.1), (0.6, 0.4, 1, 0.1)]
        ]
        assert [record.settled for record in records] == [False, False, True]
        for record in records:
            assert [
                record.used[f"loss.{name}"] for name in ("ce_weight", "dice_weight", "smooth")
            ] == [0.6, 0.4, 1.0]
            assert record.used["weights.clip_ratio"] == 4.0

    def test_weight_ratio(self, segmentation: Kit) -> None:
        """The ratio that is recorded is that of the class weights which the epoch was trained with."""
        records = segmentation.train(
            {"weights.clip_ratio": 4.0, "schedule.stages": [{"before_epoch": 3, "clip_ratio": 2.0}]}
        )
        light, final = (
            class_weights(
                segmentation.counts, WeightsConfig(method="sqrt_inv_freq", clip_ratio=ratio)
            ).ratio
            for ratio in (2.0, 4.0)
        )
        assert light < final
        assert [record.weight_ratio for record in records] == [
            pytest.approx(ratio) for ratio in (light, light, final)
        ]

    def test_cosine(self, segmentation: Kit) -> None:
        """A cosine falls from the full rate and never reaches 0."""
        rates = [
            record.lr
            for record in segmentation.train({"optimizer.base_lr": 0.1, "schedule.lr": "cosine"})
        ]
        assert rates == pytest.approx(
            [
                0.1,
                0.1 * 0.5 * (1 + math.cos(math.pi / 3)),
                0.1 * 0.5 * (1 + math.cos(2 * math.pi / 3)),
            ]
        )

    def test_rate_applied(self, segmentation: Kit) -> None:
        """The rate of an epoch is the one that its steps are made with: next to none in the first moves nothing, the full one does."""
        stages = [{"before_epoch": 2, "lr_multiple": 1e-12}]
        run = Run(
            segmentation.config({"schedule.stages": stages}),
            segmentation.prepared,
            segmentation.counts,
            torch.device("cpu"),
        )
        moved = []
        for _ in range(2):
            before = [parameter.detach().clone() for parameter in run.model.parameters()]
            assert run.next_epoch().lr == run.optimizer.param_groups[0]["lr"]
            moved.append(
                max(
                    float((after.detach() - old).abs().max())
                    for after, old in zip(run.model.parameters(), before, strict=True)
                )
            )
        assert moved[0] < 1e-9
        assert moved[1] > 1e-3

    def test_comparable_validation(self, segmentation: Kit) -> None:
        """The validation loss uses the final CE/Dice weights in every epoch, so that epochs are comparable."""
        changes = {
            "epochs": 2,
            "optimizer.lr_multiple": 1e-9,
            "schedule": {"dice_ce_only_epochs": 1},
        }
        first, second = segmentation.train(changes)
        assert (first.dice_weight, second.dice_weight) == (0, 0.4)
        final = segmentation.train(changes | {"schedule": {}})
        assert (first.val_loss, second.val_loss) == (final[0].val_loss, final[1].val_loss)


class TestClipping:
    def test_share(self, segmentation: Kit) -> None:
        """The share of clipped steps, and the norms before clipping."""
        (free,) = segmentation.train({"epochs": 1})
        (clipped,) = segmentation.train({"epochs": 1, "optimizer.grad_clip_norm": 1e-3})
        assert (free.clipped_share, clipped.clipped_share) == (0.0, 1.0)
        assert clipped.grad_norm_max > 0.1
        assert clipped.used["optimizer.grad_clip_norm"] == 1e-3


class TestModels:
    @pytest.mark.parametrize(
        ("architecture", "options"),
        [
            ("linknet", {}),
            ("FPN", {"decoder_dropout": 0.5}),
            ("unet", {"encoder_depth": 3, "decoder_channels": [32, 16, 8]}),
        ],
    )
    def test_by_name(self, segmentation: Kit, architecture: str, options: dict[str, Any]) -> None:
        """Any architecture of segmentation_models_pytorch trains, dropout included, twice to the same numbers."""
        model = {"architecture": architecture, "options": options}
        config = OBJECTIVES["segmentation"].config.model_validate(
            SMALL["segmentation"] | {"epochs": 1, "model": model}
        )
        data = segmentation.trainer.prepare(config, "cpu")
        first, second = (
            list(segmentation.start(config, data=data)),
            list(segmentation.start(config, data=data)),
        )
        assert math.isfinite(first[0].metric)
        assert comparable(first) == comparable(second)

    @pytest.mark.parametrize(
        ("model", "what", "where"),
        [
            (
                {"architecture": "unett"},
                "unknown architecture 'unett' (did you mean 'unet'?)",
                "base.model.architecture",
            ),
            (
                {"encoder": "resnet19"},
                "unknown encoder 'resnet19' (did you mean 'resnet1",
                "base.model.encoder",
            ),
            ({"encoder": "tu-no_such_model"}, "the model cannot be built", "base.model"),
            ({"encoder": ""}, "unknown encoder ''", "base.model.encoder"),
            ({"options": {"encoder_dept": 2}}, "the model cannot be built", "base.model"),
            (
                {"options": {"encoder_depth": 2, "decoder_channels": [32]}},
                "the model cannot be built",
                "base.model",
            ),
        ],
    )
    def test_unknown(self, segmentation: Kit, model: dict[str, Any], what: str, where: str) -> None:
        """A model that cannot be built is refused before the training, with the nearest name where it is one."""
        config = OBJECTIVES["segmentation"].config.model_validate(
            SMALL["segmentation"] | {"model": model}
        )
        with pytest.raises(ConfigError) as caught:
            segmentation.trainer.prepare(config, "cpu")
        assert caught.value.what.startswith(what)
        assert caught.value.where == where
        assert caught.value.allowed

    @pytest.mark.parametrize(
        ("size", "options", "stride"),
        [(34, None, 4), (40, {"encoder_depth": 4, "decoder_channels": [32, 16, 8, 8]}, 16)],
    )
    def test_size(
        self, segmentation: Kit, size: int, options: dict[str, Any] | None, stride: int
    ) -> None:
        """A size that the encoder's strides do not divide is refused, with what would do."""
        model = {"options": options} if options else {}
        config = OBJECTIVES["segmentation"].config.model_validate(
            SMALL["segmentation"] | {"model": model, "data": DIGITS | {"size": size}}
        )
        with pytest.raises(ConfigError, match="the image size does not match the model") as caught:
            segmentation.trainer.prepare(config, "cpu")
        assert (caught.value.found, caught.value.allowed) == (
            f"{size} × {size}",
            f"multiples of {stride}, the encoder's output stride",
        )

    def test_size_fits(self, segmentation: Kit) -> None:
        """One that they do divide is not."""
        assert (
            segmentation.trainer.prepare(segmentation.config({"data.size": 36}), "cpu").height == 36
        )

    def test_alpha(self, segmentation: Kit) -> None:
        """An alpha for another number of classes is refused with both numbers."""
        with pytest.raises(ConfigError, match="alpha has 3 values, but there are 7 classes"):
            segmentation.train({"loss.kind": "focal", "loss.alpha": [0.1, 0.2, 0.3]})
        with pytest.raises(
            ConfigError, match="alpha has 3 values"
        ):  # before the first trial already
            segmentation.trainer.prepare(
                segmentation.config({"loss.kind": "focal", "loss.alpha": [0.1, 0.2, 0.3]}), "cpu"
            )


class TestRegistry:
    def test_all_small(self) -> None:
        """The contract is run on every objective that there is."""
        assert SMALL.keys() == OBJECTIVES.keys()

    @pytest.mark.parametrize("name", list(OBJECTIVES))
    def test_metrics(self, name: str) -> None:
        """Each metric has a direction, and the training loss is not one of them."""
        assert set(OBJECTIVES[name].metrics.values()) <= {"maximize", "minimize"}
        assert "train_loss" not in OBJECTIVES[name].metrics
