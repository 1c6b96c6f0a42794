"""Build the optimizer of a configuration, and read back what it uses."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spaces.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build SGD with momentum or AdamW (Loshchilov & Hutter 2019), in torch's fused form."""
    if config.kind == "sgd":
        sgd = torch.optim.SGD(
            model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
        if config.momentum:
            # Left alone, a first step that the loss scaler skips leaves uninitialized momentum.
            for parameter in sgd.param_groups[0]["params"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )


def used_by(optimizer: torch.optim.Optimizer, config: OptimizerConfig) -> dict[str, Any]:
    """Read back dotted path → value from an optimizer that was just built.

    The multiple is the configuration's own number if `base_lr · lr_multiple` is the optimizer's
    rate. Otherwise it follows from that rate, so that wrong wiring shows.
    """
    group = optimizer.param_groups[0]
    wired = group["lr"] == config.lr
    used = {
        "optimizer.kind": type(optimizer).__name__.lower(),
        "optimizer.base_lr": config.base_lr,
        "optimizer.lr_multiple": config.lr_multiple if wired else group["lr"] / config.base_lr,
        "optimizer.weight_decay": group["weight_decay"],
    }
    if "momentum" in group:
        used["optimizer.momentum"] = group["momentum"]
    return used
