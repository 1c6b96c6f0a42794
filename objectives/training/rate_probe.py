"""Learning-rate range test (Smith 2017, Cyclical learning rates): how fast may a training go?

A training whose learning rate grows exponentially from step to step improves faster and faster, and
gets worse when the rate is no longer stable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from objectives.data.loading import Batch
from objectives.training.loop import Training
from objectives.training.out_of_memory import translate_out_of_memory
from objectives.training.steps import Means, group_batches
from spaces.rate_probe import ProbeStep

RANGES = {"sgd": (1e-5, 30.0), "adamw": (1e-6, 3.0)}
"""Optimizer → smallest and largest rate that is tried."""

STEPS = 75
"""Steps of a probe, about twelve per decade of rates. Their number does not depend on the size of
the data: with more steps the loss would fall at smaller rates."""


def probe_rates(start: Callable[[], Training], device: str) -> Iterator[ProbeStep]:
    """Train with a growing learning rate, and yield each step until one breaks the training.

    Args:
        start: builds the training.
        device: name of the device, for the error.

    Raises:
        OutOfMemoryError: when the device or the host does not have enough memory.
    """
    with translate_out_of_memory(device):
        run = start()
        run.criterion.set_epoch(run.values_of(run.config.epochs))
        run.model.train()
        run.optimizer.zero_grad()
        per_epoch = _count_steps(run)
        lowest, highest = RANGES[run.config.optimizer.kind]
        groups = _repeat_epochs(run)
        for step in range(STEPS):
            lr = lowest * (highest / lowest) ** (step / (STEPS - 1))
            loss, is_usable = _train_step(run, next(groups), lr)
            yield ProbeStep(lr, loss, (step + 1) / per_epoch, is_usable)
            if not is_usable:
                return


def _count_steps(run: Training) -> int:
    """Count the optimizer steps of an epoch; the last one may have fewer batches."""
    batches = len(run.train_batches)
    return max(1, -(-batches // run.config.optimizer.accumulate))


def _repeat_epochs(run: Training) -> Iterator[list[Batch]]:
    """Yield the batches of one optimizer step after the other, epoch after epoch."""
    while True:
        run.epoch += 1
        yield from group_batches(
            run.train_batches.epoch(run.epoch), run.config.optimizer.accumulate
        )


def _train_step(run: Training, group: list[Batch], lr: float) -> tuple[float, bool]:
    """Train one step.

    Returns:
        The loss before it, and whether the step was applied: loss and gradients are finite and the
        gradients' norm is within the bound of the configuration.
    """
    for parameters in run.optimizer.param_groups:
        parameters["lr"] = lr
    loss, _, _ = run.accumulate_gradients(group, Means.zero(run.device))
    run.apply_gradients(loss)
    run.guard.read_norms()  # on CUDA it judges several steps at once
    return float(loss), run.guard.broken_step is None
