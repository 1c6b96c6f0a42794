"""Configuration of segmentation. No torch: a plan checks it before any training."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from objectives.config import TrainingConfig
from objectives.data.config import DataConfig, DigitsData
from spaces.config import OptimizerConfig
from spaces.frozen import Frozen


class ModelConfig(Frozen):
    """Any architecture and encoder of segmentation_models_pytorch, by name."""

    architecture: str = Field(
        default="unet",
        description="as smp.create_model takes it: unet, fpn, deeplabv3plus, segformer, …",
    )
    encoder: str = Field(
        default="tu-test_resnet",
        description="encoder_name of smp: resnet34, mit_b0, timm-…, tu-… (any of timm)",
    )
    encoder_weights: str | None = Field(
        default=None, description="imagenet if smp has such weights; null: random initial weights"
    )
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="rate of the model's dropout layers, if it has some; null: as the architecture "
        "sets it",
    )
    options: dict[str, Any] = Field(
        default={"encoder_depth": 2, "decoder_channels": [32, 16]},
        description="further arguments of smp.create_model; the default is a U-Net of 60,000 "
        "parameters for small images on a CPU core; {} for smp's defaults",
    )


class SegmentationOptimizer(OptimizerConfig):
    """Optimizer with a base rate for the embedded data as default; set one for your data."""

    base_lr: float = Field(
        default=0.1,
        gt=0,
        description="learning rate of a multiple of 1; 0.1 suits SGD on the embedded data",
    )


class SegmentationConfig(TrainingConfig):
    """Everything that decides one training of a segmentation model."""

    data: DataConfig = DigitsData()
    model: ModelConfig = ModelConfig()
    optimizer: SegmentationOptimizer = SegmentationOptimizer()
