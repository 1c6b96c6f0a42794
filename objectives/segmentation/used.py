"""What a training really uses, read back from its live objects, by the path of the configuration that it came from."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from objectives.data.loading import Batches, SegmentationData
from objectives.guard import StepGuard
from objectives.losses import Criterion
from objectives.optimizer import used_by
from objectives.segmentation.config import SegmentationConfig


def read_back(
    config: SegmentationConfig, data: SegmentationData, model: nn.Module, criterion: Criterion, optimizer: torch.optim.Optimizer,
    guard: StepGuard, batches: Batches,
) -> dict[str, Any]:  # fmt: skip
    """Dotted path → value. What took no effect is absent, so that a search over it is noticed."""
    used = criterion.used() | used_by(optimizer, config.optimizer)
    used |= {"optimizer.grad_clip_norm": guard.clip_norm, "batch_size": batches.batch_size, "optimizer.accumulate": config.optimizer.accumulate}
    used |= _used_schedule(config, used)
    used |= _used_model(config, model)
    device = guard.parameters[0].device
    used |= {"environment.device": _device_name(device), "environment.threads": torch.get_num_threads(), "environment.torch": str(torch.__version__)}
    used |= {"environment.classes": list(data.class_names), "precision": config.precision}
    return used | {"early_stopping_patience": config.early_stopping_patience}


def _used_schedule(config: SegmentationConfig, used: dict[str, Any]) -> dict[str, Any]:
    schedule = config.schedule
    found: dict[str, Any] = {"schedule.lr": schedule.lr, "schedule.lr_warmup_epochs": schedule.lr_warmup_epochs, "schedule.plan": schedule.plan}
    if schedule.swa_from_epoch is None or schedule.swa_from_epoch <= config.epochs:
        found["schedule.swa_from_epoch"] = schedule.swa_from_epoch
    if "loss.overlap" in used:
        found |= {"schedule.dice_ce_only_epochs": schedule.dice_ce_only_epochs, "schedule.dice_ramp_epochs": schedule.dice_ramp_epochs}
    if "loss.smooth" in used:
        found["schedule.smooth_steps"] = schedule.smooth_steps
    if used.get("weights.method") != "uniform":
        found["schedule.light_clip_epochs"] = schedule.light_clip_epochs
        found |= {"schedule.light_clip_ratio": schedule.light_clip_ratio} if schedule.light_clip_epochs else {}
    return found


def _used_model(config: SegmentationConfig, model: nn.Module) -> dict[str, Any]:
    named = {name: value for name, value in config.model.model_dump().items() if name not in ("options", "dropout")}
    found = {f"model.{name}": value for name, value in named.items()}
    rates = {module.p for module in model.modules() if isinstance(module, _DropoutNd)}
    if config.model.dropout is None or rates == {config.model.dropout}:
        found["model.dropout"] = config.model.dropout
    return found


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
