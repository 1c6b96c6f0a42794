"""The signals on losses and metric over a window of epochs."""

from __future__ import annotations

from typing import Any

import pytest

from search.pruners.signals import find_divergence, lacks_numbers
from search.pruners.trend_signals import (
    loss_metric_decoupling,
    loss_rising,
    metric_falling,
    overfitting,
)
from spaces.thresholds import (
    LossMetricDecoupling,
    LossRising,
    MetricFalling,
    Overfitting,
    SignalsConfig,
)
from tests.unit.search.pruners.conftest import DECOUPLED_LOSS, FALLING, NAN, RISING, Series, signal


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
        """It fires on a rise by a tenth over five epochs, with one slip; an outlier is no trend."""
        assert signal(loss_rising(series(loss=loss), LossRising())) == name

    def test_evidence(self, series: Series) -> None:
        """The evidence has the epochs and losses of the window."""
        found = loss_rising(series(loss=[0.9, *RISING]), LossRising())
        assert found is not None
        assert (found.epoch, found.numbers["epochs"], found.numbers["train_loss"]) == (
            7,
            [2, 3, 4, 5, 6, 7],
            pytest.approx(RISING),
        )
        assert found.statement == "the training loss rose over 5 epochs, from 0.5 to 0.75"

    def test_thresholds(self, series: Series) -> None:
        """Window, rise and agreement can be set, also to the plain rule of rises in a row."""
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
        """A rise that is small relative to the trial's own noise does not fire."""
        noisy = [1.0, 2.0] * 7
        rise = [1.1, 1.6, 1.5, 1.9, 2.0, 2.2]
        assert signal(loss_rising(series(loss=rise), LossRising())) == "loss_rising"
        assert signal(loss_rising(series(loss=[*noisy, *rise]), LossRising())) is None
        assert (
            signal(loss_rising(series(loss=[*noisy, *rise]), LossRising(noise=0))) == "loss_rising"
        )

    def test_moving_split(self, series: Series) -> None:
        """While Dice ramps up the total rises; with the latest CE/Dice weights it does not."""
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
        """A rise with constant CE/Dice weights fires while a schedule changes them."""
        shares = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5]
        records = series(
            loss=RISING,
            dice_weight=shares,
            ce_weight=[1 - share for share in shares],
            settled=False,
        )
        assert signal(loss_rising(records, LossRising())) == "loss_rising"

    def test_dice_comes_in(self, series: Series) -> None:
        """An epoch without Dice is not compared with one that has it."""
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
        """Epochs with other class weights or another smooth are left out."""
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
        """The smooth has no meaning for a loss without Dice."""
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
        """It fires on a fall over five epochs, with one slip; noise and an outlier are no trend."""
        assert signal(metric_falling(series(metric=metric), self.RULE)) == name

    def test_slips(self, series: Series) -> None:
        """A fall with slips has to be larger."""
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
        """With agreement 1 it is the plain rule: five falls in a row, however small."""
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
        """Falls in each of the last five epochs fire, however small, and whatever came before."""
        fall = [0.50, 0.499, 0.498, 0.497, 0.496, 0.495]
        assert (
            signal(find_divergence(series(metric=[*before, *fall]), SignalsConfig(), "maximize"))
            == "metric_falling"
        )
        assert (
            find_divergence(series(metric=[*before, *fall[:-1]]), SignalsConfig(), "maximize")
            is None
        )
        assert (
            find_divergence(
                series(metric=[*before, *fall[:-1], 0.497]), SignalsConfig(), "maximize"
            )
            is None
        )

    def test_relative_to_the_best(self, series: Series) -> None:
        """A fall that is small relative to the best so far does not fire."""
        low = [0.11, 0.1, 0.09, 0.08, 0.07, 0.06]
        assert signal(metric_falling(series(metric=low), self.RULE)) == "metric_falling"
        assert signal(metric_falling(series(metric=[0.9, *low]), self.RULE)) is None

    def test_noise(self, series: Series) -> None:
        """A fall with slips within the trial's own noise does not fire."""
        noisy = [0.3, 0.5] * 7
        fall = [0.46, 0.4, 0.38, 0.385, 0.34, 0.33]
        assert signal(metric_falling(series(metric=fall), self.RULE)) == "metric_falling"
        assert signal(metric_falling(series(metric=[*noisy, *fall]), self.RULE)) is None

    def test_minimize(self, series: Series) -> None:
        """Where the metric is minimized, a rise fires."""
        found = metric_falling(series(metric=RISING), self.RULE, sign=-1)
        assert found is not None
        assert found.numbers["best_metric"] == 0.5
        assert found.statement == "the metric got worse over 5 epochs, from 0.5000 to 0.7500"
        assert signal(metric_falling(series(metric=FALLING), self.RULE, sign=-1)) is None

    def test_nan(self, series: Series) -> None:
        """An epoch without a metric is skipped, and never fires."""
        assert (
            signal(metric_falling(series(metric=[*FALLING[:3], NAN, *FALLING[3:]]), self.RULE))
            == "metric_falling"
        )
        assert signal(metric_falling(series(metric=[*FALLING, NAN]), self.RULE)) is None


class TestLossMetricDecoupling:
    RULE = LossMetricDecoupling(window=5, drop=0.25, unbroken_epochs=9, noise=3)
    LOSS = DECOUPLED_LOSS
    METRIC = (0.45, 0.45, 0.44, 0.42, 0.40, 0.38, 0.35, 0.32, 0.30)

    def test_fires(self, series: Series) -> None:
        """It fires where loss and smoothed metric fall, the metric a quarter below its best."""
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
        """It is silent on a small fall, a rise of either, a short trial, and noise."""
        assert (
            signal(loss_metric_decoupling(series(loss=list(loss), metric=list(metric)), self.RULE))
            is None
        )

    def test_recovered(self, series: Series) -> None:
        """A dip of two epochs that the latest epoch has left does not fire."""
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
        """It fires where loss and metric fall in each of the first five epochs."""
        records = series(loss=list(self.TABLE_LOSS), metric=list(self.TABLE_METRIC))
        assert [
            signal(find_divergence(records[:epochs], SignalsConfig(), "maximize"))
            for epochs in range(1, 6)
        ] == [None] * 4 + ["loss_metric_decoupling"]
        found = loss_metric_decoupling(records, LossMetricDecoupling())
        assert found is not None
        assert (found.numbers["epochs"], found.numbers["metric"]) == (
            [1, 2, 3, 4, 5],
            list(self.TABLE_METRIC),
        )
        assert (
            found.statement
            == "over 4 epochs the loss fell from 0.8 to 0.5 while the metric went from 0.4500"
            " at best to 0.3500"
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
        """A slip of either, a small fall, or one within the noise does not fire so early."""
        assert (
            signal(
                loss_metric_decoupling(
                    series(loss=list(loss), metric=list(metric)), LossMetricDecoupling()
                )
            )
            is None
        )

    def test_minimize(self, series: Series) -> None:
        """Where the metric is minimized, a rising metric fires."""
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
        """Losses with another smooth or other class weights are not compared."""
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
        """It fires where training loss falls, validation loss rises, and the metric has stalled."""
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
            == "the validation loss rose to 1.5 (lowest 0.95) while the training loss fell to 0.5"
            " and the metric gained nothing in 6 epochs"
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
        """It is silent while any of its conditions is not met, or the epochs cannot be compared."""
        assert signal(overfitting(series(**self.given(**changes)), self.RULE)) is None

    def test_minimize(self, series: Series) -> None:
        """Where the metric is minimized, a falling metric is a gain."""
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
        """Without validation losses it does not judge."""
        records = series(**self.given(val_loss=NAN))
        assert signal(overfitting(records, self.RULE)) is None
        assert lacks_numbers("overfitting", records)
