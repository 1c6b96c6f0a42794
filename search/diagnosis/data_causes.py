"""Causes in the data: labels, inputs, and too few samples for the model."""

from __future__ import annotations

import math

from search.diagnosis.facts import Facts
from search.diagnosis.observation import (
    DIVERGED_CE,
    EARLY_EPOCHS,
    FAST_GROWTH,
    NOTHING_LEARNED,
    Observation,
    Observations,
)

JUMP = 1.4
"""Ratio of two losses above which the loss jumped."""


def labels_broken(facts: Facts) -> Observations:
    """Targets that changed from some epoch on: a bad mount, a wrong palette, a partial download."""
    jump = facts.loss_jump
    if jump.epoch <= EARLY_EPOCHS or not jump.ratio > JUMP:
        yield Observation(-4.0, "the training loss never jumped at an unchanged learning rate")
        return
    yield Observation(
        min(3.0, 2 * (jump.ratio - 0.9)),
        f"the training loss jumped {jump.ratio:.3g}-fold at epoch {jump.epoch},"
        " at an unchanged learning rate, class weights and CE/Dice weights",
    )
    yield from _learned_something_else(facts)
    if facts.lr_multiple > 3:
        yield Observation(
            -2.0, f"the learning rate was {facts.lr_multiple:.3g} times the base rate"
        )
    if facts.worst_val_ce > DIVERGED_CE:
        yield Observation(-0.5, "the weights diverged")


def _learned_something_else(facts: Facts) -> Observations:
    """That the loss fell again after its jump, and the metric did not recover."""
    jump_epoch = facts.loss_jump.epoch
    epochs = facts.complete_epochs
    last = epochs[-1]
    if last.epoch <= jump_epoch:
        return
    before = max(
        (record.metric for record in epochs if record.epoch < jump_epoch), default=math.nan
    )
    highest = max(record.ce_loss for record in epochs if record.epoch >= jump_epoch)
    if last.metric < 0.5 * before and last.ce_loss < 0.7 * highest:
        yield Observation(
            2.0,
            f"it fell again while the metric stayed at {last.metric:.3g} (before: {before:.3g}):"
            " something else was learned",
        )


def inputs_not_finite(facts: Facts) -> Observations:
    """An image with NaN or infinity, which breaks the batch whatever the hyperparameters are."""
    last = facts.last_record
    if not last.inputs_finite:
        yield Observation(
            8.0,
            f"a batch up to step {last.broken_step} of epoch {last.epoch} contained NaN or"
            " infinity",
        )
    else:
        yield Observation(-6.0, "every input was finite")
    if facts.broke_off and not facts.norm_growth > FAST_GROWTH:
        yield Observation(1.0, "loss and norm were healthy up to that step")


def too_little_regularization(facts: Facts) -> Observations:
    """A training split that the model memorizes."""
    yield from _memorized_samples(facts)
    if facts.last_record.weight_ratio > 30:
        yield Observation(
            -2.5,
            f"class weights that differ by a factor of {facts.last_record.weight_ratio:.3g}"
            " let a few rare pixels determine both losses",
        )
    if facts.worst_val_ce > DIVERGED_CE:
        yield Observation(-3.0, "the weights diverged")
    if facts.loss_fall < NOTHING_LEARNED:
        yield Observation(-3.0, "nothing was learned, so nothing was memorized")
    jump = facts.loss_jump
    if jump.epoch > EARLY_EPOCHS and jump.ratio > JUMP:
        yield Observation(-2.0, f"the training loss jumped at epoch {jump.epoch}")
    if facts.uses_focal_loss and float(facts.values.get("loss.gamma", 0.0)) > 4:
        yield Observation(-1.5, "at a gamma this large few pixels determine the validation loss")


def _memorized_samples(facts: Facts) -> Observations:
    """What the losses and the number of samples say about memorization."""
    rise = facts.val_rise
    if math.isnan(rise):
        yield Observation(-1.0, "too few epochs for a validation loss to rise")
    else:
        yield Observation(
            min(2.5, 15 * rise) if rise > 0.04 else -1.0,
            f"validation loss has risen {max(0.0, rise):.0%} over its minimum",
        )
    if facts.generalization_gap > 1.5:
        yield Observation(
            1.0, f"validation loss is {facts.generalization_gap:.3g} times the training loss"
        )
    samples = facts.last_record.steps * facts.samples_per_step
    if samples < 50 and not facts.broke_off:
        yield Observation(2.0, f"an epoch has {samples} samples")
