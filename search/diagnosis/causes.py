"""The causes that a trial can fail of, and what speaks for and against each: telemetry first, configuration second.

Each cause is a function from the facts to points, the logarithms of how much likelier an observation is under that
cause than under the others, in rough steps: 1 leans, 2 is strong, 4 settles it. Their sum ranks the causes and, set
against all others, says how sure the diagnosis is. The planted faults of `benchmarks/faults.py` hold the ranking to account.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from search.diagnosis.facts import Facts

TYPICAL_GROWTH = 3.0
"""A norm that grew by more within ten steps was blowing up; less is a bolt out of the blue."""


class Point(NamedTuple):
    """One observation: how strongly it speaks for a cause (against it when negative), in words."""

    weight: float
    text: str


Points = Iterator[Point]


def learning_rate_too_high(facts: Facts) -> Points:
    """Steps so large that they throw the weights away, or never settle."""
    rate, clip = facts.rate, facts.clip
    told = f"the learning rate was {facts.last.lr:.4g}, {rate:.3g} times the base rate"
    if rate > 1:
        yield Point(min(3.0, math.log2(rate)), told)
    elif rate <= 0.5:
        yield Point(-1.5, told)
    if facts.worst_val_ce > 4:
        yield Point(
            2.5,
            f"validation cross entropy reached {facts.worst_val_ce * facts.guess:.3g} where a guess has {facts.guess:.2f}: the weights were thrown far off",
        )
    if facts.broke and facts.growth > TYPICAL_GROWTH:
        yield Point(1.5, f"the gradient norm grew {facts.growth:.3g}-fold in the last steps")
    if facts.peak_norm > 100:
        yield Point(1.0, f"the gradient norm reached {facts.peak_norm:.3g} (healthy: 0.1 to 10)")
    if facts.collapsed and rate > 1:
        yield Point(1.0, "one class alone is predicted, as after a throw of the weights")
    if facts.loss_scale > 10:
        yield Point(
            -2.0,
            f"the first loss was {facts.loss_scale:.3g} times that of a guess: the loss's own scale explains large gradients",
        )
    if not facts.broke and clip is not None and facts.norm > 0 and clip < 0.05 * facts.norm:
        yield Point(-2.0, "nearly all of every gradient was clipped away")


def exploding_gradient(facts: Facts) -> Points:
    """Gradients that grow by themselves, at a rate that would do if they were bounded."""
    if facts.clip is not None:
        yield Point(-4.0, f"gradients were clipped at {facts.clip:g}")
    else:
        yield Point(0.5, "gradients were not clipped")
    if facts.signal in ("gradient_explosion", "nonfinite_loss") and facts.growth > TYPICAL_GROWTH:
        yield Point(
            2.0,
            f"the gradient norm grew {facts.growth:.3g}-fold in the last steps, to {facts.peak_norm:.3g}",
        )
    elif not facts.peak_norm > 100:
        yield Point(-3.0, f"the gradient norm never passed {facts.peak_norm:.3g}")
    if facts.rate > 1:
        yield Point(
            -min(2.0, math.log2(facts.rate)),
            f"the learning rate was {facts.rate:.3g} times the base rate, which explains it better",
        )
    if facts.loss_scale > 10:
        yield Point(
            -2.0,
            f"the loss's own scale, {facts.loss_scale:.3g} times that of a guess, explains it better",
        )


def loss_scale_changed(facts: Facts) -> Points:
    """A loss on another scale is another learning rate: what suited cross entropy suits it no more."""
    if facts.loss_scale > 10:
        yield Point(4.0, f"the first loss was {facts.loss_scale:.3g} times that of a guess")
    elif facts.loss_scale < 0.03:
        yield Point(3.0, f"the first loss was {facts.loss_scale:.2g} times that of a guess")
    else:
        yield Point(
            -4.0,
            f"the first loss was {facts.loss_scale:.2g} times that of a guess, which is the usual scale",
        )
    if facts.norm < 1e-3:
        yield Point(2.0, f"the gradient norm was {facts.norm:.2g} (vanishing: under 0.001)")
    if facts.peak_norm > 100:
        yield Point(1.0, f"the gradient norm reached {facts.peak_norm:.3g}")
    alpha = facts.values.get("loss.alpha")
    if isinstance(alpha, (int, float)) and facts.focal and not 0.1 <= alpha <= 10:
        yield Point(1.5, f"alpha {alpha:g} multiplies the whole loss")


def extreme_class_weights(facts: Facts) -> Points:
    """The loss is won on rare classes, at the cost of the frequent ones."""
    ratio = facts.last.weight_ratio
    told = f"class weights differ by a factor of {ratio:.4g}"
    yield Point(max(-3.0, min(3.0, 2 * (math.log10(max(ratio, 1.0)) - 1.4))), told)
    if facts.frequent_pull < 0.13:
        yield Point(
            1.5,
            f"frequent classes carry {facts.frequent_pull:.2g} of the gradient that their pixels would carry unweighted",
        )
    elif facts.frequent_pull > 0.3:
        yield Point(
            -1.0,
            f"frequent classes carry {facts.frequent_pull:.2g} of the gradient that their pixels would carry unweighted, not little",
        )
    if facts.worst_val_ce > 4:
        yield Point(-1.0, "the weights were thrown far off, which class weights alone do not do")
    if facts.jump[1] > 1.5 and facts.jump[0] > LABEL_GRACE:
        yield Point(
            -1.5,
            f"the loss jumped at epoch {facts.jump[0]} while the class weights stayed the same",
        )
    if facts.fall < 0.05:
        yield Point(-2.0, "nothing was learnt, not even the rare classes")


def dice_unstable(facts: Facts) -> Points:
    """Dice's gradient dominates while its sums are still small and noisy."""
    share, smooth = facts.dice_share, facts.last.smooth
    if share < 0.35:
        yield Point(-4.0, f"Dice carries {share:.0%} of the gradient at the logits, not much")
        return
    yield Point(0.5 + 2 * (share - 0.35), f"Dice carries {share:.0%} of the gradient at the logits")
    if facts.ce_over_best > 1.15 or (facts.whole and facts.whole[-1].ce_loss > facts.guess):
        yield Point(
            1.5,
            f"cross entropy rose or stayed at {facts.last.ce_loss:.3g} while Dice was trained: Dice alone decides",
        )
    if facts.val_ce_swing > 0.15:
        yield Point(
            1.0, f"validation cross entropy swings by {facts.val_ce_swing:.0%} from epoch to epoch"
        )
    if smooth < 0.1:
        yield Point(
            2.0, f"smooth {smooth:g}: a class of a few pixels has the steepest gradient of all"
        )
    if facts.clip is None:
        yield Point(0.5, "gradients were not clipped")
    if not facts.values.get("loss.square_denominator"):
        yield Point(0.5, "the denominator is not squared")
    if facts.rate > 1:
        yield Point(
            -min(2.0, math.log2(facts.rate) / 2),
            f"the learning rate was {facts.rate:.3g} times the base rate",
        )


def batch_too_small(facts: Facts) -> Points:
    """Gradients of a few samples, of which the next few know nothing."""
    if facts.batch >= 4:
        yield Point(-4.0, f"an optimiser step sees {facts.batch} samples")
        return
    yield Point(1.0, f"an optimiser step sees {facts.batch} sample{'s' if facts.batch > 1 else ''}")
    if facts.dice_share > 0.3:
        yield Point(
            0.5,
            f"Dice carries {facts.dice_share:.0%} of the gradient, and is unstable below 4 samples",
        )
    if facts.noise > 3:
        yield Point(1.5, f"an epoch's largest gradient norm is {facts.noise:.3g} times its median")


def imbalance_too_strong(facts: Facts) -> Points:
    """Rare classes carry so little of the loss that ignoring them is cheapest."""
    ratio, dead = facts.last.weight_ratio, facts.dead
    if facts.collapsed:
        yield Point(-1.0, "every class but one is ignored, not just the rare ones")
    elif len(dead) >= 2 or (dead and len(facts.held) <= 4):
        yield Point(
            min(3.0, 0.75 * len(dead)),
            f"{len(dead)} of {len(facts.held)} classes at 0: {', '.join(map(facts.name, dead))}",
        )
    else:
        yield Point(-3.0, f"{len(dead)} of {len(facts.held)} classes at 0")
    if ratio < 4:
        yield Point(1.5, f"class weights differ by a factor of {ratio:.3g} only")
    if ratio > 10:
        yield Point(-1.0, f"class weights differ by a factor of {ratio:.3g}")
    if facts.dice_share < 0.1:
        yield Point(0.5, "no Dice, or next to none, takes part")
    if facts.fall < 0.1:
        yield Point(-3.0, "nothing at all was learnt")
    if facts.worst_val_ce > 4:
        yield Point(-1.5, "the weights were thrown far off")
    if facts.unpulled:
        yield Point(-2.0, f"{', '.join(map(facts.name, facts.unpulled))} gets no gradient at all")
    if facts.dice_missing > 0.6:
        yield Point(
            -2.0,
            f"Dice, which weighs every class alike, was to take part and did not in {facts.dice_missing:.0%} of the epochs",
        )


def alpha_wrong(facts: Facts) -> Points:
    """A class whose alpha (or weight) is next to 0 cannot be learnt."""
    if not facts.unpulled:
        yield Point(-5.0, "every class that is at 0 gets its gradient")
        return
    yield Point(
        5.0,
        f"{', '.join(map(facts.name, facts.unpulled))} at 0, and its pixels get next to no gradient",
    )
    if not facts.focal:
        yield Point(-5.0, "no focal loss, so no alpha, takes part")


def dice_too_late(facts: Facts) -> Points:
    """The warm-up is so long that Dice never got its share."""
    if facts.dice_weight < 0.1:
        yield Point(-5.0, "the configuration gives Dice no share to come to")
        return
    if facts.dice_missing < 0.6:
        yield Point(-4.0, f"Dice had its final share {facts.dice_weight:.2g} in good time")
        return
    yield Point(
        3.5,
        f"Dice had less than half of its final share {facts.dice_weight:.2g} in {facts.dice_missing:.0%} of the epochs",
    )
    if facts.dead and not facts.collapsed:
        yield Point(1.5, f"{len(facts.dead)} classes at 0 that Dice weighs like any other")


LABEL_GRACE = 3
"""Epochs in which a loss may still jump for other reasons."""


def labels_broken(facts: Facts) -> Points:
    """From some epoch on the targets are not what they were: a bad mount, a wrong palette, half a download."""
    epoch, jump = facts.jump
    if epoch <= LABEL_GRACE or not jump > 1.4:
        yield Point(-4.0, "the training loss never jumped at an unchanged rate")
        return
    yield Point(
        min(3.0, 2 * (jump - 0.9)),
        f"the training loss jumped {jump:.3g}-fold at epoch {epoch}, at an unchanged rate, weights and split",
    )
    before = max(
        (record.metric for record in facts.whole if record.epoch < epoch), default=math.nan
    )
    after = [record for record in facts.whole if record.epoch > epoch]
    if (
        after
        and after[-1].metric < 0.5 * before
        and after[-1].ce_loss
        < 0.7 * max(record.ce_loss for record in facts.whole if record.epoch >= epoch)
    ):
        yield Point(
            2.0,
            f"it was trained down again while the metric stayed at {after[-1].metric:.3g} (before: {before:.3g}): something else was learnt",
        )
    if facts.rate > 3:
        yield Point(-2.0, f"the learning rate was {facts.rate:.3g} times the base rate")
    if facts.worst_val_ce > 4:
        yield Point(-0.5, "the weights were thrown far off")


def inputs_not_finite(facts: Facts) -> Points:
    """An image with NaN or infinity in it poisons the batch, whatever the hyperparameters."""
    if not facts.last.inputs_finite:
        yield Point(
            8.0,
            f"a batch up to step {facts.last.broken_step} of epoch {facts.last.epoch} held NaN or infinity",
        )
    else:
        yield Point(-6.0, "every input was finite")
    if facts.broke and not facts.growth > TYPICAL_GROWTH:
        yield Point(1.0, "loss and norm were healthy up to that step")


def too_little_regularisation(facts: Facts) -> Points:
    """The training split is learnt by heart."""
    if facts.val_rise > 0.04:
        yield Point(
            min(2.5, 15 * facts.val_rise),
            f"validation loss has risen {facts.val_rise:.0%} over its minimum",
        )
    else:
        yield Point(
            -1.0,
            f"validation loss has risen {max(0.0, facts.val_rise):.0%} over its minimum"
            if facts.val_rise == facts.val_rise
            else "too few epochs for a validation loss to rise",
        )
    if facts.gap > 1.5:
        yield Point(1.0, f"validation loss is {facts.gap:.3g} times the training loss")
    samples = facts.last.steps * facts.batch
    if samples < 50 and not facts.broke:
        yield Point(2.0, f"an epoch holds {samples} samples")
    if facts.last.weight_ratio > 30:
        yield Point(
            -2.5,
            f"class weights of a ratio of {facts.last.weight_ratio:.3g} let a few rare pixels decide both losses",
        )
    if facts.worst_val_ce > 4:
        yield Point(-3.0, "the weights were thrown far off")
    if facts.fall < 0.1:
        yield Point(-3.0, "nothing was learnt, so nothing by heart")
    if facts.jump[0] > LABEL_GRACE and facts.jump[1] > 1.4:
        yield Point(-2.0, f"the training loss jumped at epoch {facts.jump[0]}")
    if facts.focal and float(facts.values.get("loss.gamma", 0.0)) > 4:
        yield Point(-1.5, "at a gamma this large a validation loss is made of few pixels")


def learning_rate_too_low(facts: Facts) -> Points:
    """Steps so small that the budget ends before anything is learnt."""
    if facts.fall < 0.1:
        yield Point(3.0, f"cross entropy fell by {facts.fall:.1%} in {len(facts.whole)} epochs")
    else:
        yield Point(
            -3.0,
            f"cross entropy fell by {facts.fall:.0%}"
            if facts.fall == facts.fall
            else "too few epochs to see a loss stand still",
        )
    if facts.rate < 0.03:
        yield Point(2.0, f"the learning rate was {facts.rate:.2g} times the base rate")
    else:
        yield Point(-2.0, f"the learning rate was {facts.rate:.3g} times the base rate")
    if facts.norm < 1e-3:
        yield Point(-2.0, f"the gradient norm itself was {facts.norm:.2g}")


def clipped_away(facts: Facts) -> Points:
    """A bound far under the usual norm leaves steps of one tiny length, whatever the gradient."""
    clip = facts.clip
    if clip is None or not facts.norm > 0 or clip > 0.1 * facts.norm:
        yield Point(-4.0, "gradients were not clipped to a small part of their norm")
        return
    yield Point(
        2.5,
        f"gradients of norm {facts.norm:.3g} were clipped at {clip:g}, in {facts.clipped:.0%} of the steps",
    )
    if facts.fall < 0.1:
        yield Point(3.0, f"cross entropy fell by {facts.fall:.1%} in {len(facts.whole)} epochs")


def focusing_too_strong(facts: Facts) -> Points:
    """At a large gamma pixels that are half right weigh nothing, and probabilities stay vague."""
    gamma = float(facts.values.get("loss.gamma", 0.0))
    if not facts.focal or gamma < 4:
        yield Point(-4.0, f"gamma {gamma:g}" if facts.focal else "no focal loss takes part")
        return
    yield Point(min(3.0, gamma / 3), f"gamma {gamma:g}")
    if facts.val_ce_gain < 0.1:
        yield Point(
            1.5,
            f"validation cross entropy fell by {max(0.0, facts.val_ce_gain):.0%} only, while the focal loss fell by {facts.fall:.0%}",
        )
    if facts.worst_val_ce > 4:
        yield Point(-2.0, "the weights were thrown far off")


def weight_decay_too_strong(facts: Facts) -> Points:
    """The decay takes more of the weights than the gradient gives."""
    decay = float(facts.values.get("optimizer.weight_decay", 0.0))
    if decay < 0.01:
        yield Point(-5.0, f"weight decay {decay:g}")
        return
    yield Point(min(3.5, 1 + 1.5 * math.log10(decay / 0.01)), f"weight decay {decay:g}")
    if facts.collapsed or len(facts.dead) >= len(facts.held) // 2:
        yield Point(1.0, f"{len(facts.dead)} of {len(facts.held)} classes at 0")


CAUSES: dict[str, Callable[[Facts], Points]] = {
    "learning rate too high": learning_rate_too_high,
    "exploding gradient": exploding_gradient,
    "loss scale changed": loss_scale_changed,
    "extreme class weights": extreme_class_weights,
    "Dice unstable early": dice_unstable,
    "batch too small": batch_too_small,
    "imbalance too strong": imbalance_too_strong,
    "alpha wrong for a class": alpha_wrong,
    "Dice too late": dice_too_late,
    "labels broken": labels_broken,
    "inputs not finite": inputs_not_finite,
    "too little regularisation": too_little_regularisation,
    "learning rate too low": learning_rate_too_low,
    "gradient clipped away": clipped_away,
    "focusing too strong": focusing_too_strong,
    "weight decay too strong": weight_decay_too_strong,
}
"""Name of a cause → what speaks for it."""

SUSPECTS: dict[str, tuple[str, ...]] = {
    "nonfinite_loss": ("learning rate too high", "exploding gradient", "inputs not finite"),
    "gradient_explosion": ("learning rate too high", "exploding gradient", "loss scale changed"),
    "loss_rising": ("learning rate too high",),
    "metric_falling": ("extreme class weights",),
    "class_collapse": (
        "imbalance too strong",
        "Dice too late",
        "alpha wrong for a class",
        "learning rate too high",
    ),
    "overfitting": ("too little regularisation", "extreme class weights"),
    "loss_metric_decoupling": ("extreme class weights", "labels broken"),
}
"""Signal → the causes that it is a sign of more often than of others."""

SUSPICION = Point(1.0, "the signal that fired is a usual sign of it")
