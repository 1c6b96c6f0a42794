"""Build models of segmentation_models_pytorch by name, in channels_last."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from objectives.segmentation.config import ModelConfig
from spaces.errors import ConfigError, nearest


def build_model(config: ModelConfig, channels: int, classes: int) -> nn.Module:
    """Build the model on the CPU, initialized by torch's global generator.

    Raises:
        ConfigError: when smp does not have the name, does not accept the options, or cannot load
            the weights.
    """
    if config.architecture.lower() not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise _unknown_name(
            "architecture", config.architecture, list(smp.MODEL_ARCHITECTURES_MAPPING)
        )
    known = smp.encoders.get_encoder_names()
    # tu-… accepts any timm model, so those names are checked by timm.
    if config.encoder not in known and not config.encoder.startswith("tu-"):
        raise _unknown_name("encoder", config.encoder, known)
    try:
        model: nn.Module = smp.create_model(
            config.architecture,
            encoder_name=config.encoder,
            encoder_weights=config.encoder_weights,
            in_channels=channels,
            classes=classes,
            **config.options,
        )
    # smp and timm raise anything from KeyError to a hub's network error.
    except Exception as problem:
        raise ConfigError(
            "the model cannot be built",
            where="base.model",
            found=f"{config.model_dump()}: {type(problem).__name__}: {str(problem)[:200]}",
            allowed="arguments of segmentation_models_pytorch.create_model",
            next_step="fix base.model; encoder_weights: null needs no download",
        ) from None
    if config.dropout is not None:
        _set_dropout(model, config, config.dropout)
    return model.to(memory_format=torch.channels_last)


def _set_dropout(model: nn.Module, config: ModelConfig, rate: float) -> None:
    """Set the rate of every dropout layer of architecture and encoder."""
    layers = [module for module in model.modules() if isinstance(module, _DropoutNd)]
    if not layers:
        raise ConfigError(
            "the model has no dropout layer",
            where="base.model.dropout",
            found=f"{config.architecture} with {config.encoder}, dropout {rate}",
            allowed="null for this model",
            next_step="leave it out, or choose a model with dropout: deeplabv3plus, pspnet, …",
        )
    for layer in layers:
        layer.p = rate


def check_size(model: nn.Module, height: int, width: int) -> None:
    """Check that the model accepts images of this size.

    Raises:
        ConfigError: when the encoder's strides do not divide them.
    """
    stride = int(getattr(getattr(model, "encoder", None), "output_stride", 1))
    if height % stride or width % stride:
        raise ConfigError(
            "the image size does not match the model",
            where="base.data",
            found=f"{height} × {width}",
            allowed=f"multiples of {stride}, the encoder's output stride",
            next_step="change the size (or the crop), or the encoder_depth",
        )


def _unknown_name(key: str, found: str, known: list[str]) -> ConfigError:
    some = ", ".join(known[:12])
    if len(known) > 12:
        some += f", … ({len(known)} in all)"
    return ConfigError(
        f"unknown {key} {found!r}{nearest(found, known)}",
        where=f"base.model.{key}",
        found=found,
        allowed=some,
        next_step="name one that segmentation_models_pytorch has",
    )
