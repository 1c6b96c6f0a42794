"""Causes in the data: inputs, a validation split unlike training, and too few samples."""

from __future__ import annotations

import math

from search.diagnosis.data_facts import OTHER_CONTRAST, SHIFTED
from search.diagnosis.facts import FAST_GROWTH, Facts
from search.diagnosis.observation import (
    CHANCE,
    EARLY_EPOCHS,
    JUMP,
    NOTHING_LEARNED,
    TINY_BATCH,
    Observation,
    Observations,
)
from search.diagnosis.trial_facts import FEW_SAMPLES


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


def input_without_information(facts: Facts) -> Observations:
    """Images that are constant, saturated, or lack a channel, so that little can be learned."""
    inputs = facts.data.inputs
    if inputs is None:
        yield Observation(-4.0, "the records have no figures of the images")
        return
    channels = len(inputs.mean)
    constant = facts.data.constant_channels
    if inputs.constant > 0.1:
        yield Observation(
            6.0, f"{inputs.constant:.0%} of the images have the same value everywhere"
        )
    elif constant:
        # One constant channel may be an unused one, such as alpha; the more, the less is left.
        weight = 2.0 + 3.0 * constant / channels
        yield Observation(weight, f"{constant} of {channels} channels never vary")
    else:
        yield Observation(-1.0, "every channel varies")
    yield from _saturated_pixels(facts)
    recognized = facts.recognized_classes(CHANCE)
    if 2 * len(recognized) >= len(facts.present_classes) > 0:
        # Classes are recognized by what is left, so most channels being empty remains a finding.
        weight = -2.0 if 2 * constant > channels else -5.0
        yield Observation(weight, f"recognized all the same: {facts.class_names(recognized)}")


def _saturated_pixels(facts: Facts) -> Observations:
    at_maximum, at_minimum = facts.data.at_maximum, facts.data.at_minimum
    if at_maximum > 0.2:
        yield Observation(
            min(5.0, 2 + 5 * at_maximum),
            f"{at_maximum:.0%} of the pixels are at the highest value of their batch",
        )
    elif at_minimum > 0.9:
        # A dark background is usual, so a share that would mean saturation is no fault here.
        yield Observation(
            2.0, f"{at_minimum:.0%} of the pixels are at the lowest value of their batch"
        )
    elif facts.data.carries_information:
        yield Observation(-3.0, "few pixels are at the limits of the values")


def validation_unlike_training(facts: Facts) -> Observations:
    """A validation split that is prepared otherwise, so that its loss is higher from the start."""
    yield from _compare_images(facts)
    gap = facts.early_gap
    if gap > 1.3:
        yield Observation(
            min(2.5, 2 * (gap - 0.9)),
            f"validation loss was {gap:.3g} times the training loss or more from epoch 2 on",
        )
    elif gap <= 1.3:
        yield Observation(-1.5, f"early validation loss was {gap:.3g} times the training loss")
    if facts.loss_fall > 0.2:
        yield Observation(0.5, f"the training loss fell by {facts.loss_fall:.0%}")
    if (facts.data.batch_norm_samples or math.inf) <= TINY_BATCH:
        yield Observation(-2.0, "batch norm over tiny batches causes such a gap, too")
    if facts.has_few_samples:
        yield Observation(-2.0, f"an epoch has {facts.samples_per_epoch} samples")


def _compare_images(facts: Facts) -> Observations:
    """What the figures of the images in both splits say."""
    shift, contrast = facts.data.val_shift, facts.data.val_contrast
    if math.isnan(shift) and math.isnan(contrast):
        yield Observation(-3.0, "the records have no figures of the images in both splits")
        return
    if abs(shift) > SHIFTED:
        yield Observation(
            min(4.0, 5 * abs(shift)),
            f"the mean of the validation images is {shift:+.2g} standard deviations from that of"
            " training",
        )
    if contrast > OTHER_CONTRAST or contrast < 1 / OTHER_CONTRAST:
        yield Observation(
            2.0,
            f"the validation images have {contrast:.2g} times the standard deviation of training",
        )
    if not facts.data.splits_differ:
        yield Observation(-2.5, "images of both splits have the same mean and deviation")


def too_little_regularization(facts: Facts) -> Observations:
    """A training split that the model memorizes."""
    yield from _memorized_samples(facts)
    if facts.last_record.weight_ratio > 30:
        yield Observation(
            -3.5,
            f"class weights that differ by a factor of {facts.last_record.weight_ratio:.3g}"
            " let a few rare pixels determine both losses",
        )
    if facts.diverged:
        yield Observation(-3.0, "the weights diverged")
    if facts.loss_fall < NOTHING_LEARNED:
        yield Observation(-3.0, "nothing was learned, so nothing was memorized")
    jump = facts.loss_jump
    if jump.epoch > EARLY_EPOCHS and jump.ratio > JUMP:
        yield Observation(-2.0, f"the training loss jumped at epoch {jump.epoch}")
    if facts.uses_focal_loss and facts.number("loss.gamma", 0.0) > 4:
        yield Observation(-2.5, "at a gamma this large few pixels determine the validation loss")
    if facts.present_classes and not facts.recognized_classes(CHANCE):
        yield Observation(
            -1.5, "no class is recognized, so it is not that the model knows too much"
        )
    if facts.data.splits_differ or facts.data.missing_classes:
        yield Observation(-1.5, "validation differs from training in other ways")
    if (facts.data.batch_norm_samples or math.inf) <= TINY_BATCH:
        yield Observation(-1.0, "statistics of tiny batches explain a high validation loss")
    if facts.data.constant_channels:
        yield Observation(-1.0, "a channel of the images never varies")


def _memorized_samples(facts: Facts) -> Observations:
    """What the losses and the number of samples say about memorization."""
    rise = facts.val_rise
    if math.isnan(rise):
        yield Observation(-1.0, "too few epochs for a validation loss to rise")
    else:
        yield Observation(
            min(2.5, 15 * rise) if rise > 0.04 else -1.0,
            f"validation loss is {max(0.0, rise):.0%} above its minimum",
        )
    if facts.generalization_gap > 1.5:
        yield Observation(
            1.0, f"validation loss is {facts.generalization_gap:.3g} times the training loss"
        )
    if facts.has_few_samples and not facts.broke_off:
        weight = 4.5 if facts.samples_per_epoch < FEW_SAMPLES / 3 else 2.0
        yield Observation(weight, f"an epoch has {facts.samples_per_epoch} samples")
