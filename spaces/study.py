"""A study: what is searched, on what, by which sampler, and when a trial is stopped."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from spaces.config import MetricConfig
from spaces.frozen import Frozen
from spaces.parameters import Parameter
from spaces.thresholds import SignalsConfig


class SamplerConfig(Frozen):
    """How the next trial is chosen."""

    kind: Literal["tpe", "random"] = "tpe"
    startup_trials: int = Field(
        default=10, ge=1, description="random trials before the model takes over (presets count)"
    )
    candidates: int = Field(default=24, ge=1, description="tpe only: candidates drawn a trial")


class PrunerConfig(Frozen):
    """Which of Optuna's pruners compares a trial with its peers."""

    kind: Literal["none", "median", "hyperband"] = "median"
    startup_trials: int = Field(
        default=8, ge=0, description="median: finished trials before it prunes"
    )
    warmup_epochs: int = Field(
        default=3, ge=0, description="median: epochs that a trial is left alone"
    )
    noise: float = Field(
        default=2.5,
        ge=0,
        description="median: a trial is held for better than it is by so many times its own noise; 0: bare values, which kill the best",
    )
    min_epochs: int = Field(default=1, ge=1, description="hyperband: epochs of the smallest rung")
    reduction_factor: int = Field(
        default=3, ge=2, description="hyperband: one of so many survives a rung"
    )


MUTABLE_FIELDS = ("about", "trials", "on_out_of_memory", "hang_after_s")
"""What may change under a study's name."""


class StudySpec(Frozen):
    """A study's definition, as its YAML holds it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    about: str = ""
    objective: str = "segmentation"
    metric: MetricConfig = MetricConfig()
    epochs: int = Field(default=30, ge=1, le=100_000)
    trials: int = Field(default=50, ge=1, description="trials in all, presets included")
    seed: int = Field(default=0, ge=0, lt=2**32)
    base: dict[str, Any] = Field(
        default={}, description="the configuration that every trial starts from"
    )
    space: dict[str, Parameter] = Field(
        min_length=1, description="dotted path of a configuration value → the dimension"
    )
    presets: tuple[str, ...] = Field(
        default=(), description="full configurations that are tried first"
    )
    sampler: SamplerConfig = SamplerConfig()
    pruner: PrunerConfig = PrunerConfig()
    signals: SignalsConfig = SignalsConfig()
    on_out_of_memory: Literal["halve_batch", "infeasible"] = Field(
        default="halve_batch",
        description="a trial without enough memory: once more with half the batch and doubled accumulation, in a fresh process; or it ends at once",
    )
    hang_after_s: float | None = Field(
        default=None,
        gt=0,
        description="seconds without a step after which a worker counts as hung; null: 300, or 20 times the longest step so far",
    )

    def definition(self) -> dict[str, Any]:
        """What makes two studies the same: everything but the words about it, the trial budget, and how to go about trouble of the machine."""
        return self.model_dump(mode="json", exclude=set(MUTABLE_FIELDS))
