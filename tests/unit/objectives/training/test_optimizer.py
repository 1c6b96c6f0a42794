"""The optimizer under a loss scaler that skips steps, and its first step."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from objectives.training.optimizer import build_optimizer
from spaces.config import OptimizerConfig


def made(kind: str, momentum: float = 0.9) -> tuple[nn.Linear, torch.optim.Optimizer]:
    """A layer with known weights and a gradient of ones, and its optimizer."""
    layer = nn.Linear(300, 200)
    nn.init.constant_(layer.weight, 0.5)
    nn.init.constant_(layer.bias, 0.5)
    optimizer = build_optimizer(
        layer, OptimizerConfig.model_validate({"kind": kind, "base_lr": 0.1, "momentum": momentum})
    )
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    return layer, optimizer


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_skipped_first_step(kind: str) -> None:
    """After a first step that overflowed, the next one is as if there had been none."""
    expected, plain = made(kind)
    plain.step()
    layer, optimizer = made(kind)
    scaler = GradScaler("cpu", init_scale=1.0)
    # Freed memory with these values would become the momentum.
    torch.full((200, 300), 1e30)
    for gradient in (torch.inf, 1.0):
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        scaler.scale(torch.zeros(()))
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update(1.0)
    assert torch.equal(layer.weight, expected.weight)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_first_step_of_sgd(momentum: float) -> None:
    """The first step of SGD is the gradient times the rate, with momentum and without."""
    layer, optimizer = made("sgd", momentum)
    optimizer.step()
    assert torch.allclose(layer.weight, torch.full_like(layer.weight, 0.4))
