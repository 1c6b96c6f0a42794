"""The thresholds of the divergence signals, named and validated, as a study's YAML can set them.

The rules are those of the problem's description, made robust: it says "falls 5 epochs in a row", which noise breaks up in
bad trials and, at fewer epochs, brings about in good ones. Whom each rule kills of 160 recorded trials, which the defaults
were tuned on, `search backtest --records benchmarks/campaign/first.jsonl.gz` tells, with other thresholds by `--signals`;
docs/studies.md has what the literal rules would kill, and `python -m benchmarks.backtest` what nothing was tuned on.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from spaces.frozen import Frozen


class NonfiniteLoss(Frozen):
    """The loss or the gradient norm was NaN or infinite at a step."""

    enabled: bool = True


class GradientExplosion(Frozen):
    """The gradient norm before clipping passed a bound at a step."""

    enabled: bool = True
    max_norm: float = Field(default=1000.0, gt=0)


class LossRising(Frozen):
    """The training loss keeps rising over the window: steadily, by enough, and by more than noise.

    That it rises 5 epochs in a row hardly ever happens, for the losses of bad trials jump.
    """

    enabled: bool = True
    epochs: int = Field(default=5, ge=2, description="length of the window")
    agreement: float = Field(
        default=0.8,
        ge=0.5,
        le=1,
        description="share of all pairs of epochs in the window of which the later is higher; 1: rises in a row",
    )
    rise: float = Field(
        default=0.1,
        ge=0,
        description="relative rise over the window, by its robust slope, that counts",
    )
    noise: float = Field(
        default=3.0,
        ge=0,
        description="rise over the window, in units of the loss's own noise, that counts",
    )


class MetricFalling(Frozen):
    """The metric fell in each epoch of the window, however little; or far though with slips, and by more than noise.

    A course that stands still but for noise falls five times in a row by chance, too, so long trials may want a `drop`.
    """

    enabled: bool = True
    epochs: int = Field(default=5, ge=2, description="length of the window")
    drop: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="fall over the window, relative to the best so far, that counts where it fell in every epoch; 0: any",
    )
    slipping_drop: float = Field(
        default=0.4,
        ge=0,
        lt=1,
        description="the same where it slipped, by the robust slope of the window; must be the larger one to matter",
    )
    agreement: float = Field(
        default=0.8,
        ge=0.5,
        le=1,
        description="share of all pairs of epochs in the window of which the later must be worse, slips or not; 1: no slips",
    )
    noise: float = Field(
        default=3.0,
        ge=0,
        description="fall over the window, in units of the metric's own noise, that counts where it slipped",
    )


class ClassCollapse(Frozen):
    """Classes that the validation split holds are hardly found and not waking: more than half after a grace, or all but one for a few epochs.

    Epochs in which Dice or the learning rate warms up do not count: classes may sleep in them. One rare class at 0 is no
    collapse, for it wakes late in good trials, and a class that gains is waking, however little of it is found so far.
    Classes wake by steps rather than by epochs, so the grace has both.
    """

    enabled: bool = True
    grace_epochs: int = Field(
        default=7,
        ge=0,
        description="epochs from the start of a trial that do not count: rare classes wake late",
    )
    grace_steps: int = Field(
        default=200,
        ge=0,
        description="optimiser steps that a trial must have made, where they are recorded: short epochs teach little",
    )
    epochs: int = Field(
        default=4, ge=1, description="epochs in a row in which a class is hardly found"
    )
    share: float = Field(
        default=0.55,
        gt=0,
        le=1,
        description="share of the held classes that must be so: rare classes sleep in good trials, too",
    )
    level: float = Field(
        default=0.1, ge=0, lt=1, description="class metric up to which a class is hardly found"
    )
    waking_gain: float = Field(
        default=1.5,
        ge=1,
        description="a class is waking when its mean over the epochs is more than so many times that of as many epochs before",
    )
    waking_level: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="mean class metric above which a gain counts: below it everything is chance",
    )
    all_but_one_epochs: int = Field(
        default=5,
        ge=1,
        description="epochs in a row, grace or not, in which no more than one class is found",
    )


class Overfitting(Frozen):
    """The training loss falls while the validation loss has risen for `patience` epochs, and the metric has long stopped gaining.

    The validation loss is not what a study is judged by: it rises in good trials, too, as their weights grow. So the
    metric must have stood still as well, and lie below its best.
    """

    enabled: bool = True
    patience: int = Field(
        default=3, ge=1, description="length of the window in which the validation loss rises"
    )
    rise: float = Field(
        default=0.25,
        ge=0,
        description="relative rise of the smoothed validation loss over its minimum that counts",
    )
    stall_epochs: int = Field(default=8, ge=1, description="epochs without a better metric")
    drop: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="share of its best value that the smoothed metric must have lost",
    )


class LossMetricDecoupling(Frozen):
    """The training loss falls and the smoothed metric falls over the same window, far below its best.

    Or both fall in each of a few epochs, as in the table that the problem begins with, which is shorter than the window.
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
        description="epochs in a row, each with a lower loss and a lower metric, that are enough without the window",
    )
    unbroken_drop: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="share of its best value that the smoothed metric must have lost in them",
    )
    noise: float = Field(
        default=3.0, ge=0, description="the same loss in units of the metric's own noise, for both"
    )


FORMER_SIGNALS: Mapping[str, str] = {"loss_metric_divorce": "loss_metric_decoupling"}
"""Former name of a signal → its name now."""


class SignalsConfig(Frozen):
    """Every divergence signal and its thresholds."""

    former_keys = FORMER_SIGNALS

    grace_epochs: int = Field(
        default=3,
        ge=0,
        description="epochs before the epoch-wise signals judge; step-wise ones always do",
    )
    nonfinite_loss: NonfiniteLoss = NonfiniteLoss()
    gradient_explosion: GradientExplosion = GradientExplosion()
    loss_rising: LossRising = LossRising()
    metric_falling: MetricFalling = MetricFalling()
    class_collapse: ClassCollapse = ClassCollapse()
    overfitting: Overfitting = Overfitting()
    loss_metric_decoupling: LossMetricDecoupling = LossMetricDecoupling()


SIGNALS = tuple(name for name in SignalsConfig.model_fields if name != "grace_epochs")
"""The signals by name, step-wise ones first."""


def rename_former_signals(text: str) -> str:
    """Replace the former names of signals in a stored name or sentence by their names now."""
    for former, name in FORMER_SIGNALS.items():
        text = text.replace(former, name)
    return text
