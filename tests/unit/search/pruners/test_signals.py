"""The divergence signals: each fires on what it is for, and leaves healthy trials alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search.pruners.signals import (
    class_collapse,
    fired,
    gradient_explosion,
    loss_metric_decoupling,
    loss_rising,
    metric_falling,
    nonfinite_loss,
    overfitting,
    unjudged,
)
from spaces.records import EpochRecord, Evidence
from spaces.thresholds import (
    ClassCollapse,
    GradientExplosion,
    LossMetricDecoupling,
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
        rows = [
            {
                name: column[index] if isinstance(column, list) else column
                for name, column in given.items()
            }
            for index in range(length)
        ]
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
    noisy: dict[str, list[Any]] = {
        name: list(column * rng.normal(1, 0.05, epochs)) for name, column in columns.items()
    }
    return noisy | {
        "classes": [(0.9, value, max(0.0, value - 0.3), 0.0, None) for value in noisy["metric"]]
    }


class TestNonfiniteLoss:
    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"train_loss": NAN}, "loss"),
            ({"train_loss": INF}, "loss"),
            ({"grad_norm_max": NAN}, "gradient norm"),
            ({"grad_norm_max": INF}, "gradient norm"),
        ],
    )
    def test_fires(
        self, make_record: Callable[..., EpochRecord], changes: dict[str, float], what: str
    ) -> None:
        """A loss or a gradient norm that is no number is found, with its step."""
        found = nonfinite_loss(
            [make_record(1), make_record(2, broken_step=7, **changes)], NonfiniteLoss()
        )
        assert found is not None
        assert (found.signal, found.epoch, found.step) == ("nonfinite_loss", 2, 7)
        assert found.statement == f"the {what} was not finite at step 7 of epoch 2"
        assert found.numbers["lr"] == 1e-5

    def test_unwatched(self, make_record: Callable[..., EpochRecord]) -> None:
        """Where no step was watched the norm is unknown, and the loss alone is judged."""
        assert nonfinite_loss([make_record(1, steps=0, grad_norm_max=NAN)], NonfiniteLoss()) is None
        assert (
            signal(
                nonfinite_loss(
                    [make_record(1, steps=0, grad_norm_max=NAN, train_loss=NAN)], NonfiniteLoss()
                )
            )
            == "nonfinite_loss"
        )
        assert unjudged("gradient_explosion", [make_record(1, steps=0, grad_norm_max=NAN)])
        assert not unjudged("gradient_explosion", [make_record(1, steps=0), make_record(2)])

    def test_past(self, make_record: Callable[..., EpochRecord]) -> None:
        """Only the newest epoch is judged."""
        assert (
            nonfinite_loss([make_record(1, train_loss=NAN), make_record(2)], NonfiniteLoss())
            is None
        )


class TestGradientExplosion:
    @pytest.mark.parametrize(
        ("norm", "name"),
        [
            (1000.0, None),
            (1000.1, "gradient_explosion"),
            (9.0, None),
            (INF, "gradient_explosion"),
            (NAN, None),
        ],
    )
    def test_bound(
        self, make_record: Callable[..., EpochRecord], norm: float, name: str | None
    ) -> None:
        """A norm over 1000 is an explosion; 1000 is not, and NaN is another signal's."""
        assert (
            signal(gradient_explosion([make_record(1, grad_norm_max=norm)], GradientExplosion()))
            == name
        )

    def test_evidence(self, make_record: Callable[..., EpochRecord]) -> None:
        """The evidence holds the norm, its bound, and the step where there is one."""
        rule = GradientExplosion(max_norm=10)
        found = gradient_explosion([make_record(4, grad_norm_max=25.0, broken_step=3)], rule)
        assert found is not None
        assert (
            found.epoch,
            found.step,
            found.numbers["grad_norm_max"],
            found.numbers["max_norm"],
        ) == (4, 3, 25, 10)
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
            ([0.5, 0.55, 0.6, 0.59, 0.7, 0.75], "loss_rising"),
            ([0.5, 0.75, 0.5, 0.75, 0.5, 0.75], None),
            ([1.0, 1.01, 1.02, 1.03, 1.04, 1.05], None),
            ([9.0, 8.0, *RISING], "loss_rising"),
            ([0.5, 0.5, 0.5, 0.5, 0.5, 3.0], None),
            ([-0.5, -0.4, -0.3, -0.2, -0.1, -0.05], "loss_rising"),
        ],
    )
    def test_fires(self, series: Series, loss: list[float], name: str | None) -> None:
        """Rising over five epochs, steadily but for one slip, by more than a tenth in all; one wild epoch is no course."""
        assert signal(loss_rising(series(loss=loss), LossRising())) == name

    def test_evidence(self, series: Series) -> None:
        """The evidence holds the window's epochs and losses."""
        found = loss_rising(series(loss=[0.9, *RISING]), LossRising())
        assert found is not None
        assert (found.epoch, found.numbers["epochs"], found.numbers["train_loss"]) == (
            7,
            [2, 3, 4, 5, 6, 7],
            pytest.approx(RISING),
        )
        assert found.statement == "the training loss rose over 5 epochs, from 0.5 to 0.75"

    def test_thresholds(self, series: Series) -> None:
        """Window, rise and agreement can be set: the literal rule, rises in a row, is among them."""
        assert signal(loss_rising(series(loss=RISING), LossRising(rise=0.6))) is None
        assert (
            signal(loss_rising(series(loss=[0.5, 0.6, 0.7]), LossRising(epochs=2))) == "loss_rising"
        )
        slip = series(loss=[0.5, 0.55, 0.6, 0.59, 0.7, 0.75])
        assert signal(loss_rising(slip, LossRising(agreement=1))) is None
        literal = LossRising(agreement=1, rise=0, noise=0)
        assert (
            signal(loss_rising(series(loss=[1.0, 1.01, 1.02, 1.03, 1.04, 1.05]), literal))
            == "loss_rising"
        )

    def test_noise(self, series: Series) -> None:
        """A rise that is small beside the trial's own noise is none."""
        noisy = [1.0, 2.0] * 7
        rise = [1.1, 1.6, 1.5, 1.9, 2.0, 2.2]
        assert signal(loss_rising(series(loss=rise), LossRising())) == "loss_rising"
        assert signal(loss_rising(series(loss=[*noisy, *rise]), LossRising())) is None
        assert (
            signal(loss_rising(series(loss=[*noisy, *rise]), LossRising(noise=0))) == "loss_rising"
        )

    def test_moving_split(self, series: Series) -> None:
        """While Dice fades in the total rises; at the newest split it does not."""
        shares = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5]
        ce, dice = [0.5, 0.49, 0.48, 0.47, 0.46, 0.45], [0.9, 0.89, 0.88, 0.87, 0.86, 0.85]
        total = [(1 - share) * a + share * b for share, a, b in zip(shares, ce, dice, strict=True)]
        records = series(
            train_loss=total,
            ce_loss=ce,
            dice_loss=dice,
            dice_weight=shares,
            ce_weight=[1 - share for share in shares],
            settled=False,
        )
        assert total == sorted(total)
        assert signal(loss_rising(records, LossRising(rise=0, noise=0))) is None

    def test_moving_split_that_rises(self, series: Series) -> None:
        """A schedule hides nothing: what rises at one split is found while the split moves, whatever the total does."""
        shares = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5]
        records = series(
            loss=RISING,
            dice_weight=shares,
            ce_weight=[1 - share for share in shares],
            settled=False,
        )
        assert signal(loss_rising(records, LossRising())) == "loss_rising"

    def test_dice_comes_in(self, series: Series) -> None:
        """An epoch without Dice cannot be compared with one that has it."""
        assert (
            signal(loss_rising(series(ce_loss=RISING, dice_loss=[None, *RISING[1:]]), LossRising()))
            is None
        )
        assert (
            signal(loss_rising(series(ce_loss=RISING, dice_loss=[None] * 6), LossRising()))
            == "loss_rising"
        )

    @pytest.mark.parametrize(
        ("name", "before", "after"), [("weight_ratio", 4.0, 25.0), ("smooth", 10.0, 5.0)]
    )
    def test_schedule(self, series: Series, name: str, before: float, after: float) -> None:
        """Epochs that were trained with other class weights or another smooth are left out."""
        assert (
            signal(loss_rising(series(loss=RISING, **{name: [before, *[after] * 5]}), LossRising()))
            is None
        )
        assert (
            signal(
                loss_rising(
                    series(loss=[0.1, *RISING], **{name: [before, *[after] * 6]}), LossRising()
                )
            )
            == "loss_rising"
        )

    def test_smooth_without_dice(self, series: Series) -> None:
        """The smooth means nothing to a loss without Dice."""
        records = series(ce_loss=RISING, dice_loss=[None] * 6, smooth=[10.0, *[5.0] * 5])
        assert signal(loss_rising(records, LossRising())) == "loss_rising"


class TestMetricFalling:
    RULE = MetricFalling(epochs=5, drop=0.1, slipping_drop=0.2, agreement=0.8, noise=3)

    @pytest.mark.parametrize(
        ("metric", "name"),
        [
            (FALLING, "metric_falling"),
            (FALLING[:-1], None),
            ([0.5, 0.49, 0.45, 0.46, 0.35, 0.3], "metric_falling"),
            ([0.50, 0.499, 0.498, 0.497, 0.496, 0.495], None),
            ([0.5, 0.3, 0.5, 0.3, 0.5, 0.3], None),
            ([0.5, 0.5, 0.5, 0.5, 0.5, 0.1], None),
        ],
    )
    def test_fires(self, series: Series, metric: list[float], name: str | None) -> None:
        """Falling over five epochs, each or all but one, by enough; neither noise nor one bad epoch is a course."""
        assert signal(metric_falling(series(metric=metric), self.RULE)) == name

    def test_slips(self, series: Series) -> None:
        """Where it slipped it has to fall farther."""
        steady, slipping = [0.5, 0.48, 0.46, 0.44, 0.42, 0.40], [0.5, 0.48, 0.46, 0.465, 0.42, 0.40]
        assert signal(metric_falling(series(metric=steady), MetricFalling())) == "metric_falling"
        assert signal(metric_falling(series(metric=slipping), MetricFalling())) is None
        assert (
            signal(metric_falling(series(metric=slipping), MetricFalling(slipping_drop=0.1)))
            == "metric_falling"
        )
        assert (
            signal(metric_falling(series(metric=[0.5, 0.4, 0.3, 0.31, 0.2, 0.1]), MetricFalling()))
            == "metric_falling"
        )

    def test_literal(self, series: Series) -> None:
        """With agreement 1 it is the rule of the book alone: five falls in a row, however small."""
        literal = MetricFalling(agreement=1)
        assert (
            signal(
                metric_falling(series(metric=[0.50, 0.499, 0.498, 0.497, 0.496, 0.495]), literal)
            )
            == "metric_falling"
        )
        assert (
            signal(
                metric_falling(series(metric=[0.50, 0.499, 0.498, 0.498, 0.496, 0.495]), literal)
            )
            is None
        )

    @pytest.mark.parametrize("before", [[], [0.1, 0.2, 0.3], [0.30, 0.45, 0.31, 0.47, 0.33]])
    def test_every_epoch(self, series: Series, before: list[float]) -> None:
        """A metric that fell in each of the last five epochs has fallen, however little, and however it moved before."""
        fall = [0.50, 0.499, 0.498, 0.497, 0.496, 0.495]
        assert (
            signal(fired(series(metric=[*before, *fall]), SignalsConfig(), "maximize"))
            == "metric_falling"
        )
        assert fired(series(metric=[*before, *fall[:-1]]), SignalsConfig(), "maximize") is None
        assert (
            fired(series(metric=[*before, *fall[:-1], 0.497]), SignalsConfig(), "maximize") is None
        )

    def test_relative_to_the_best(self, series: Series) -> None:
        """A fall that is small beside the best so far is none."""
        low = [0.11, 0.1, 0.09, 0.08, 0.07, 0.06]
        assert signal(metric_falling(series(metric=low), self.RULE)) == "metric_falling"
        assert signal(metric_falling(series(metric=[0.9, *low]), self.RULE)) is None

    def test_noise(self, series: Series) -> None:
        """A fall with slips that lies within the trial's own noise is none."""
        noisy = [0.3, 0.5] * 7
        fall = [0.46, 0.4, 0.38, 0.385, 0.34, 0.33]
        assert signal(metric_falling(series(metric=fall), self.RULE)) == "metric_falling"
        assert signal(metric_falling(series(metric=[*noisy, *fall]), self.RULE)) is None

    def test_minimize(self, series: Series) -> None:
        """Where less is better, a rise is the fall."""
        found = metric_falling(series(metric=RISING), self.RULE, sign=-1)
        assert found is not None
        assert found.numbers["best_metric"] == 0.5
        assert found.statement == "the metric got worse over 5 epochs, from 0.5000 to 0.7500"
        assert signal(metric_falling(series(metric=FALLING), self.RULE, sign=-1)) is None

    def test_nan(self, series: Series) -> None:
        """An epoch without a metric is passed over, and is never the one that fires."""
        assert (
            signal(metric_falling(series(metric=[*FALLING[:3], NAN, *FALLING[3:]]), self.RULE))
            == "metric_falling"
        )
        assert signal(metric_falling(series(metric=[*FALLING, NAN]), self.RULE)) is None


class TestLossMetricDecoupling:
    RULE = LossMetricDecoupling(window=5, drop=0.25, unbroken_epochs=9, noise=3)
    LOSS = (0.8, 0.7, 0.65, 0.6, 0.57, 0.55, 0.52, 0.5, 0.49)
    METRIC = (0.45, 0.45, 0.44, 0.42, 0.40, 0.38, 0.35, 0.32, 0.30)

    def test_fires(self, series: Series) -> None:
        """The loss falls and the metric with it, a quarter under its best once smoothed."""
        found = loss_metric_decoupling(
            series(loss=list(self.LOSS), metric=list(self.METRIC)), self.RULE
        )
        assert found is not None
        assert (found.signal, found.epoch, found.numbers["epochs"]) == (
            "loss_metric_decoupling",
            9,
            [4, 5, 6, 7, 8, 9],
        )
        assert (found.numbers["best_smoothed_metric"], found.numbers["smoothed_metric"]) == (
            0.45,
            0.32,
        )

    @pytest.mark.parametrize(
        ("loss", "metric"),
        [
            (LOSS[:-1], METRIC[:-1]),
            (LOSS[::-1], METRIC),
            (LOSS[:5], (0.45, 0.45, 0.3, 0.2, 0.1)),
            ((0.9, *LOSS), (0.45, 0.45, 0.2, 0.2, 0.2, 0.2, 0.21, 0.22, 0.23, 0.24)),
            (LOSS[:8], (0.45, 0.45, 0.44, 0.45, 0.46, 0.46, 0.46, 0.1)),
            (
                (*LOSS, *LOSS),
                (
                    0.5,
                    0.2,
                    0.5,
                    0.2,
                    0.5,
                    0.2,
                    0.5,
                    0.2,
                    0.5,
                    0.2,
                    0.5,
                    0.2,
                    0.5,
                    0.2,
                    0.4,
                    0.3,
                    0.3,
                    0.29,
                ),
            ),
        ],
    )
    def test_silent(
        self, series: Series, loss: tuple[float, ...], metric: tuple[float, ...]
    ) -> None:
        """Not while it is less than a quarter down, the loss rises too, the trial is young, the metric climbs, an epoch falls out, or all is noise."""
        assert (
            signal(loss_metric_decoupling(series(loss=list(loss), metric=list(metric)), self.RULE))
            is None
        )

    def test_recovered(self, series: Series) -> None:
        """A dip of two epochs that the newest one is out of again is none, though the smoothed metric still lies in it."""
        loss, metric = (
            [*self.LOSS, 0.48, 0.47],
            [0.45, 0.45, 0.45, 0.45, 0.45, 0.44, 0.43, 0.42, 0.3, 0.3, 0.46],
        )
        assert signal(loss_metric_decoupling(series(loss=loss, metric=metric), self.RULE)) is None
        assert (
            signal(
                loss_metric_decoupling(series(loss=loss, metric=[*metric[:-1], 0.31]), self.RULE)
            )
            == "loss_metric_decoupling"
        )

    TABLE_LOSS, TABLE_METRIC = (0.8, 0.7, 0.6, 0.55, 0.5), (0.45, 0.42, 0.38, 0.35, 0.32)

    def test_table(self, series: Series) -> None:
        """The table that the problem begins with: the loss falls and the metric with it, from the first epoch to the fifth."""
        records = series(loss=list(self.TABLE_LOSS), metric=list(self.TABLE_METRIC))
        assert [
            signal(fired(records[:epochs], SignalsConfig(), "maximize")) for epochs in range(1, 6)
        ] == [None] * 4 + ["loss_metric_decoupling"]
        found = loss_metric_decoupling(records, LossMetricDecoupling())
        assert found is not None
        assert (found.numbers["epochs"], found.numbers["metric"]) == (
            [1, 2, 3, 4, 5],
            list(self.TABLE_METRIC),
        )
        assert (
            found.statement
            == "over 4 epochs the loss fell from 0.8 to 0.5 while the metric went from 0.4500 at best to 0.3500"
        )
        better = series(
            loss=list(self.TABLE_LOSS), metric=[1 - value for value in self.TABLE_METRIC]
        )
        assert loss_metric_decoupling(better, LossMetricDecoupling()) is None

    @pytest.mark.parametrize(
        ("loss", "metric"),
        [
            ((0.8, 0.7, 0.6, 0.61, 0.5), TABLE_METRIC),
            (TABLE_LOSS, (0.45, 0.42, 0.38, 0.385, 0.32)),
            (TABLE_LOSS, (0.45, 0.44, 0.43, 0.42, 0.41)),
            ((*[0.9] * 12, *TABLE_LOSS), (*[0.3, 0.48] * 6, *TABLE_METRIC)),
        ],
    )
    def test_not_the_table(
        self, series: Series, loss: tuple[float, ...], metric: tuple[float, ...]
    ) -> None:
        """A slip of either, a small fall, or one within the trial's own noise is not that table."""
        assert (
            signal(
                loss_metric_decoupling(
                    series(loss=list(loss), metric=list(metric)), LossMetricDecoupling()
                )
            )
            is None
        )

    def test_minimize(self, series: Series) -> None:
        """Where less is better, a metric that rises is the one that falls."""
        metric = [0.5, 0.5, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]
        found = loss_metric_decoupling(
            series(loss=list(self.LOSS), metric=metric), LossMetricDecoupling(), sign=-1
        )
        assert found is not None
        assert found.numbers["best_smoothed_metric"] == 0.5
        assert (
            signal(
                loss_metric_decoupling(
                    series(loss=list(self.LOSS), metric=metric[::-1]),
                    LossMetricDecoupling(),
                    sign=-1,
                )
            )
            is None
        )

    @pytest.mark.parametrize(
        "changes",
        [{"smooth": [*[10.0] * 4, *[5.0] * 5]}, {"weight_ratio": [*[4.0] * 4, *[25.0] * 5]}],
    )
    def test_comparable(self, series: Series, changes: dict[str, Any]) -> None:
        """Losses under another smooth or with other class weights are not compared."""
        given = {"loss": list(self.LOSS), "metric": list(self.METRIC)}
        assert (
            signal(loss_metric_decoupling(series(**given), self.RULE)) == "loss_metric_decoupling"
        )
        assert signal(loss_metric_decoupling(series(**given, **changes), self.RULE)) is None


class TestOverfitting:
    RULE = Overfitting(patience=3, rise=0.25, stall_epochs=6, drop=0.1)
    TRAIN = (1.2, 1.1, 1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
    VAL = (1.1, 1.0, 1.0, 0.95, 0.9, 1.1, 1.3, 1.5, 1.7)
    STALLED = (0.4, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4)

    def given(self, **changes: Any) -> dict[str, Any]:
        """The course that fires, with changes."""
        return {
            "loss": list(self.TRAIN),
            "val_loss": list(self.VAL),
            "metric": list(self.STALLED),
        } | changes

    def test_fires(self, series: Series) -> None:
        """The training loss falls, the validation loss has risen far for three epochs, and the metric is down and has gained nothing in six."""
        found = overfitting(series(**self.given()), self.RULE)
        assert found is not None
        assert (
            found.epoch,
            found.numbers["epochs"],
            found.numbers["val_loss"],
            found.numbers["lowest_val_loss"],
        ) == (9, [6, 7, 8, 9], [1.1, 1.3, 1.5, 1.7], 0.95)
        assert (
            found.statement
            == "the validation loss rose to 1.5 (lowest 0.95) while the training loss fell to 0.5 and the metric gained nothing in 6 epochs"
        )

    @pytest.mark.parametrize(
        "changes",
        [
            {"metric": [0.4, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 0.51, 0.4]},
            {"metric": [0.4, 0.5, 0.5, 0.49, 0.48, 0.49, 0.5, 0.48, 0.49]},
            {"val_loss": [1.1, 1.0, 1.0, 0.95, 0.9, 0.92, 0.94, 0.98, 0.99]},
            {"val_loss": [1.1, 1.0, 1.0, 0.95, 0.9, 1.5, 1.4, 1.3, 1.2]},
            {"val_loss": [1.1, 1.0, 1.0, 0.95, 0.9, 0.9, 0.9, 0.9, 1.7]},
            {"loss": [1.2, 1.1, 1.0, 0.95, 0.6, 0.7, 0.8, 0.9, 1.0]},
            {"settled": [*[False] * 6, *[True] * 3]},
            {"weight_ratio": [*[4.0] * 6, *[25.0] * 3]},
            {"val_loss": [*VAL[:-1], NAN]},
            {"metric": [*STALLED[:-1], NAN]},
        ],
    )
    def test_silent(self, series: Series, changes: dict[str, Any]) -> None:
        """Not while the metric gains or holds, the validation loss rises little, falls, or jumps once, the training loss rises, or nothing is comparable."""
        assert signal(overfitting(series(**self.given(**changes)), self.RULE)) is None

    def test_minimize(self, series: Series) -> None:
        """Where less is better, a metric that falls is a gain."""
        worse = [1 - value for value in self.STALLED]
        assert (
            signal(overfitting(series(**self.given(metric=worse)), self.RULE, sign=-1))
            == "overfitting"
        )
        assert (
            signal(overfitting(series(**self.given(metric=[*worse[:-1], 0.4])), self.RULE, sign=-1))
            is None
        )

    def test_thresholds(self, series: Series) -> None:
        """Rise, patience, stall and drop can be set."""
        records = series(**self.given())
        for changes in ({"rise": 0.6}, {"patience": 9}, {"stall_epochs": 8}, {"drop": 0.25}):
            assert signal(overfitting(records, self.RULE.model_copy(update=changes))) is None
        assert (
            signal(
                overfitting(
                    records[:8], Overfitting(patience=1, rise=0.1, stall_epochs=3, drop=0.1)
                )
            )
            == "overfitting"
        )

    def test_unknown(self, series: Series) -> None:
        """Without validation losses there is nothing to judge."""
        records = series(**self.given(val_loss=NAN))
        assert signal(overfitting(records, self.RULE)) is None
        assert unjudged("overfitting", records)


class TestClassCollapse:
    HALF = (0.8, 0.3, 0.0, 0.004, None)
    RULE = ClassCollapse(grace_epochs=8, epochs=5, share=0.4, level=0.01, all_but_one_epochs=5)

    def test_for_long(self, series: Series) -> None:
        """Two in five of the held classes at nothing for five epochs after a grace of eight, and not an epoch earlier."""
        records = series(classes=[self.HALF] * 13)
        assert signal(class_collapse(records[:12], self.RULE)) is None
        found = class_collapse(records, self.RULE)
        assert found is not None
        assert (
            found.numbers["dead_classes"],
            found.numbers["held_classes"],
            found.numbers["epochs"],
        ) == ([2, 3], [0, 1, 2, 3], list(range(9, 14)))
        assert found.statement == "2 of 4 classes stayed at 0.01 or less from epoch 9 to 13"

    @pytest.mark.parametrize(
        "last",
        [
            [(0.8, 0.3, 0.1, 0.0, None)] * 5,
            [(0.8, 0.3, None, 0.0, None)] * 5,
            [HALF] * 2 + [(0.8, 0.3, 0.02, 0.0, None)] + [HALF] * 2,
            [HALF] * 4 + [(None,) * 5],
            [HALF] * 2 + [()] + [HALF] * 2,
        ],
    )
    def test_silent(self, series: Series, last: list[tuple[float | None, ...]]) -> None:
        """Not for a single rare class, nor for one that the split does not hold, that wakes for an epoch, or that is unknown in one."""
        assert signal(class_collapse(series(classes=[self.HALF] * 8 + last), self.RULE)) is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"dice_weight": [*[0.0] * 9, *[0.4] * 4], "settled": [*[False] * 9, *[True] * 4]},
            {"dice_weight": [0.04 * epoch for epoch in range(1, 14)], "settled": False},
            {"lr": [0.01 * min(epoch, 9) for epoch in range(1, 14)]},
        ],
    )
    def test_warm_up(self, series: Series, changes: dict[str, Any]) -> None:
        """While Dice or the learning rate warms up a class may sleep."""
        assert (
            signal(class_collapse(series(classes=[self.HALF] * 13, **changes), self.RULE)) is None
        )
        alone = series(classes=[(0.8, 0.0, 0.0, 0.0, None)] * 13, **changes)
        assert signal(class_collapse(alone, self.RULE)) is None

    def test_no_dice(self, series: Series) -> None:
        """Two stages of class weights, without Dice ever, are no warm-up of Dice once the grace is over; where nothing else is scheduled Dice is to come."""
        given = {
            "classes": [self.HALF] * 13,
            "dice_weight": 0.0,
            "ce_weight": 1.0,
            "settled": False,
        }
        assert (
            signal(class_collapse(series(**given, weight_ratio=4.0), self.RULE)) == "class_collapse"
        )
        assert signal(class_collapse(series(**given, weight_ratio=1.0), self.RULE)) is None
        sleepy = given | {"classes": [(0.8, 0.0, 0.0, 0.0, None)] * 13}
        assert [
            signal(class_collapse(series(**sleepy, weight_ratio=4.0)[:epochs], self.RULE))
            for epochs in (8, 12, 13)
        ] == [None, None, "class_collapse"]

    def test_dice_gone(self, series: Series) -> None:
        """Once Dice has come an epoch without it is no warm-up, whatever else has not settled."""
        weights = [*[0.0] * 3, *[0.4] * 2, *[0.0] * 8]
        records = series(classes=[self.HALF] * 13, dice_weight=weights, settled=False)
        assert signal(class_collapse(records, self.RULE)) == "class_collapse"

    @pytest.mark.parametrize(
        "changes",
        [
            {"settled": False},
            {"weight_ratio": [*[4.0] * 12, 25.0]},
            {"lr": [1.0 / epoch for epoch in range(1, 14)]},
        ],
    )
    def test_other_schedules(self, series: Series, changes: dict[str, Any]) -> None:
        """Other schedules, such as the smooth, the second stage of the weights or a falling rate, put no class to sleep."""
        assert (
            signal(class_collapse(series(classes=[self.HALF] * 13, **changes), self.RULE))
            == "class_collapse"
        )

    @pytest.mark.parametrize("alone", [(0.8, 0.0, 0.0, 0.0, None), (0.0, 0.0, 0.0, 0.0, None)])
    def test_one_alone(self, series: Series, alone: tuple[float | None, ...]) -> None:
        """One class alone, or none, found for five epochs is enough, grace or not."""
        assert signal(class_collapse(series(classes=[alone] * 4), self.RULE)) is None
        found = class_collapse(series(classes=[alone] * 5), self.RULE)
        assert found is not None
        assert found.numbers["epochs"] == [1, 2, 3, 4, 5]

    def test_two_classes(self, series: Series) -> None:
        """Of two classes one at 0 is a single rare class, and has the grace."""
        assert signal(class_collapse(series(classes=[(0.8, 0.0)] * 12), self.RULE)) is None
        assert (
            signal(class_collapse(series(classes=[(0.8, 0.0)] * 13), self.RULE)) == "class_collapse"
        )

    @pytest.mark.parametrize("nothing", [(None, None), ()])
    def test_nothing_held(self, series: Series, nothing: tuple[None, ...]) -> None:
        """A split that holds no class at all, or of which no class is known, has none that could collapse."""
        records = series(classes=[nothing] * 40)
        assert signal(class_collapse(records, self.RULE)) is None
        assert unjudged("class_collapse", records)

    @pytest.mark.parametrize(
        ("course", "found"),
        [
            ((0.002, 0.012), None),
            ((0.002, 0.006), "class_collapse"),
            ((0.012, 0.016), "class_collapse"),
            ((0.03, 0.0), "class_collapse"),
        ],
    )
    def test_waking(self, series: Series, course: tuple[float, float], found: str | None) -> None:
        """A class that gains half as much again, and is found by more than 1%, is waking; less, or the other way round, is none."""
        before, now = course
        classes = [(0.8, 0.3, 0.0, before, None)] * 8 + [(0.8, 0.3, 0.0, now, None)] * 5
        rule = self.RULE.model_copy(update={"level": 0.1})
        assert signal(class_collapse(series(classes=classes), rule)) == found

    def test_waking_at_once(self, series: Series) -> None:
        """Where nothing came before, a class that is found a little is waking."""
        classes = [(0.8, 0.02, 0.0, 0.03, None)] * 5
        rule = self.RULE.model_copy(update={"level": 0.1})
        assert signal(class_collapse(series(classes=classes), rule)) is None
        assert (
            signal(
                class_collapse(
                    series(classes=classes), rule.model_copy(update={"waking_level": 0.05})
                )
            )
            == "class_collapse"
        )

    def test_few_steps(self, series: Series) -> None:
        """Classes wake by steps: a trial of few steps is not judged, but for one class alone; records without steps have no such grace."""
        rule = self.RULE.model_copy(update={"grace_steps": 200})
        assert [
            signal(class_collapse(series(classes=[self.HALF] * 13, steps=steps), rule))
            for steps in (15, 16, 1, 0)
        ] == [None, *["class_collapse"] * 3]
        assert (
            signal(class_collapse(series(classes=[(0.8, 0.0, 0.0, 0.0, None)] * 5, steps=15), rule))
            == "class_collapse"
        )

    def test_thresholds(self, series: Series) -> None:
        """Share, level, window and grace can be set."""
        records = series(classes=[self.HALF] * 13)
        for changes in ({"share": 0.75}, {"level": 0.0}, {"epochs": 6}, {"grace_epochs": 9}):
            assert signal(class_collapse(records, self.RULE.model_copy(update=changes))) is None
        assert (
            signal(class_collapse(records[:3], ClassCollapse(grace_epochs=0, epochs=3, share=0.4)))
            == "class_collapse"
        )


COURSES: dict[str, dict[str, Any]] = {
    "nonfinite_loss": {"train_loss": [NAN]},
    "gradient_explosion": {"grad_norm_max": [2000.0]},
    "loss_rising": {"loss": RISING},
    "metric_falling": {"metric": FALLING},
    "loss_metric_decoupling": {
        "loss": list(TestLossMetricDecoupling.LOSS),
        "metric": [0.5, 0.5, 0.5, 0.4, 0.41, 0.35, 0.36, 0.3, 0.31],
    },
    "overfitting": {
        "loss": [1.2 - 0.05 * epoch for epoch in range(12)],
        "val_loss": [1.0, 0.9, *(1 + 0.1 * epoch for epoch in range(10))],
        "metric": [0.4, 0.5, 0.5, *[0.3] * 9],
    },
    "class_collapse": {"classes": [(0.8, 0.0, 0.0)] * 5},
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
        assert (
            fired(
                series(**COURSES[name]),
                SignalsConfig.model_validate({name: {"enabled": False}}),
                "maximize",
            )
            is None
        )

    @pytest.mark.parametrize("name", list(COURSES)[2:])
    def test_grace(self, series: Series, name: str) -> None:
        """Signals that watch epochs wait for the grace to be over, by default 3 epochs."""
        records = series(**COURSES[name])
        assert fired(records, SignalsConfig(grace_epochs=len(records)), "maximize") is None
        assert (
            signal(fired(records, SignalsConfig(grace_epochs=len(records) - 1), "maximize")) == name
        )
        assert SignalsConfig().grace_epochs == 3

    @pytest.mark.parametrize("name", list(COURSES)[:2])
    def test_no_grace(self, series: Series, name: str) -> None:
        """Signals that watch steps have no grace."""
        assert (
            signal(fired(series(**COURSES[name]), SignalsConfig(grace_epochs=99), "maximize"))
            == name
        )

    def test_step_first(self, series: Series) -> None:
        """Where several fire, what happened at a step is told before what happened over epochs."""
        records = series(
            loss=RISING, metric=FALLING, grad_norm_max=[1.0, 1.0, 1.0, 1.0, 1.0, 5000.0]
        )
        assert signal(fired(records, SignalsConfig(), "maximize")) == "gradient_explosion"

    @pytest.mark.parametrize(
        ("direction", "name"), [("minimize", "metric_falling"), ("maximize", None)]
    )
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
        falls = [NAN, 0.5, 0.499, 0.498, 0.497, 0.496, 0.4965, 0.494, 0.493]
        rises = [NAN, 0.5, 0.501, 0.502, 0.503, 0.504, 0.5035, 0.506, 0.507]
        metric, loss = (
            (falls if direction == "maximize" else rises),
            [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
        )
        records = series(
            loss=loss,
            metric=metric,
            val_loss=[NAN, 1.0, 1.001, 1.002, 1.003, 1.004, 1.005, 1.006, 1.007],
        )
        config = SignalsConfig.model_validate({"metric_falling": {"drop": 0.1}})
        assert [signal(fired(records[:epochs], config, direction)) for epochs in range(1, 10)] == [
            None
        ] * 9
        assert (
            fired(series(metric=[0.5, 0.4, 0.3, 0.2, 0.1, NAN]), SignalsConfig(), direction) is None
        )

    @pytest.mark.parametrize("seed", range(10))
    def test_healthy(self, series: Series, seed: int) -> None:
        """Forty epochs of a good trial with noise on everything fire nothing at any of them."""
        records = series(**healthy(40, seed))
        assert [
            signal(fired(records[:epochs], SignalsConfig(), "maximize")) for epochs in range(41)
        ] == [None] * 41

    @pytest.mark.parametrize(("to", "severity"), [(1.15, 0.15), (1.5, 0.5), (3.0, 1.0)])
    def test_severity(self, series: Series, to: float, severity: float) -> None:
        """The harder a trial diverged the more severe: a loss by its rise, up to its own size."""
        found = fired(
            series(loss=[1.0 + (to - 1.0) * step / 5 for step in range(6)]),
            SignalsConfig(),
            "maximize",
        )
        assert found is not None
        assert (found.severity, found.step) == (pytest.approx(severity), None)
