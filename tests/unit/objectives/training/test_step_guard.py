"""The guard over optimiser steps: norms before clipping, clipping, and the first broken step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from objectives.training.step_guard import CHECK_EVERY, StepGuard

NORM_PER_UNIT = math.sqrt(3)
"""Two weights and a bias with gradients of 1."""


def step(guard: StepGuard, model: nn.Module, gradient: float, loss: float = 1.0) -> bool:
    """One step whose every gradient is `gradient`."""
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    return guard.check_step(torch.tensor(loss))


@pytest.fixture
def model() -> nn.Module:
    """Three parameters."""
    return nn.Linear(2, 1)


class TestCheck:
    def test_norm_before_clipping(self, model: nn.Module) -> None:
        """The recorded norm is the one before clipping, and the gradients are clipped to the bound."""
        guard = StepGuard(model, clip_norm=1.0, max_norm=1000.0)
        guard.start_epoch()
        assert step(guard, model, 2.0)
        assert guard.norms == pytest.approx([2 * NORM_PER_UNIT])
        clipped = torch.nn.utils.get_total_norm(
            [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        )
        assert float(clipped) == pytest.approx(1.0, rel=1e-4)

    def test_no_clipping(self, model: nn.Module) -> None:
        """Without a bound the gradients stay as they are."""
        guard = StepGuard(model, clip_norm=None, max_norm=1000.0)
        guard.start_epoch()
        assert step(guard, model, 2.0)
        assert model.weight.grad is not None
        assert model.weight.grad.tolist() == [[2.0, 2.0]]

    @pytest.mark.parametrize(
        ("gradient", "loss"),
        [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf), (1e4, 1.0)],
    )
    def test_broken(self, model: nn.Module, gradient: float, loss: float) -> None:
        """A loss or norm that is not finite, or a norm over the bound, breaks the step at which it happens."""
        guard = StepGuard(model, clip_norm=1.0, max_norm=1000.0)
        guard.start_epoch()
        assert step(guard, model, 1.0)
        assert not step(guard, model, gradient, loss)
        assert guard.broken_step == 2

    def test_epochs_start_clean(self, model: nn.Module) -> None:
        """A new epoch forgets the norms and the broken step of the one before."""
        guard = StepGuard(model, clip_norm=None, max_norm=1000.0)
        guard.start_epoch()
        step(guard, model, math.nan)
        guard.start_epoch()
        assert (guard.norms, guard.broken_step) == ([], None)


class TestLossScaling:
    def test_overflow_is_left_out(self, model: nn.Module) -> None:
        """Under loss scaling an overflowing norm with a finite loss breaks nothing and is not recorded."""
        guard = StepGuard(model, clip_norm=None, max_norm=1000.0, loss_scaled=True)
        guard.start_epoch()
        assert all(step(guard, model, gradient) for gradient in (1.0, math.inf, 2.0))
        assert guard.norms == pytest.approx([NORM_PER_UNIT, 2 * NORM_PER_UNIT])
        assert guard.skipped_steps == 1
        resumed = StepGuard(model, clip_norm=None, max_norm=1000.0, loss_scaled=True)
        resumed.restore_epoch(guard.epoch_state())
        assert resumed.skipped_steps == 1
        guard.start_epoch()
        assert guard.skipped_steps == 0

    def test_broken_loss_still_breaks(self, model: nn.Module) -> None:
        """A loss that is not finite breaks the step under loss scaling, too."""
        guard = StepGuard(model, clip_norm=None, max_norm=1000.0, loss_scaled=True)
        guard.start_epoch()
        assert not step(guard, model, 1.0, math.nan)


class TestSummary:
    def test_figures(self, model: nn.Module) -> None:
        """Median and maximum of the norms, and the share of steps over the bound."""
        guard = StepGuard(model, clip_norm=3.0, max_norm=1000.0)
        guard.start_epoch()
        for gradient in (1.0, 2.0, 4.0):
            step(guard, model, gradient)
        assert guard.summarize_norms() == pytest.approx(
            (2 * NORM_PER_UNIT, 4 * NORM_PER_UNIT, 2 / 3)
        )

    def test_not_finite_is_the_maximum(self, model: nn.Module) -> None:
        """A norm that is not finite is never hidden behind a larger number."""
        guard = StepGuard(model, clip_norm=None, max_norm=1000.0)
        guard.start_epoch()
        step(guard, model, 5.0)
        step(guard, model, math.nan)
        assert math.isnan(guard.summarize_norms()[1])


class TestHoldBack:
    def test_not_applied(self, model: nn.Module) -> None:
        """Where numbers are read only now and then, a broken step and those after it still leave the weights alone."""
        guard = StepGuard(model, clip_norm=1.0, max_norm=1000.0)
        guard._every = CHECK_EVERY  # as on a GPU
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
        guard.start_epoch()
        seen = []
        for gradient in (1.0, 1.0, math.nan, 1.0, 1.0):
            assert step(guard, model, gradient)  # not read yet
            guard.skip_broken_steps(optimizer)
            optimizer.step()
            seen.append(model.weight.detach().clone())
        assert not torch.equal(seen[0], seen[1])
        assert torch.equal(seen[1], seen[2])
        assert torch.equal(seen[1], seen[4])
        guard.read_norms()
        assert guard.broken_step == 3

    def test_within_ten(self, model: nn.Module) -> None:
        """A broken step is noticed ten steps later at most."""
        guard = StepGuard(model, clip_norm=None, max_norm=1000.0)
        guard._every = CHECK_EVERY
        guard.start_epoch()
        assert step(guard, model, 1.0)
        noticed = next(late for late in range(100) if not step(guard, model, math.inf))
        assert noticed + 1 <= 10

    def test_scaler_decides(self, model: nn.Module) -> None:
        """With loss scaling the scaler skips steps, and the optimizer does not skip them again."""
        guard = StepGuard(model, clip_norm=None, max_norm=1000.0, loss_scaled=True)
        guard._every = CHECK_EVERY
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
        guard.skip_broken_steps(optimizer)
        assert not hasattr(optimizer, "found_inf")


class TestTail:
    def test_checkpoint(self, model: nn.Module) -> None:
        """A checkpoint has the last steps and an odd input: a resumed training records the same break."""
        guard, resumed = (StepGuard(model, clip_norm=None, max_norm=1000.0) for _ in range(2))
        guard.start_epoch()
        for loss in range(12):
            step(guard, model, 1.0, loss)
        guard.check_inputs(torch.tensor([math.nan]))
        resumed.restore(guard.state())
        for each in (guard, resumed):
            each.start_epoch()
            step(each, model, 1e4, 12.0)
        assert resumed.last_steps() == guard.last_steps()
        assert len(resumed.last_steps()) == 10
        assert not resumed.inputs_finite()

    def test_left_out(self, model: nn.Module) -> None:
        """A step that the loss scaler skips is counted, so that the broken step has the right number."""
        guard = StepGuard(model, clip_norm=None, max_norm=10.0, loss_scaled=True)
        guard.start_epoch()
        for gradient in (1.0, math.inf, math.inf, 1.0):
            assert step(guard, model, gradient)
        assert not step(guard, model, 50.0)
        assert guard.broken_step == 5

    def test_last_steps(self, model: nn.Module) -> None:
        """Loss and norm of the ten steps up to the broken one, those of the epoch before included."""
        guard = StepGuard(model, clip_norm=None, max_norm=1000.0)
        guard.start_epoch()
        for loss in range(8):
            step(guard, model, 1.0, loss)
        assert guard.last_steps() == ()
        guard.start_epoch()
        for loss in range(8, 12):
            step(guard, model, 1.0, loss)
        step(guard, model, 1e4, 12.0)
        assert [loss for loss, _ in guard.last_steps()] == list(range(3, 13))
        assert guard.last_steps()[-1][1] == pytest.approx(1e4 * NORM_PER_UNIT)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_inputs(self, model: nn.Module, value: float) -> None:
        """One input that is not finite is remembered."""
        guard = StepGuard(model, clip_norm=None, max_norm=1000.0)
        guard.check_inputs(torch.ones(2, 3))
        assert guard.inputs_finite()
        guard.check_inputs(torch.tensor([1.0, value]))
        guard.check_inputs(torch.ones(2, 3))
        assert not guard.inputs_finite()
