"""The divergence signals: each fires on what it is for, and leaves healthy trials alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search.signals import (
    class_collapse,
    fired,
    gradient_explosion,
    loss_metric_divorce,
    loss_rising,
    metric_falling,
    nonfinite_loss,
    overfitting,
)
from spaces.records import EpochRecord, Evidence
from spaces.signals import (
    ClassCollapse,
    GradientExplosion,
    LossMetricDivorce,
    LossRising,
    MetricFalling,
    NonfiniteLoss,
    Overfitting,
    SignalsConfig,
)

NAN, INF = math.nan, math.inf
Series = Callable[..., list[EpochRecord]]

RISING = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75]
FALLING = [0.5, 0.49, 0.45, 0.4, 0.35, 0.3]


@pytest.fixture
def series(make_record: Callable[..., EpochRecord]) -> Series:
    """Records of the epochs 1, 2, …: a list gives one value an epoch, anything else holds for all of them.

    `loss` is the training loss, and both of its parts, so that no split changes it; `classes` is the class metric.
    """

    def make(*, loss: Any = None, classes: Any = None, **changes: Any) -> list[EpochRecord]:
        aliases = {"train_loss": loss, "ce_loss": loss, "dice_loss": loss, "class_metric": classes}
        given = {name: column for name, column in (aliases | changes).items() if column is not None}
        (length,) = {len(column) for column in given.values() if isinstance(column, list)}
        rows = [{name: column[index] if isinstance(column, list) else column for name, column in given.items()} for index in range(length)]
        return [make_record(epoch, **row) for epoch, row in enumerate(rows, 1)]

    return make


def signal(evidence: Evidence | None) -> str | None:
    """Its name."""
    return None if evidence is None else evidence.signal


def healthy(epochs: int, seed: int) -> dict[str, list[Any]]:
    """A good trial as noise has it: losses fall to a floor, the metric climbs to a plateau, 5% of noise on each; one class sleeps, another wakes late."""
    rng, time = np.random.default_rng(seed), np.arange(epochs)
    loss = 0.3 + 1.2 * np.exp(-time / 8)
    columns = {"loss": loss, "val_loss": loss * 1.2, "metric": 0.45 * (1 - np.exp(-(time + 1) / 6))}
    noisy: dict[str, list[Any]] = {name: list(column * rng.normal(1, 0.05, epochs)) for name, column in columns.items()}
    return noisy | {"classes": [(0.9, value, max(0.0, value - 0.3), 0.0, None) for value in noisy["metric"]]}


class TestNonfiniteLoss:
    @pytest.mark.parametrize(
        ("changes", "what"),
        [({"train_loss": NAN}, "loss"), ({"train_loss": INF}, "loss"), ({"grad_norm_max": NAN}, "gradient norm"), ({"grad_norm_max": INF}, "gradient norm")],
    )
    def test_fires(self, make_record: Callable[..., EpochRecord], changes: dict[str, float], what: str) -> None:
        """A loss or a gradient norm that is no number is found, with its step."""
        found = nonfinite_loss([make_record(1), make_record(2, broken_step=7, **changes)], NonfiniteLoss())
        assert found is not None
        assert (found.signal, found.epoch, found.step) == ("nonfinite_loss", 2, 7)
        assert found.statement == f"the {what} was not finite at step 7 of epoch 2"
        assert found.numbers["lr"] == 1e-5

    def test_past(self, make_record: Callable[..., EpochRecord]) -> None:
        """Only the newest epoch is judged."""
        assert nonfinite_loss([make_record(1, train_loss=NAN), make_record(2)], NonfiniteLoss()) is None


class TestGradientExplosion:
    @pytest.mark.parametrize(("norm", "name"), [(1000.0, None), (1000.1, "gradient_explosion"), (9.0, None), (INF, "gradient_explosion"), (NAN, None)])
    def test_bound(self, make_record: Callable[..., EpochRecord], norm: float, name: str | None) -> None:
        """A norm over 1000 is an explosion; 1000 is not, and NaN is another signal's."""
        assert signal(gradient_explosion([make_record(1, grad_norm_max=norm)], GradientExplosion())) == name

    def test_evidence(self, make_record: Callable[..., EpochRecord]) -> None:
        """The evidence holds the norm, its bound, and the step where there is one."""
        rule = GradientExplosion(max_norm=10)
        found = gradient_explosion([make_record(4, grad_norm_max=25.0, broken_step=3)], rule)
        assert found is not None
        assert (found.epoch, found.step, found.numbers["grad_norm_max"], found.numbers["max_norm"]) == (4, 3, 25, 10)
        assert found.statement == "the gradient norm was 25 at step 3 of epoch 4, over 10"
        unbroken = gradient_explosion([make_record(4, grad_norm_max=25.0)], rule)
        assert unbroken is not None
        assert unbroken.statement == "the gradient norm was 25 at epoch 4, over 10"


class TestLossRising:
    @pytest.mark.parametrize(
        ("loss", "name"),
        [
            (RISING, "loss_rising"),
            (RISING[:-1], None),
            ([0.5, 0.55, 0.6, 0.6, 0.7, 0.75], None),
            ([1.0, 1.01, 1.02, 1.03, 1.04, 1.05], None),
            ([9.0, 8.0, *RISING], "loss_rising"),
            ([-0.5, -0.4, -0.3, -0.2, -0.1, -0.05], "loss_rising"),
        ],
    )
    def test_fires(self, series: Series, loss: list[float], name: str | None) -> None:
        """Five rises in a row, by more than a tenth in all, and not one less."""
        assert signal(loss_rising(series(loss=loss), LossRising())) == name

    def test_evidence(self, series: Series) -> None:
        """The evidence holds the window's epochs and losses."""
        found = loss_rising(series(loss=[0.9, *RISING]), LossRising())
        assert found is not None
        assert (found.epoch, found.numbers["epochs"], found.numbers["train_loss"]) == (7, [2, 3, 4, 5, 6, 7], pytest.approx(RISING))
        assert found.statement == "the training loss rose 5 epochs in a row, from 0.5 to 0.75"

    def test_thresholds(self, series: Series) -> None:
        """The window and the rise that counts can be set."""
        assert signal(loss_rising(series(loss=RISING), LossRising(rise=0.6))) is None
        assert signal(loss_rising(series(loss=[0.5, 0.6, 0.7]), LossRising(epochs=2))) == "loss_rising"

    def test_moving_split(self, series: Series) -> None:
        """While Dice fades in the total rises; at the newest split it does not."""
        shares = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
        ce, dice = [0.5, 0.49, 0.48, 0.47, 0.46, 0.45], [0.9, 0.89, 0.88, 0.87, 0.86, 0.85]
        total = [(1 - share) * a + share * b for share, a, b in zip(shares, ce, dice, strict=True)]
        records = series(train_loss=total, ce_loss=ce, dice_loss=dice, dice_weight=shares, ce_weight=[1 - share for share in shares])
        assert total == sorted(total)
        assert signal(loss_rising(records, LossRising(rise=0))) is None

    def test_dice_not_computed(self, series: Series) -> None:
        """Where an epoch has no Dice the cross entropies are compared."""
        records = series(ce_loss=RISING, dice_loss=[None, 0.9, 0.8, 0.7, 0.6, 0.1])
        assert signal(loss_rising(records, LossRising())) == "loss_rising"

    def test_settled(self, series: Series) -> None:
        """Epochs before the schedule has settled are left out."""
        assert signal(loss_rising(series(loss=RISING, settled=[False, *[True] * 5]), LossRising())) is None
        assert signal(loss_rising(series(loss=[0.1, *RISING], settled=[False, *[True] * 6]), LossRising())) == "loss_rising"

    def test_class_weights(self, series: Series) -> None:
        """Epochs that were trained with other class weights are left out."""
        assert signal(loss_rising(series(loss=RISING, weight_ratio=[4.0, *[25.0] * 5]), LossRising())) is None
        assert signal(loss_rising(series(loss=[0.1, *RISING], weight_ratio=[4.0, *[25.0] * 6]), LossRising())) == "loss_rising"


class TestMetricFalling:
    @pytest.mark.parametrize(
        ("metric", "name"),
        [
            (FALLING, "metric_falling"),
            (FALLING[:-1], None),
            ([0.5, 0.49, 0.45, 0.45, 0.35, 0.3], None),
            ([0.50, 0.499, 0.498, 0.497, 0.496, 0.495], None),
        ],
    )
    def test_fires(self, series: Series, metric: list[float], name: str | None) -> None:
        """Five falls in a row, by a tenth of the best in all where that is asked for, and not one less."""
        assert signal(metric_falling(series(metric=metric), MetricFalling(drop=0.1))) == name

    def test_default(self, series: Series) -> None:
        """Unless said otherwise five falls in a row are enough, however small."""
        assert signal(metric_falling(series(metric=[0.50, 0.499, 0.498, 0.497, 0.496, 0.495]), MetricFalling())) == "metric_falling"

    def test_relative_to_the_best(self, series: Series) -> None:
        """A fall that is small beside the best so far is none."""
        low = [0.105, 0.1, 0.095, 0.09, 0.085, 0.08]
        assert signal(metric_falling(series(metric=low), MetricFalling(drop=0.1))) == "metric_falling"
        assert signal(metric_falling(series(metric=[0.9, *low]), MetricFalling(drop=0.1))) is None

    def test_minimize(self, series: Series) -> None:
        """Where less is better, a rise is the fall."""
        found = metric_falling(series(metric=RISING), MetricFalling(), sign=-1)
        assert found is not None
        assert found.numbers["best_metric"] == 0.5
        assert found.statement == "the metric got worse 5 epochs in a row, from 0.5000 to 0.7500"
        assert signal(metric_falling(series(metric=FALLING), MetricFalling(), sign=-1)) is None


class TestLossMetricDivorce:
    LOSS = (0.8, 0.7, 0.65, 0.6, 0.57, 0.55, 0.52, 0.5)
    METRIC = (0.45, 0.45, 0.44, 0.42, 0.40, 0.38, 0.35, 0.32)

    def test_fires(self, series: Series) -> None:
        """The table that the problem begins with: the loss falls from 0.8 to 0.5 and the metric with it, a quarter under its best once smoothed."""
        falling = [*self.METRIC, 0.30]
        found = loss_metric_divorce(series(loss=[*self.LOSS, 0.49], metric=falling), LossMetricDivorce())
        assert found is not None
        assert (found.signal, found.epoch, found.numbers["epochs"]) == ("loss_metric_divorce", 9, [4, 5, 6, 7, 8, 9])
        assert (found.numbers["best_smoothed_metric"], found.numbers["smoothed_metric"]) == (0.45, 0.32)

    @pytest.mark.parametrize(
        ("loss", "metric"),
        [
            (LOSS, METRIC),
            (LOSS[::-1], (0.45, 0.45, 0.44, 0.4, 0.3, 0.3, 0.2, 0.2)),
            (LOSS[:7], (0.45, 0.45, 0.3, 0.2, 0.2, 0.1, 0.1)),
            ((0.9, *LOSS, 0.49), (0.45, 0.45, 0.2, 0.2, 0.2, 0.2, 0.21, 0.22, 0.23, 0.24)),
            (LOSS, (0.45, 0.45, 0.44, 0.45, 0.46, 0.46, 0.46, 0.1)),
        ],
    )
    def test_silent(self, series: Series, loss: tuple[float, ...], metric: tuple[float, ...]) -> None:
        """Not while the metric is less than a quarter down, the loss rises too, the trial is young, the metric climbs again, or a single epoch falls out."""
        assert signal(loss_metric_divorce(series(loss=list(loss), metric=list(metric)), LossMetricDivorce())) is None

    def test_minimize(self, series: Series) -> None:
        """Where less is better, a metric that rises is the one that falls."""
        loss, metric = [*self.LOSS, 0.49], [0.5, 0.5, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]
        found = loss_metric_divorce(series(loss=loss, metric=metric), LossMetricDivorce(), sign=-1)
        assert found is not None
        assert found.numbers["best_smoothed_metric"] == 0.5
        assert signal(loss_metric_divorce(series(loss=loss, metric=metric[::-1]), LossMetricDivorce(), sign=-1)) is None

    @pytest.mark.parametrize("changes", [{"settled": [*[False] * 4, *[True] * 5]}, {"weight_ratio": [*[4.0] * 4, *[25.0] * 5]}])
    def test_comparable(self, series: Series, changes: dict[str, Any]) -> None:
        """Epochs before the schedule has settled, or with other class weights, are left out."""
        assert signal(loss_metric_divorce(series(loss=[*self.LOSS, 0.49], metric=[*self.METRIC, 0.3], **changes), LossMetricDivorce())) is None


class TestOverfitting:
    TRAIN = (1.2, 1.1, 1.0, 0.95, 0.9, 0.8, 0.7, 0.6)
    VAL = (1.1, 1.0, 1.0, 0.95, 0.9, 1.1, 1.3, 1.5)
    STALLED = (0.4, 0.5, 0.45, 0.45, 0.45, 0.45, 0.45, 0.45)

    def test_fires(self, series: Series) -> None:
        """The training loss falls, the validation loss rises for three epochs, and the metric has gained nothing in six."""
        found = overfitting(series(loss=list(self.TRAIN), val_loss=list(self.VAL), metric=list(self.STALLED)), Overfitting())
        assert found is not None
        assert (found.epoch, found.numbers["epochs"], found.numbers["val_loss"], found.numbers["lowest_val_loss"]) == (8, [5, 6, 7, 8], [0.9, 1.1, 1.3, 1.5], 0.9)
        assert found.statement == "the validation loss rose 3 epochs in a row to 1.5 (lowest 0.9) while the training loss fell to 0.6"

    @pytest.mark.parametrize(
        "changes",
        [
            {"metric": [0.4, 0.5, 0.45, 0.45, 0.45, 0.45, 0.51, 0.45]},
            {"metric": [0.4, 0.5, 0.51, 0.45, 0.45, 0.45, 0.45, 0.45]},
            {"val_loss": [1.1, 1.0, 1.0, 0.95, 0.9, 1.3, 1.3, 1.5]},
            {"val_loss": [1.1, 1.0, 1.0, 0.95, 0.9, 0.92, 0.94, 0.98]},
            {"loss": [1.2, 1.1, 1.0, 0.95, 0.6, 0.7, 0.8, 0.9]},
            {"settled": [False, False, *[True] * 6]},
            {"weight_ratio": [4.0, 4.0, *[25.0] * 6]},
        ],
    )
    def test_silent(self, series: Series, changes: dict[str, Any]) -> None:
        """Not while the metric gains, the validation loss pauses or rises by little, the training loss rises too, or the epochs cannot be compared."""
        given: dict[str, Any] = {"loss": list(self.TRAIN), "val_loss": list(self.VAL), "metric": list(self.STALLED)}
        assert signal(overfitting(series(**given | changes), Overfitting())) is None

    def test_minimize(self, series: Series) -> None:
        """Where less is better, a metric that falls is a gain."""
        given = {"loss": list(self.TRAIN), "val_loss": list(self.VAL)}
        assert signal(overfitting(series(**given, metric=[0.5, 0.4, *[0.45] * 6]), Overfitting(), sign=-1)) == "overfitting"
        assert signal(overfitting(series(**given, metric=[0.5, 0.4, *[0.45] * 4, 0.39, 0.45]), Overfitting(), sign=-1)) is None

    def test_patience(self, series: Series) -> None:
        """Patience is the number of rises."""
        records = series(loss=list(self.TRAIN), val_loss=list(self.VAL), metric=list(self.STALLED))
        assert signal(overfitting(records[:6], Overfitting(patience=1, rise=0.1))) == "overfitting"
        assert signal(overfitting(records, Overfitting(patience=4))) is None


class TestClassCollapse:
    HALF = (0.8, 0.3, 0.0, 0.0, None)

    def test_for_long(self, series: Series) -> None:
        """Half of the held classes at 0 for ten epochs, after a grace of twenty, and not an epoch earlier."""
        records = series(classes=[self.HALF] * 30)
        assert signal(class_collapse(records[:29], ClassCollapse())) is None
        found = class_collapse(records, ClassCollapse())
        assert found is not None
        assert (found.numbers["dead_classes"], found.numbers["held_classes"], found.numbers["epochs"]) == ([2, 3], [0, 1, 2, 3], list(range(21, 31)))
        assert found.statement == "2 of 4 classes stayed at 0 from epoch 21 to 30"

    @pytest.mark.parametrize(
        "last",
        [
            [(0.8, 0.3, 0.1, 0.0, None)] * 10,
            [(0.8, 0.3, None, 0.0, None)] * 10,
            [HALF] * 5 + [(0.8, 0.3, 0.01, 0.0, None)] + [HALF] * 4,
        ],
    )
    def test_silent(self, series: Series, last: list[tuple[float | None, ...]]) -> None:
        """Not for a single rare class, nor for one that the split does not hold, nor when one of them wakes for an epoch."""
        assert signal(class_collapse(series(classes=[self.HALF] * 20 + last), ClassCollapse())) is None

    @pytest.mark.parametrize("changes", [{"settled": [False, *[True] * 29]}, {"weight_ratio": [4.0, *[25.0] * 29]}])
    def test_comparable(self, series: Series, changes: dict[str, Any]) -> None:
        """The grace counts from the epoch at which the schedule has settled and the class weights are the newest."""
        assert signal(class_collapse(series(classes=[self.HALF] * 30, **changes), ClassCollapse())) is None

    @pytest.mark.parametrize("alone", [(0.8, 0.0, 0.0, 0.0, None), (0.0, 0.0, 0.0, 0.0, None)])
    def test_one_alone(self, series: Series, alone: tuple[float | None, ...]) -> None:
        """One class alone, or none, predicted for four epochs is enough, settled or not."""
        assert signal(class_collapse(series(classes=[alone] * 3), ClassCollapse())) is None
        found = class_collapse(series(classes=[alone] * 4, settled=False), ClassCollapse())
        assert found is not None
        assert found.numbers["epochs"] == [1, 2, 3, 4]

    def test_two_classes(self, series: Series) -> None:
        """Of two classes one at 0 is a single rare class, and has the long grace."""
        assert signal(class_collapse(series(classes=[(0.8, 0.0)] * 10), ClassCollapse())) is None

    def test_nothing_held(self, series: Series) -> None:
        """A split that holds no class at all has none that could collapse."""
        assert signal(class_collapse(series(classes=[(None, None)] * 40), ClassCollapse())) is None

    def test_share(self, series: Series) -> None:
        """The share that counts can be set."""
        assert signal(class_collapse(series(classes=[self.HALF] * 30), ClassCollapse(share=0.75))) is None
        assert signal(class_collapse(series(classes=[(0.8, 0.3, 0.2, 0.0, None)] * 30), ClassCollapse(share=0.25))) == "class_collapse"


COURSES: dict[str, dict[str, Any]] = {
    "nonfinite_loss": {"train_loss": [NAN]},
    "gradient_explosion": {"grad_norm_max": [2000.0]},
    "loss_rising": {"loss": RISING},
    "metric_falling": {"metric": FALLING},
    "loss_metric_divorce": {"loss": [*TestLossMetricDivorce.LOSS, 0.49], "metric": [0.5, 0.5, 0.5, 0.4, 0.41, 0.35, 0.36, 0.3, 0.31]},
    "overfitting": {"loss": list(TestOverfitting.TRAIN), "val_loss": list(TestOverfitting.VAL), "metric": list(TestOverfitting.STALLED)},
    "class_collapse": {"classes": [(0.8, 0.0, 0.0)] * 4},
}
"""The shortest course that fires each signal."""


class TestFired:
    @pytest.mark.parametrize("name", COURSES)
    def test_each(self, series: Series, name: str) -> None:
        """Each signal is asked, and fires with the settings that come with the program."""
        assert signal(fired(series(**COURSES[name]), SignalsConfig(), "maximize")) == name

    @pytest.mark.parametrize("name", COURSES)
    def test_disabled(self, series: Series, name: str) -> None:
        """A signal that is switched off is silent."""
        assert fired(series(**COURSES[name]), SignalsConfig.model_validate({name: {"enabled": False}}), "maximize") is None

    @pytest.mark.parametrize("name", list(COURSES)[2:])
    def test_grace(self, series: Series, name: str) -> None:
        """Signals that watch epochs wait for the grace to be over, by default 3 epochs."""
        records = series(**COURSES[name])
        assert fired(records, SignalsConfig(grace_epochs=len(records)), "maximize") is None
        assert signal(fired(records, SignalsConfig(grace_epochs=len(records) - 1), "maximize")) == name
        assert SignalsConfig().grace_epochs == 3

    @pytest.mark.parametrize("name", list(COURSES)[:2])
    def test_no_grace(self, series: Series, name: str) -> None:
        """Signals that watch steps have no grace."""
        assert signal(fired(series(**COURSES[name]), SignalsConfig(grace_epochs=99), "maximize")) == name

    def test_step_first(self, series: Series) -> None:
        """Where several fire, what happened at a step is told before what happened over epochs."""
        records = series(loss=RISING, metric=FALLING, grad_norm_max=[1.0, 1.0, 1.0, 1.0, 1.0, 5000.0])
        assert signal(fired(records, SignalsConfig(), "maximize")) == "gradient_explosion"

    @pytest.mark.parametrize(("direction", "name"), [("minimize", "metric_falling"), ("maximize", None)])
    def test_direction(self, series: Series, direction: Any, name: str | None) -> None:
        """A metric is judged by its own direction."""
        assert signal(fired(series(metric=RISING), SignalsConfig(), direction)) == name

    def test_nothing(self) -> None:
        """Without a record there is nothing to judge."""
        assert fired([], SignalsConfig(), "maximize") is None

    def test_one(self, make_record: Callable[..., EpochRecord]) -> None:
        """A single healthy record fires nothing, not even without grace."""
        assert fired([make_record(1)], SignalsConfig(grace_epochs=0), "maximize") is None

    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    def test_nan_validation(self, series: Series, direction: Any) -> None:
        """A validation that gave no numbers neither fires a signal nor lowers the threshold of one."""
        falls = [NAN, 0.5, 0.499, 0.498, 0.497, 0.496, 0.495, 0.494, 0.493]
        rises = [NAN, 0.5, 0.501, 0.502, 0.503, 0.504, 0.505, 0.506, 0.507]
        metric, loss = (falls if direction == "maximize" else rises), [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
        records = series(loss=loss, metric=metric, val_loss=[NAN, 1.0, 1.001, 1.002, 1.003, 1.004, 1.005, 1.006, 1.007])
        config = SignalsConfig.model_validate({"metric_falling": {"drop": 0.1}})
        assert [signal(fired(records[:epochs], config, direction)) for epochs in range(1, 10)] == [None] * 9
        assert fired(series(metric=[0.5, 0.4, 0.3, 0.2, 0.1, NAN]), SignalsConfig(), direction) is None

    @pytest.mark.parametrize("seed", range(10))
    def test_healthy(self, series: Series, seed: int) -> None:
        """Forty epochs of a good trial with noise on everything fire nothing at any of them."""
        records = series(**healthy(40, seed))
        assert [signal(fired(records[:epochs], SignalsConfig(), "maximize")) for epochs in range(41)] == [None] * 41

    def test_severity(self, series: Series) -> None:
        """A signal says only that it fired: how bad it is depends on the study, and is the judge's to say."""
        found = fired(series(loss=RISING), SignalsConfig(), "maximize")
        assert found is not None
        assert (found.severity, found.step) == (1.0, None)
