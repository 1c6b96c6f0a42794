"""The thresholds of the signals that end trials, with defaults and ranges; a study can set them.

The rules are those of the problem's description, made robust: "falls 5 epochs in a row" misses bad
trials because of noise, and with fewer epochs it fires on good ones. The defaults were tuned on 160
recorded trials; `search backtest --records benchmarks/campaign/first.jsonl.gz` lists which of them
each rule stops, and `--signals` tries other thresholds. docs/studies.md shows which trials the
literal rules would stop, and `python -m benchmarks.backtest` has trials that nothing was tuned on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from spaces.frozen import Frozen

FOUND_LEVEL = 0.01
"""Class metric up to which nothing of a class is found; one never above it was never found."""

LEARNED_LEVEL = 0.2
"""Class metric above which a class has been learned, so that it can be lost again."""


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


class DeadClasses(Frozen):
    """When classes count as dead: near zero for a few epochs, and not recovering.

    Epochs in which Dice or the learning rate warms up do not count, since classes may be near zero
    then. One rare class near zero is no failure, because in good trials it is found late, and a
    class that gains is recovering, however low it still is. Classes recover by steps rather than by
    epochs, so the grace period has both.
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
        default=FOUND_LEVEL,
        ge=0,
        lt=1,
        description="mean class metric above which a gain counts: below it a gain is chance",
    )
    all_but_one_epochs: int = Field(
        default=5,
        ge=1,
        description="epochs in a row, also in the grace period, with at most one class above level",
    )
    found_level: float = Field(
        default=LEARNED_LEVEL,
        gt=0,
        lt=1,
        description="class metric above which a class has been learned, in two epochs in a row",
    )


class ClassCollapse(DeadClasses):
    """Classes that were learned are lost, or dead ones stay dead in a trial that learns nothing more.

    Lost: a class was clearly above zero, is near zero now, and is not recovering. Dead for good: a
    `share` of the classes, or all but one, was never learned, long after the schedule has settled,
    and the training loss has stopped falling as well. Where it still falls, the trial is slow
    rather than collapsed, which `not_learning` judges.
    """

    lost_share: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description=(
            "share of the classes that were learned that must be lost, unless a share of all classes "
            "is near zero: then a single one that was learned is enough"
        ),
    )
    settled_epochs: int = Field(
        default=10,
        ge=2,
        description="epochs after the schedule has settled, for classes that were never learned",
    )
    loss_noise: float = Field(
        default=3.0,
        ge=0,
        description=(
            "the training loss still falls if it falls by more than this over these epochs, in "
            "units of its own noise"
        ),
    )


class NotLearning(DeadClasses):
    """Most classes have never been learned, and the metric has stopped improving.

    The trial is slow, or stuck from its start; it has not diverged. So it is pruned and stays
    feasible, and the sampler does not take a low learning rate for a divergence.
    """


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


class Sparing(Frozen):
    """Which trials a signal only warns about: ending them would save little, or lose much.

    Signals on single steps, `nonfinite_loss` and `gradient_explosion`, end every trial.
    """

    enabled: bool = True
    least_epochs_left: int = Field(
        default=2, ge=0, description="a trial with fewer epochs left is spared"
    )
    least_share_left: float = Field(
        default=0.15,
        ge=0,
        lt=1,
        description="a trial with a smaller share of its epochs left is spared",
    )
    best_share: float = Field(
        default=1 / 3,
        ge=0,
        le=1,
        description=(
            "a trial whose score so far is within this best share of its peers' metrics at that "
            "epoch is spared; 0: none is"
        ),
    )
    least_peers: int = Field(
        default=3,
        ge=1,
        description=(
            "complete trials with a metric at that epoch that such a comparison needs; with fewer "
            "of them not_learning spares every trial, since what is slow shows in comparison only"
        ),
    )
    improving_epochs: int = Field(
        default=3,
        ge=1,
        description=(
            "a trial is improving when its mean metric over these epochs is above that of as many "
            "epochs before, or when the best metric is among them"
        ),
    )
    improving_noise: float = Field(
        default=2.0,
        ge=0,
        description="least improvement that counts, in units of the metric's own noise",
    )
    improving_gain: float = Field(
        default=0.03,
        ge=0,
        description="least improvement that counts, as a share of the best metric so far",
    )


class SignalsConfig(Frozen):
    """All signals, their thresholds, and which trials they spare.

    Where `not_learning` is left out it has the thresholds on dead classes of `class_collapse`, from
    which it was split: a study that disabled that, or set its level, means both.
    """

    former_keys = FORMER_SIGNALS

    grace_epochs: int = Field(
        default=3,
        ge=0,
        description="epochs before the epoch-wise signals can fire; step-wise ones always can",
    )
    sparing: Sparing = Sparing()
    nonfinite_loss: NonfiniteLoss = NonfiniteLoss()
    gradient_explosion: GradientExplosion = GradientExplosion()
    loss_rising: LossRising = LossRising()
    metric_falling: MetricFalling = MetricFalling()
    class_collapse: ClassCollapse = ClassCollapse()
    not_learning: NotLearning = NotLearning()
    overfitting: Overfitting = Overfitting()
    loss_metric_decoupling: LossMetricDecoupling = LossMetricDecoupling()

    @model_validator(mode="before")
    @classmethod
    def _split_class_collapse(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "not_learning" in given:
            return given
        collapse = given.get("class_collapse")
        if isinstance(collapse, ClassCollapse):  # in a study that Python code defines
            collapse = collapse.model_dump(exclude_unset=True)
        if not isinstance(collapse, Mapping):
            return given
        common = {key: collapse[key] for key in DeadClasses.model_fields if key in collapse}
        return {**given, "not_learning": common} if common else given


SIGNALS = tuple(
    name for name in SignalsConfig.model_fields if name not in ("grace_epochs", "sparing")
)
"""Names of the signals, step-wise ones first."""

STEP_SIGNALS = ("nonfinite_loss", "gradient_explosion")
"""Signals that judge single steps: no trial is spared, as it cannot continue usefully."""

SLOW_SIGNALS = ("not_learning",)
"""Signals on slowness: a trial that they end is pruned and stays feasible for the sampler."""


def rename_former_signals(text: str) -> str:
    """Replace the former names of signals in a stored name or sentence by their names now."""
    for former, name in FORMER_SIGNALS.items():
        text = text.replace(former, name)
    return text
