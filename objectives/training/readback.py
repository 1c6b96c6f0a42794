"""Read back what a training really uses, from its live objects, by dotted path."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from objectives.config import TrainingConfig
from objectives.losses import Criterion
from objectives.training.optimizer import used_by
from objectives.training.step_guard import StepGuard


def read_back(
    config: TrainingConfig,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    guard: StepGuard,
    batch_size: int,
) -> dict[str, Any]:
    """Read dotted path → value. What has no effect is absent: a search over it is noticed."""
    used = criterion.used() | used_by(optimizer, config.optimizer)
    used |= {
        "optimizer.grad_clip_norm": guard.clip_norm,
        "batch_size": batch_size,
        "optimizer.accumulate": config.optimizer.accumulate,
    }
    used |= _used_schedule(config, used)
    device = guard.parameters[0].device
    used |= {
        "environment.device": str(device),
        "environment.device_name": _device_name(device),
        "environment.threads": torch.get_num_threads(),
        "environment.torch": str(torch.__version__),
    }
    return used | {
        "precision": config.precision,
        "early_stopping_patience": config.early_stopping_patience,
    }


def _used_schedule(config: TrainingConfig, used: dict[str, Any]) -> dict[str, Any]:
    schedule = config.schedule
    found: dict[str, Any] = {
        "schedule.lr": schedule.lr,
        "schedule.lr_warmup_epochs": schedule.lr_warmup_epochs,
        "schedule.plan": schedule.plan,
    }
    if schedule.swa_from_epoch is None or schedule.swa_from_epoch <= config.epochs:
        found["schedule.swa_from_epoch"] = schedule.swa_from_epoch
    if "loss.overlap" in used:
        found["schedule.dice_ce_only_epochs"] = schedule.dice_ce_only_epochs
        found["schedule.dice_ramp_epochs"] = schedule.dice_ramp_epochs
    if "loss.smooth" in used:
        found["schedule.smooth_steps"] = schedule.smooth_steps
    if used.get("weights.method") != "uniform":
        found["schedule.light_clip_epochs"] = schedule.light_clip_epochs
        if schedule.light_clip_epochs:
            found["schedule.light_clip_ratio"] = schedule.light_clip_ratio
    return found


def used_dropout(rate: float | None, model: nn.Module) -> dict[str, Any]:
    """Return the configured rate if all of the model's dropout layers have it; else nothing.

    A rate of None leaves each layer its own and is returned as it is.
    """
    rates = {module.p for module in model.modules() if isinstance(module, _DropoutNd)}
    return {"model.dropout": rate} if rate is None or rates == {rate} else {}


def _device_name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None
