"""The thresholds of the divergence signals, named and validated, as a study's YAML can set them.

The defaults are what the problem's description gives; where it gives none, the comment says why this value.
"""

from __future__ import annotations

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
    """The training loss keeps rising: in every epoch of the window, and by more than noise."""

    enabled: bool = True
    epochs: int = Field(default=5, ge=2, description="rises in a row; 3 in a row kills good trials")
    rise: float = Field(default=0.1, ge=0, description="relative rise over the window that counts")


class MetricFalling(Frozen):
    """The metric falls epoch after epoch, and by more than noise."""

    enabled: bool = True
    epochs: int = Field(default=5, ge=2, description="falls in a row")
    drop: float = Field(default=0.0, ge=0, lt=1, description="fall over the window, relative to the best so far, that counts")


class ClassCollapse(Frozen):
    """Classes that the validation split holds stay at 0: some of them for long, or all but one for a few epochs."""

    enabled: bool = True
    grace_epochs: int = Field(default=20, ge=1, description="epochs after the schedule has settled; rare classes wake late")
    epochs: int = Field(default=10, ge=1, description="epochs in a row at 0")
    share: float = Field(default=0.5, gt=0, le=1, description="share of the held classes that must be at 0: a single rare class sleeps in good trials, too")
    all_but_one_epochs: int = Field(default=4, ge=1, description="epochs in a row, grace or not, in which one class alone is predicted")


class Overfitting(Frozen):
    """The training loss falls while the validation loss has risen for `patience` epochs, and the metric has long stopped gaining.

    The validation loss is not what a study is judged by: it rises in good trials, too, as their weights grow. So the
    metric must have stood still for twice the patience.
    """

    enabled: bool = True
    patience: int = Field(default=3, ge=1)
    rise: float = Field(default=0.25, ge=0, description="relative rise of the validation loss over its minimum that counts")


class LossMetricDivorce(Frozen):
    """The training loss falls and the metric falls over the same window, for good."""

    enabled: bool = True
    window: int = Field(default=5, ge=2)
    drop: float = Field(default=0.25, ge=0, lt=1, description="share of its best value that the smoothed metric must have lost; 0.1 kills the best trials")


class SignalsConfig(Frozen):
    """Every divergence signal and its thresholds."""

    grace_epochs: int = Field(default=3, ge=0, description="epochs before the epoch-wise signals judge; step-wise ones always do")
    nonfinite_loss: NonfiniteLoss = NonfiniteLoss()
    gradient_explosion: GradientExplosion = GradientExplosion()
    loss_rising: LossRising = LossRising()
    metric_falling: MetricFalling = MetricFalling()
    class_collapse: ClassCollapse = ClassCollapse()
    overfitting: Overfitting = Overfitting()
    loss_metric_divorce: LossMetricDivorce = LossMetricDivorce()
