"""A study: what is searched, on which data, by which sampler, and when trials are stopped."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from spaces.config import MetricConfig
from spaces.frozen import Frozen
from spaces.parameters import Parameter
from spaces.thresholds import SignalsConfig

CURVE_KINDS = ("auto", "gp")
"""Kinds of sampler that decide by the learning curves of all trials."""


class SamplerConfig(Frozen):
    """How the next trial is sampled."""

    kind: Literal["auto", "gp", "tpe", "random", "optuna"] = Field(
        default="auto",
        description=(
            "auto: a Gaussian process over learning curves, which pauses trials and resumes the "
            "promising ones; gp: the same without pauses; optuna: the sampler called `name`"
        ),
    )
    startup_trials: int = Field(
        default=10,
        ge=1,
        description="random trials before the sampler proposes any, presets included",
    )
    candidates: int = Field(default=24, ge=1, description="tpe only: candidates drawn per trial")
    first_rung: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description=(
            "auto only: share of the epochs after which a new trial pauses for the first time; "
            "each further pause is at twice the epochs"
        ),
    )
    checkpoints: int = Field(
        default=30,
        ge=1,
        description=(
            "auto only: paused trials whose checkpoint is kept; the others, the least promising "
            "ones, start again from the first epoch if they are resumed"
        ),
    )
    knowledge: bool | str = Field(
        default=True,
        description=(
            "auto and gp only: start from what recorded campaigns teach about weights, losses and "
            "learning rates, and trust it less as the study's own trials speak; or a file to take "
            "that from instead of the one that ships with the package"
        ),
    )
    learn_from: tuple[str, ...] = Field(
        default=(),
        description=(
            "auto and gp only: earlier studies with the same metric, each the name of a study in "
            "this store, STORE#STUDY, or a file of recorded trials"
        ),
    )
    name: str | None = Field(default=None, description="optuna only: class in optuna.samplers")
    options: dict[str, Any] = Field(
        default={}, description="optuna only: arguments of that class, without the seed"
    )
    remedies: int = Field(
        default=0,
        ge=0,
        description=(
            "number of trials that may be remedies of the study's own trials: where a trial's "
            "cause is clear, its first remedy is tried instead of a sampled configuration"
        ),
    )

    @model_validator(mode="after")
    def _validate_use(self) -> SamplerConfig:
        """Refuse settings that this kind of sampler would ignore."""
        of_kinds = {"name": ("optuna",), "options": ("optuna",), "learn_from": CURVE_KINDS}
        for key, kinds in of_kinds.items():
            if getattr(self, key) and self.kind not in kinds:
                raise PydanticCustomError(
                    "setting_without_effect",
                    "{key} has no effect with kind {kind}; it belongs to {kinds}",
                    {"key": key, "kind": self.kind, "kinds": " and ".join(kinds)},
                )
        return self


class PrunerConfig(Frozen):
    """The pruner of Optuna that compares a trial with its peers."""

    kind: Literal["none", "median", "hyperband"] = "median"
    startup_trials: int = Field(
        default=8, ge=0, description="median: finished trials before it prunes any"
    )
    warmup_epochs: int = Field(
        default=3, ge=0, description="median: epochs of a trial before it can be pruned"
    )
    noise: float = Field(
        default=2.5,
        ge=0,
        description=(
            "median: margin in a trial's favor, in units of its own noise; 0: no margin, which "
            "prunes some of the best trials"
        ),
    )
    min_epochs: int = Field(default=1, ge=1, description="hyperband: epochs of the smallest rung")
    reduction_factor: int = Field(
        default=3, ge=2, description="hyperband: one in this many trials survives a rung"
    )


MUTABLE_FIELDS = (
    "about",
    "trials",
    "epochs_budget",
    "settled_gain",
    "on_out_of_memory",
    "hang_after_s",
)
"""Fields that may change while a study keeps its name."""


class StudySpec(Frozen):
    """The definition of a study, as in its YAML."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    about: str = ""
    objective: str = "segmentation"
    metric: MetricConfig = MetricConfig()
    epochs: int = Field(default=30, ge=1, le=100_000)
    trials: int = Field(default=50, ge=1, description="number of trials, presets included")
    epochs_budget: int | None = Field(
        default=None, ge=1, description="epochs of all trials together; null: no limit"
    )
    settled_gain: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description=(
            "auto and gp only: the study ends when the next trial is expected to improve the best "
            "score by less than this share of it; null: it uses its whole budget"
        ),
    )
    seed: int = Field(default=0, ge=0, lt=2**32)
    base: dict[str, Any] = Field(
        default={}, description="the configuration that every trial starts from"
    )
    space: dict[str, Parameter] = Field(
        min_length=1, description="dotted path of a configuration value → its dimension"
    )
    presets: tuple[str, ...] = Field(
        default=(), description="complete configurations that are tried first"
    )
    sampler: SamplerConfig = SamplerConfig()
    pruner: PrunerConfig = PrunerConfig()
    signals: SignalsConfig = SignalsConfig()
    on_out_of_memory: Literal["halve_batch", "infeasible"] = Field(
        default="halve_batch",
        description=(
            "what happens to a trial without enough memory: one more try with half the batch and "
            "twice the accumulation, in a fresh process; or it ends immediately"
        ),
    )
    hang_after_s: float | None = Field(
        default=None,
        gt=0,
        description=(
            "seconds without a step after which a worker counts as hung; null: 300, or 20 times "
            "the longest step so far"
        ),
    )

    def definition(self) -> dict[str, Any]:
        """Return what two equal studies have in common: all but the mutable fields."""
        return self.model_dump(mode="json", exclude=set(MUTABLE_FIELDS))
