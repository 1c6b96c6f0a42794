"""Configuration shared by the objectives that train classifiers; each adds data and model.

It imports no torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from spaces.config import LossConfig, OptimizerConfig, ScheduleConfig, TrialConfig, WeightsConfig


class TrainingConfig(TrialConfig):
    """Loss, class weights, optimizer and schedule; duration and precision of a training."""

    weights: WeightsConfig = WeightsConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    batch_size: int = Field(default=8, ge=1)
    early_stopping_patience: int | None = Field(
        default=None,
        ge=1,
        description="epochs without a lower validation loss; null: train all epochs",
    )
    precision: Literal["auto", "float32"] = Field(
        default="auto", description="auto: mixed precision on CUDA, float32 on the CPU"
    )
    max_grad_norm: float = Field(
        default=1000.0,
        gt=0,
        description="a larger gradient norm ends the trial before the step is applied",
    )
