"""Models of segmentation_models_pytorch by name, in channels_last."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from objectives.segmentation.config import ModelConfig
from spaces.errors import ConfigError, nearest


def build_model(config: ModelConfig, channels: int, classes: int) -> nn.Module:
    """The model, on the CPU, initialised from torch's global generator.

    Raises:
        ConfigError: for a name that smp does not know, options that do not fit, or weights that cannot be had.
    """
    if config.architecture.lower() not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise _unknown("architecture", config.architecture, list(smp.MODEL_ARCHITECTURES_MAPPING))
    known = smp.encoders.get_encoder_names()
    # tu-… hands any timm model through, so those names are timm's to judge.
    if config.encoder not in known and not config.encoder.startswith("tu-"):
        raise _unknown("encoder", config.encoder, known)
    try:
        model: nn.Module = smp.create_model(
            config.architecture,
            encoder_name=config.encoder,
            encoder_weights=config.encoder_weights,
            in_channels=channels,
            classes=classes,
            **config.options,
        )
    except (
        Exception
    ) as problem:  # smp and timm raise anything from KeyError to a hub's network error
        raise ConfigError(
            "the model cannot be built",
            where="base.model",
            found=f"{config.model_dump()}: {type(problem).__name__}: {str(problem)[:200]}",
            allowed="arguments of segmentation_models_pytorch.create_model",
            next_step="mend base.model; encoder_weights: null needs no download",
        ) from None
    if config.dropout is not None:
        _set_dropout(model, config, config.dropout)
    return model.to(memory_format=torch.channels_last)


def _set_dropout(model: nn.Module, config: ModelConfig, rate: float) -> None:
    """One rate for every dropout layer that the architecture and the encoder have."""
    layers = [module for module in model.modules() if isinstance(module, _DropoutNd)]
    if not layers:
        raise ConfigError(
            "the model has no dropout layer",
            where="base.model.dropout",
            found=f"{config.architecture} with {config.encoder}, dropout {rate}",
            allowed="null for this model",
            next_step="leave it out, or choose a model with dropout, such as deeplabv3plus or pspnet",
        )
    for layer in layers:
        layer.p = rate


def check_size(model: nn.Module, height: int, width: int) -> None:
    """Whether images of this size pass through.

    Raises:
        ConfigError: when the encoder's strides do not divide them.
    """
    stride = int(getattr(getattr(model, "encoder", None), "output_stride", 1))
    if height % stride or width % stride:
        raise ConfigError(
            "the image size does not fit the model",
            where="base.data",
            found=f"{height} × {width}",
            allowed=f"multiples of {stride}, the encoder's output stride",
            next_step="change the size (or the crop), or the encoder_depth",
        )


def _unknown(key: str, found: str, known: list[str]) -> ConfigError:
    some = ", ".join(known[:12]) + (f", … ({len(known)} in all)" if len(known) > 12 else "")
    return ConfigError(
        f"unknown {key} {found!r}{nearest(found, known)}",
        where=f"base.model.{key}",
        found=found,
        allowed=some,
        next_step="name one that segmentation_models_pytorch has",
    )
