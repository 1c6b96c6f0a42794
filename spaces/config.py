"""The configuration of one trial: the sections that all objectives share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from spaces.frozen import Frozen

WeightMethod = Literal[
    "uniform", "inverse_freq", "sqrt_inv_freq", "median_freq", "effective_number", "log_inv_freq"
]
Direction = Literal["maximize", "minimize"]
ScoreRule = Literal["best", "last", "mean_last_5"]


class MetricConfig(Frozen):
    """The metric that compares trials; never the training loss, which hyperparameters rescale."""

    name: str = Field(default="miou", description="a metric of the objective")
    direction: Direction = "maximize"
    score: ScoreRule = Field(
        default="best",
        description="how epochs become one score: best epoch, last epoch, mean of the last five",
    )


class WeightsConfig(Frozen):
    """How class frequencies become class weights (mean 1, max/min at most `clip_ratio`)."""

    method: WeightMethod = "uniform"
    clip_ratio: float | None = Field(
        default=None,
        ge=1,
        description="upper bound of max(w)/min(w); 100 clips to 0.1 … 10; null: no bound",
    )
    beta: float = Field(
        default=0.9999, ge=0, lt=1, description="effective_number only (Cui et al. 2019)"
    )


class LossConfig(Frozen):
    """`ce_weight`·(cross entropy or focal) + `dice_weight`·(Dice or another overlap loss)."""

    kind: Literal["ce", "focal", "ce_focal", "soft_ce"] = Field(
        default="ce",
        description=(
            "ce_focal: both, by focal_share; soft_ce: segmentation_models_pytorch's, "
            "without class weights"
        ),
    )
    focal_share: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="ce_focal only: share of the focal loss, the rest is cross entropy",
    )
    ce_weight: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="weight of cross entropy or focal; 1 − dice_weight when left out",
    )
    dice_weight: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="weight of Dice, or of another overlap loss; 1 − ce_weight when left out",
    )
    overlap: Literal["dice", "jaccard", "tversky", "lovasz"] = Field(
        default="dice",
        description="what dice_weight weights; all but dice are segmentation_models_pytorch's",
    )
    tversky_alpha: float = Field(
        default=0.5, ge=0, description="tversky only: weight of false positives"
    )
    tversky_beta: float = Field(
        default=0.5, ge=0, description="tversky only: weight of false negatives"
    )
    normalize: bool = Field(
        default=False,
        description=(
            "divide each part by its running mean, so that class weights and CE/Dice weights "
            "do not change the scale of the loss"
        ),
    )
    normalize_momentum: float = Field(
        default=0.99, ge=0, lt=1, description="normalize only: momentum of the running means"
    )
    smooth: float = Field(
        default=1.0, ge=0, description="smoothing constant of Dice, Jaccard and Tversky"
    )
    square_denominator: bool = Field(
        default=False, description="Dice over p² + g² instead of p + g"
    )
    dice_reduction: Literal["global", "image"] = Field(
        default="global", description="Dice over the whole batch, or per image"
    )
    gamma: float = Field(default=2.0, ge=0, description="focusing exponent; 0 is cross entropy")
    alpha: float | tuple[float, ...] | None = Field(
        default=None,
        description="one factor, or one per class; a single one is only a second learning rate",
    )
    alpha_tau: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="alpha_c ∝ f_c^(−tau): 0 uniform, 0.5 square root, 1 inverse frequency",
    )
    class_alpha: dict[str, float] = Field(
        default={},
        description=(
            "class → factor on top of alpha_tau; a class that is left out has 1, and only the "
            "ratios count"
        ),
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _derive_other_weight(cls, given: Any) -> Any:
        if isinstance(given, dict) and ("ce_weight" in given) != ("dice_weight" in given):
            name = "ce_weight" if "ce_weight" in given else "dice_weight"
            other = "dice_weight" if "ce_weight" in given else "ce_weight"
            if isinstance(given[name], (int, float)) and 0 <= given[name] <= 1:
                return {**given, other: 1.0 - given[name]}
        return given

    @model_validator(mode="after")
    def _check_consistent(self) -> LossConfig:
        total = self.ce_weight + self.dice_weight
        if abs(total - 1) > 1e-6:
            context = {
                "ce": f"{self.ce_weight:g}",
                "dice": f"{self.dice_weight:g}",
                "total": f"{total:g}",
            }
            raise PydanticCustomError(
                "loss_weights",
                "ce_weight and dice_weight must sum to 1, but {ce} + {dice} is {total}; "
                "set only one of the two",
                context,
            )
        if self.alpha is not None and self.alpha_tau is not None:
            raise PydanticCustomError(
                "two_alphas", "alpha and alpha_tau exclude each other; set one of them to null", {}
            )
        if self.alpha is not None and self.class_alpha:
            raise PydanticCustomError(
                "two_alphas", "alpha and class_alpha exclude each other; set alpha to null", {}
            )
        for name, factor in self.class_alpha.items():
            if not factor > 0:
                raise PydanticCustomError(
                    "factor",
                    "the factor of class {name} in class_alpha must be above 0, but is {factor}",
                    {"name": name, "factor": f"{factor:g}"},
                )
        values = self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)
        if any(value is not None and value < 0 for value in values):
            raise PydanticCustomError(
                "negative_alpha",
                "alpha must not be negative, but is {alpha}",
                {"alpha": str(self.alpha)},
            )
        return self


class OptimizerConfig(Frozen):
    """The optimizer; its learning rate is searched as a multiple, to suit any data set."""

    kind: Literal["sgd", "adamw"] = "sgd"
    base_lr: float = Field(
        default=1e-5, gt=0, description="the learning rate of a multiple of 1, for these data"
    )
    lr_multiple: float = Field(default=1.0, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd only")
    weight_decay: float = Field(default=0.0, ge=0)
    grad_clip_norm: float | None = Field(
        default=None, gt=0, description="max_norm of the global gradient norm; null: no clipping"
    )
    accumulate: int = Field(default=1, ge=1, description="batches per optimizer step")

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        return self.base_lr * self.lr_multiple


class Stage(Frozen):
    """Values that apply before an epoch, instead of the final ones of the configuration."""

    before_epoch: int = Field(
        ge=2, description="the stage covers the epochs below this one; epochs count from 1"
    )
    dice_weight: float | None = Field(default=None, ge=0, le=1)
    smooth: float | None = Field(default=None, ge=0)
    lr_multiple: float | None = Field(default=None, gt=0)
    clip_ratio: float | None = Field(default=None, ge=1)


class ScheduleConfig(Frozen):
    """What changes from epoch to epoch.

    Of the stages that cover an epoch and have a value, the first applies. Epoch numbers of
    `smooth_steps` and `plan` are for 30 epochs or more; a shorter training scales them down.
    """

    dice_ce_only_epochs: int = Field(
        default=0, ge=0, description="Dice warm-up: number of epochs with cross entropy alone …"
    )
    dice_ramp_epochs: int = Field(
        default=0,
        ge=0,
        description="… then epochs in which dice_weight rises linearly to its final value",
    )
    lr: Literal["constant", "linear", "cosine"] = "constant"
    lr_warmup_epochs: int = Field(default=0, ge=0, description="linear warm-up, then `lr`")
    smooth_steps: bool = Field(
        default=False,
        description="smooth 10 before epoch 10, 5 before epoch 20, then `loss.smooth`",
    )
    light_clip_epochs: int = Field(
        default=0,
        ge=0,
        description="number of epochs with `light_clip_ratio`, before `weights.clip_ratio`",
    )
    light_clip_ratio: float = Field(default=4.0, ge=1, description="light_clip_epochs only")
    plan: Literal["none", "progressive"] = Field(
        default="none",
        description=(
            "progressive: 5 epochs without Dice at 5/3 of the rate, 10 with half of dice_weight "
            "and smooth 5, then the final values"
        ),
    )
    swa_from_epoch: int | None = Field(
        default=None,
        ge=1,
        description=(
            "first epoch whose weights are averaged and validated as an average (Izmailov et al. "
            "2018); null: no average"
        ),
    )
    stages: tuple[Stage, ...] = Field(
        default=(), description="smooth steps, two-stage clip ratio, progressive plan"
    )


class TrialConfig(Frozen):
    """The configuration of every objective; each subclasses it and adds its own sections."""

    objective: str = "segmentation"
    epochs: int = Field(default=30, ge=1, le=100_000)
    seed: int = Field(default=0, ge=0)
    metric: MetricConfig = MetricConfig()
