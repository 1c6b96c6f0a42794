"""Causes in the loss: its scale, class weights, focal settings and the share of Dice."""

from __future__ import annotations

import math

from search.diagnosis.facts import Facts
from search.diagnosis.observation import (
    EARLY_EPOCHS,
    FOREIGN_SCALE,
    LARGE_NORM,
    NOTHING_LEARNED,
    VANISHING_NORM,
    Observation,
    Observations,
)

FOREIGN_GAMMA = 8.0
"""Focusing exponent above which no documented training works."""


def loss_scale_changed(facts: Facts) -> Observations:
    """A loss on another scale, under which the usual learning rate is no longer suitable."""
    scale = facts.loss_scale
    if math.isnan(scale):
        yield Observation(-4.0, "without the number of classes the loss cannot be compared")
        return
    if scale > FOREIGN_SCALE:
        yield Observation(4.0, f"the first loss was {scale:.3g} times that of a guess")
    elif scale < 0.03:
        yield Observation(3.0, f"the first loss was {scale:.2g} times that of a guess")
    else:
        yield Observation(
            -4.0, f"the first loss was {scale:.2g} times that of a guess, which is the usual scale"
        )
    if facts.median_norm < VANISHING_NORM:
        yield Observation(
            2.0, f"the gradient norm was {facts.median_norm:.2g} (vanishing: under 0.001)"
        )
    if facts.peak_norm > LARGE_NORM:
        yield Observation(1.0, f"the gradient norm reached {facts.peak_norm:.3g}")
    alpha = facts.values.get("loss.alpha")
    if isinstance(alpha, (int, float)) and facts.uses_focal_loss and not 0.1 <= alpha <= 10:
        yield Observation(1.5, f"alpha {alpha:g} multiplies the whole loss", measured=False)
    if facts.values.get("optimizer.kind") == "adamw":
        yield Observation(-2.0, "the steps of AdamW do not depend on the scale of the loss")


def extreme_class_weights(facts: Facts) -> Observations:
    """Class weights under which the loss falls on rare classes at the cost of the frequent ones."""
    ratio = facts.last_record.weight_ratio
    yield Observation(
        max(-3.0, min(3.0, 2 * (math.log10(max(ratio, 1.0)) - 1.4))),
        f"class weights differ by a factor of {ratio:.4g}",
        measured=False,
    )
    method = facts.values.get("weights.method")
    if method == "inverse_freq" and facts.values.get("weights.clip_ratio") is None and ratio > 30:
        yield Observation(1.5, "weights by inverse frequency are not clipped", measured=False)
    pull = f"frequent classes have {facts.frequent_pull:.2g} of the gradient that they would have"
    if facts.frequent_pull < 0.13:
        yield Observation(1.5, f"{pull} without class weights")
    elif facts.frequent_pull > 0.3:
        yield Observation(-1.0, f"{pull} without class weights, which is not little")
    if facts.diverged:
        yield Observation(-1.0, "the weights diverged, which class weights alone do not cause")
    jump = facts.loss_jump
    if jump.ratio > 1.5 and jump.epoch > EARLY_EPOCHS:
        yield Observation(
            -1.5, f"the loss jumped at epoch {jump.epoch} while the class weights stayed the same"
        )
    if facts.loss_fall < 0.05:
        yield Observation(-2.0, "nothing was learned, not even the rare classes")
    if facts.data.oversampled_classes:
        yield Observation(-2.5, "rare classes are also sampled more often, which adds to weights")


def imbalance_too_strong(facts: Facts) -> Observations:
    """Rare classes with so little of the loss that ignoring them costs least."""
    yield from _ignored_classes(facts)
    ratio = facts.last_record.weight_ratio
    if ratio < 4 and facts.uses_class_weights:
        equal = "all class weights are equal"
        text = equal if ratio == 1 else f"class weights differ by a factor of only {ratio:.3g}"
        yield Observation(1.5, text, measured=False)
    if ratio > 10:
        yield Observation(-1.0, f"class weights differ by a factor of {ratio:.3g}")
    if facts.has_few_samples:
        yield Observation(-2.0, f"an epoch has {facts.samples_per_epoch} samples of any class")
    if facts.dice_share < 0.1 and facts.uses_dice:
        yield Observation(0.5, "the loss contains little or no Dice")
    if facts.loss_fall < NOTHING_LEARNED:
        yield Observation(-3.0, "nothing at all was learned")
    if facts.diverged:
        yield Observation(-1.5, "the weights diverged")
    if facts.classes_without_gradient:
        names = facts.class_names(facts.classes_without_gradient)
        yield Observation(-2.0, f"{names} gets no gradient at all")
    if facts.dice_missing > 0.6:
        yield Observation(
            -2.0,
            "Dice, which weights every class alike, was configured and missing in"
            f" {facts.dice_missing:.0%} of the planned epochs",
        )


def _ignored_classes(facts: Facts) -> Observations:
    seen, planned = len(facts.complete_epochs), facts.planned_epochs
    if facts.ended_early and facts.signal_name != "class_collapse" and seen < planned / 2:
        yield Observation(
            -3.0,
            f"the trial ended after {seen} of {planned} epochs, in which rare classes may not be"
            " learned yet",
        )
    dead = facts.dead_classes
    present = len(facts.present_classes)
    if facts.is_collapsed:
        yield Observation(-1.0, "every class but one is ignored, not only the rare ones")
    elif len(dead) >= 2 or (dead and present <= 4):
        yield Observation(
            min(3.0, 0.75 * len(dead)),
            f"{len(dead)} of {present} classes at 0: {facts.class_names(dead)}",
        )
    else:
        yield Observation(-3.0, f"{len(dead)} of {present} classes at 0")


def alpha_wrong(facts: Facts) -> Observations:
    """A class whose alpha (or weight) is nearly 0 and which therefore is not learned."""
    if not facts.classes_without_gradient:
        yield Observation(-5.0, "every class that is at 0 gets a gradient")
        return
    names = facts.class_names(facts.classes_without_gradient)
    yield Observation(5.0, f"{names} at 0, and its pixels get nearly no gradient")
    if not facts.uses_focal_loss:
        yield Observation(-5.0, "the loss is not focal, so it has no alpha")


def dice_unstable(facts: Facts) -> Observations:
    """A gradient of Dice that dominates while its sums are still small and noisy."""
    share = facts.dice_share
    if share < 0.35:
        yield Observation(-4.0, f"Dice has {share:.0%} of the gradient at the logits, not much")
        return
    yield Observation(
        0.5 + 2 * (share - 0.35), f"Dice has {share:.0%} of the gradient at the logits"
    )
    epochs = facts.complete_epochs
    if facts.ce_over_best > 1.15 or (epochs and epochs[-1].ce_loss > facts.guess_loss):
        yield Observation(
            1.5,
            f"cross entropy rose or stayed at {facts.last_record.ce_loss:.3g} while Dice was"
            " trained: Dice alone determines the training",
        )
    yield from _unstable_settings(facts)
    rate = facts.lr_multiple
    if rate > 1:
        yield Observation(-min(2.0, math.log2(rate) / 2), facts.rate_text)


def _unstable_settings(facts: Facts) -> Observations:
    """Signs of an unstable Dice in the validation and in the configuration."""
    if facts.val_ce_swing > 0.15:
        yield Observation(
            1.0, f"validation cross entropy changes by {facts.val_ce_swing:.0%} per epoch"
        )
    smooth = facts.last_record.smooth
    if smooth < 0.1:
        yield Observation(
            2.0, f"smooth {smooth:g}: a class of a few pixels has the steepest gradient of all"
        )
    if facts.grad_clip_norm is None:
        yield Observation(0.5, "gradients were not clipped")
    if not facts.values.get("loss.square_denominator"):
        yield Observation(0.5, "the denominator is not squared")


def dice_too_late(facts: Facts) -> Observations:
    """A warm-up so long that Dice never had its full weight."""
    weight = facts.dice_weight
    if weight < 0.1:
        yield Observation(-5.0, "the configuration gives Dice no weight")
        return
    if facts.dice_missing < 0.6:
        yield Observation(-4.0, f"Dice had its final weight {weight:.2g} early enough")
        return
    yield Observation(
        3.5,
        f"Dice has less than half of its final weight {weight:.2g} in {facts.dice_missing:.0%}"
        " of the planned epochs",
    )
    if facts.dead_classes and not facts.is_collapsed:
        yield Observation(
            1.5, f"{len(facts.dead_classes)} classes at 0, which Dice weights like any other"
        )


def focusing_too_strong(facts: Facts) -> Observations:
    """A gamma so large that half-right pixels have no weight and probabilities stay vague."""
    gamma = facts.number("loss.gamma", 0.0)
    if not facts.uses_focal_loss:
        yield Observation(-4.0, "the loss is not focal")
        return
    if gamma < 4:
        yield Observation(-4.0, f"gamma {gamma:g}")
        return
    # Documented values end at 5: one far above is no usual choice, which might work elsewhere.
    is_foreign = gamma > FOREIGN_GAMMA
    yield Observation(min(4.0, gamma / 3), f"gamma {gamma:g}", measured=is_foreign)
    if facts.val_ce_fall < 0.1:
        yield Observation(
            1.5,
            f"validation cross entropy fell by only {max(0.0, facts.val_ce_fall):.0%},"
            f" while the focal loss fell by {facts.loss_fall:.0%}",
        )
    if facts.diverged:
        yield Observation(-2.0, "the weights diverged")
