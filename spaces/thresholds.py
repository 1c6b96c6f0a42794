"""The thresholds of the divergence signals, with defaults and ranges; a study can set them.

The rules are those of the problem's description, made robust: "falls 5 epochs in a row" misses bad
trials because of noise, and with fewer epochs it fires on good ones. The defaults were tuned on 160
recorded trials; `search backtest --records benchmarks/campaign/first.jsonl.gz` lists which of them
each rule stops, and `--signals` tries other thresholds. docs/studies.md shows which trials the
literal rules would stop, and `python -m benchmarks.backtest` has trials that nothing was tuned on.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from spaces.frozen import Frozen


class NonfiniteLoss(Frozen):
    """The loss or the gradient norm was NaN or infinite at a step."""

    enabled: bool = True


class GradientExplosion(Frozen):
    """The gradient norm before clipping exceeded a bound at a step."""

    enabled: bool = True
    max_norm: float = Field(default=1000.0, gt=0)


class LossRising(Frozen):
    """The training loss rises over the window: steadily, by enough, and by more than noise.

    It hardly ever rises 5 epochs in a row, because the losses of bad trials jump.
    """

    enabled: bool = True
    epochs: int = Field(default=5, ge=2, description="length of the window")
    agreement: float = Field(
        default=0.8,
        ge=0.5,
        le=1,
        description=(
            "share of all pairs of epochs in the window in which the later loss is higher; 1: it "
            "rises in every epoch"
        ),
    )
    rise: float = Field(
        default=0.1,
        ge=0,
        description="least relative rise over the window, by its robust slope",
    )
    noise: float = Field(
        default=3.0,
        ge=0,
        description="least rise over the window, in units of the loss's own noise",
    )


class MetricFalling(Frozen):
    """The metric falls in every epoch of the window; or not in each, but far and beyond noise.

    A metric that only varies by noise also falls five times in a row by chance, so a long trial may
    need a `drop`.
    """

    enabled: bool = True
    epochs: int = Field(default=5, ge=2, description="length of the window")
    drop: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description=(
            "least fall over the window, relative to the best so far, if it fell in every epoch; "
            "0: any fall"
        ),
    )
    slipping_drop: float = Field(
        default=0.4,
        ge=0,
        lt=1,
        description=(
            "the same if it did not fall in every epoch, by the robust slope of the window; only "
            "matters if it is larger than drop"
        ),
    )
    agreement: float = Field(
        default=0.8,
        ge=0.5,
        le=1,
        description=(
            "share of all pairs of epochs in the window in which the later metric is worse; 1: it "
            "falls in every epoch"
        ),
    )
    noise: float = Field(
        default=3.0,
        ge=0,
        description=(
            "least fall over the window, in units of the metric's own noise, if it did not fall in "
            "every epoch"
        ),
    )


class ClassCollapse(Frozen):
    """Classes of the validation split have a metric near zero and are not recovering.

    Either more than half of them after a grace period, or all but one for a few epochs. Epochs in
    which Dice or the learning rate warms up do not count, since classes may be near zero then. One
    rare class at 0 is no collapse, because in good trials it recovers late, and a class that gains
    is recovering, however low it still is. Classes recover by steps rather than by epochs, so the
    grace period has both.
    """

    enabled: bool = True
    grace_epochs: int = Field(
        default=7,
        ge=0,
        description="epochs from the start of a trial that do not count: rare classes recover late",
    )
    grace_steps: int = Field(
        default=200,
        ge=0,
        description=(
            "optimizer steps that a trial must have made, if they are recorded: short epochs train "
            "little"
        ),
    )
    epochs: int = Field(
        default=4, ge=1, description="epochs in a row in which a class is near zero"
    )
    share: float = Field(
        default=0.55,
        gt=0,
        le=1,
        description=(
            "share of the classes in the split that must be near zero: rare ones are near zero in "
            "good trials, too"
        ),
    )
    level: float = Field(
        default=0.1, ge=0, lt=1, description="class metric up to which a class is near zero"
    )
    waking_gain: float = Field(
        default=1.5,
        ge=1,
        description=(
            "a class is recovering when its mean over the epochs is more than this many times the "
            "mean over as many epochs before"
        ),
    )
    waking_level: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="mean class metric above which a gain counts: below it a gain is chance",
    )
    all_but_one_epochs: int = Field(
        default=5,
        ge=1,
        description="epochs in a row, also in the grace period, with at most one class above level",
    )


class Overfitting(Frozen):
    """The training loss falls, the validation loss rises, and the metric no longer improves.

    The validation loss alone is not enough: it rises in good trials, too, as their weights grow. So
    the metric must be below its best as well, and have no new best.
    """

    enabled: bool = True
    patience: int = Field(
        default=3, ge=1, description="length of the window in which the validation loss rises"
    )
    rise: float = Field(
        default=0.25,
        ge=0,
        description="least relative rise of the smoothed validation loss over its minimum",
    )
    stall_epochs: int = Field(default=8, ge=1, description="epochs without a better metric")
    drop: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="share of its best value that the smoothed metric must have lost",
    )


class LossMetricDecoupling(Frozen):
    """Training loss and smoothed metric fall over the same window, the metric far below its best.

    Or both fall in each of a few epochs, which may be fewer than the window, as in the table at the
    start of the problem's description.
    """

    enabled: bool = True
    window: int = Field(default=5, ge=2)
    drop: float = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="share of its best value that the smoothed metric must have lost",
    )
    unbroken_epochs: int = Field(
        default=4,
        ge=2,
        description="epochs in a row with lower loss and metric that suffice without the window",
    )
    unbroken_drop: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="share of its best value that the smoothed metric must have lost in them",
    )
    noise: float = Field(
        default=3.0, ge=0, description="least lost metric in units of its own noise, for both rules"
    )


FORMER_SIGNALS: Mapping[str, str] = {"loss_metric_divorce": "loss_metric_decoupling"}
"""Former name of a signal → its name now."""


class SignalsConfig(Frozen):
    """All divergence signals and their thresholds."""

    former_keys = FORMER_SIGNALS

    grace_epochs: int = Field(
        default=3,
        ge=0,
        description="epochs before the epoch-wise signals can fire; step-wise ones always can",
    )
    nonfinite_loss: NonfiniteLoss = NonfiniteLoss()
    gradient_explosion: GradientExplosion = GradientExplosion()
    loss_rising: LossRising = LossRising()
    metric_falling: MetricFalling = MetricFalling()
    class_collapse: ClassCollapse = ClassCollapse()
    overfitting: Overfitting = Overfitting()
    loss_metric_decoupling: LossMetricDecoupling = LossMetricDecoupling()


SIGNALS = tuple(name for name in SignalsConfig.model_fields if name != "grace_epochs")
"""Names of the signals, step-wise ones first."""


def rename_former_signals(text: str) -> str:
    """Replace the former names of signals in a stored name or sentence by their names now."""
    for former, name in FORMER_SIGNALS.items():
        text = text.replace(former, name)
    return text
