"""The contract of the probe of the learning rate, which both objectives offer."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from objectives.contract import RateProber
from objectives.registry import OBJECTIVES
from objectives.training.rate_probe import RANGES, STEPS
from objectives.training.stable_rate import find_base_lr
from spaces.rate_probe import ProbeStep
from tests.contract.training import Kit, machine, make_kit

__all__ = ["machine"]


@pytest.fixture(scope="module", params=["segmentation", "text_classification"])
def kit(request: pytest.FixtureRequest) -> Kit:
    """An objective with its data."""
    return make_kit(request.param)


def probe(kit: Kit, **changes: Any) -> list[ProbeStep]:
    """Run the probe of the small configuration, with changes; a keyword has __ for each dot."""
    assert isinstance(kit.trainer, RateProber)
    config = kit.config({name.replace("__", "."): value for name, value in changes.items()})
    return list(kit.trainer.probe_rates(config, kit.prepared, kit.counts, "cpu"))


class TestProbe:
    def test_steps(self, kit: Kit) -> None:
        """The rate grows by the same factor from step to step, and the loss falls at some of them."""
        assert OBJECTIVES[kit.name].has_rate_probe
        steps = probe(kit)
        lowest, highest = RANGES[kit.config().optimizer.kind]
        assert steps[0].lr == lowest
        assert steps[-1].lr <= highest * (1 + 1e-9)
        factors = [after.lr / before.lr for before, after in pairwise(steps)]
        assert max(factors) == pytest.approx(min(factors))
        assert len(steps) == STEPS or not steps[-1].is_usable
        assert all(step.is_usable for step in steps[:-1])
        assert min(step.loss for step in steps) < 0.9 * steps[0].loss
        found = find_base_lr(steps, kit.config().optimizer.kind)
        assert found is not None
        assert lowest < found.base_lr < found.stable_lr

    def test_repeated(self, kit: Kit) -> None:
        """It depends on the configuration alone: not on earlier random numbers, or its own rate."""
        torch.manual_seed(1)
        first = probe(kit)
        torch.manual_seed(2)
        assert probe(kit, optimizer__base_lr=0.5, optimizer__lr_multiple=7.0) == first
        assert probe(kit, seed=6) != first

    def test_epochs(self, kit: Kit) -> None:
        """Every step counts its share of an epoch; accumulated batches are one step."""
        batches = len(kit.prepared.train) // kit.config().batch_size
        assert probe(kit)[0].epochs == pytest.approx(1 / batches)
        doubled = probe(kit, optimizer__accumulate=2)
        assert doubled[0].epochs == pytest.approx(1 / math.ceil(batches / 2))

    def test_broken(self, kit: Kit) -> None:
        """It ends at the first step whose gradients are out of bounds, and finds no rate then."""
        steps = probe(kit, max_grad_norm=1e-9)
        assert [step.is_usable for step in steps] == [False]
        assert find_base_lr(steps) is None
