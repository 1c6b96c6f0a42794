"""Causes in the optimizer that make training unstable: learning rate, batch size, weight decay."""

from __future__ import annotations

import math

from search.diagnosis.facts import DIVERGED_CE, FAST_GROWTH, Facts
from search.diagnosis.observation import (
    CHANCE,
    FOREIGN_SCALE,
    LARGE_NORM,
    TINY_BATCH,
    Observation,
    Observations,
)


def learning_rate_too_high(facts: Facts) -> Observations:
    """Steps so large that the weights diverge, or the loss never settles."""
    rate = facts.lr_multiple
    if rate > 1:
        yield Observation(min(3.0, math.log2(rate)), facts.rate_text)
    elif rate <= 0.5:
        yield Observation(-1.5, facts.rate_text)
    if rate <= 1 and not facts.diverged:
        yield Observation(
            -6.0, "neither validation loss nor gradients suggest that the weights diverged"
        )
    if facts.worst_val_ce > DIVERGED_CE:
        yield Observation(
            2.5,
            f"validation cross entropy reached {facts.worst_val_ce * facts.guess_loss:.3g}"
            f" (guessing gives {facts.guess_loss:.2f}), so the weights diverged",
        )
    yield from _large_gradients(facts)
    yield from _better_explanations(facts)


def _better_explanations(facts: Facts) -> Observations:
    """What explains large gradients or a poor validation better."""
    if facts.loss_scale > FOREIGN_SCALE:
        yield Observation(
            -2.0,
            f"the first loss was {facts.loss_scale:.3g} times that of a guess:"
            " the scale of the loss explains large gradients",
        )
    clip = facts.grad_clip_norm
    norm = facts.median_norm
    if not facts.broke_off and clip is not None and norm > 0 and clip < 0.05 * norm:
        yield Observation(-2.0, "clipping removed nearly all of each gradient")
    if facts.lr_multiple <= 1 and facts.data.splits_differ:
        yield Observation(-3.0, "the validation images are unlike those of training")
    if facts.lr_multiple <= 1 and (facts.data.batch_norm_samples or math.inf) <= TINY_BATCH:
        yield Observation(-2.0, "statistics of tiny batches explain a poor validation")


def _large_gradients(facts: Facts) -> Observations:
    """Observations about gradients and predictions that a high learning rate explains."""
    if facts.broke_off and facts.norm_growth > FAST_GROWTH:
        yield Observation(
            1.5, f"the gradient norm grew {facts.norm_growth:.3g}-fold in the last steps"
        )
    if facts.peak_norm > LARGE_NORM:
        yield Observation(
            1.0, f"the gradient norm reached {facts.peak_norm:.3g} (healthy: 0.1 to 10)"
        )
    if facts.is_collapsed and facts.lr_multiple > 1:
        yield Observation(1.0, "only one class is predicted, as after the weights diverged")


def exploding_gradient(facts: Facts) -> Observations:
    """Gradients that grow on their own, at a rate that would work if they were clipped."""
    if facts.grad_clip_norm is not None:
        yield Observation(-4.0, f"gradients were clipped at {facts.grad_clip_norm:g}")
    elif "optimizer.grad_clip_norm" in facts.values:
        yield Observation(0.5, "gradients were not clipped", measured=False)
    at_a_step = facts.signal_name in ("gradient_explosion", "nonfinite_loss")
    if at_a_step and facts.norm_growth > FAST_GROWTH:
        yield Observation(
            2.0,
            f"the gradient norm grew {facts.norm_growth:.3g}-fold in the last steps,"
            f" to {facts.peak_norm:.3g}",
        )
    elif facts.peak_norm <= LARGE_NORM:
        yield Observation(-3.0, f"the gradient norm never exceeded {facts.peak_norm:.3g}")
    elif math.isnan(facts.peak_norm):
        yield Observation(-3.0, "no gradient norm was recorded")
    if facts.lr_multiple > 1:
        yield Observation(
            -min(2.0, math.log2(facts.lr_multiple)),
            f"{facts.rate_text}, which explains it better",
        )
    if facts.loss_scale > FOREIGN_SCALE:
        yield Observation(
            -2.0,
            f"the scale of the loss, {facts.loss_scale:.3g} times that of a guess,"
            " explains it better",
        )


def batch_too_small(facts: Facts) -> Observations:
    """Gradients of so few samples that each step contradicts the one before."""
    samples = facts.samples_per_step
    if samples >= 4:
        yield Observation(-4.0, f"an optimizer step uses {samples} samples")
        return
    text = f"an optimizer step uses {samples} sample{'s' if samples > 1 else ''}"
    yield Observation(1.0, text, measured=False)
    if facts.dice_share > 0.3:
        yield Observation(
            0.5,
            f"Dice has {facts.dice_share:.0%} of the gradient, and is unstable below 4 samples",
        )
    if facts.norm_noise > 3:
        yield Observation(
            1.5, f"the largest gradient norm of an epoch is {facts.norm_noise:.3g} times its median"
        )
    if (facts.data.batch_norm_samples or math.inf) <= TINY_BATCH:
        yield Observation(-1.0, "batch norm, which needs more samples, explains it as well")


def weight_decay_too_strong(facts: Facts) -> Observations:
    """Weight decay that removes more of the weights than the gradient adds."""
    decay = facts.number("optimizer.weight_decay", 0.0)
    if decay < 0.01:
        yield Observation(-5.0, f"weight decay {decay:g}")
        return
    weight = min(3.5, 1 + 1.5 * math.log10(decay / 0.01))
    yield Observation(weight, f"weight decay {decay:g}", measured=False)
    present = len(facts.present_classes)
    dead = len(facts.dead_classes)
    if present and (facts.is_collapsed or dead >= max(1, present // 2)):
        yield Observation(1.0, f"{dead} of {present} classes at 0")
    if facts.loss_fall > 0.4 and facts.recognized_classes(CHANCE):
        yield Observation(
            -2.0,
            f"the loss fell by {facts.loss_fall:.0%} and classes are recognized in spite of it",
        )
