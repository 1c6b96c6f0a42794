"""Causes that end a training before anything is learned: short steps, few steps, skipped steps."""

from __future__ import annotations

import math

from search.diagnosis.facts import Facts
from search.diagnosis.observation import (
    NOTHING_LEARNED,
    PRESET_RATE,
    TINY_BATCH,
    VANISHING_NORM,
    Observation,
    Observations,
)

STILL_FALLING = 0.02
"""Share by which the loss fell in the last third of the epochs, above which it still falls."""


def learning_rate_too_low(facts: Facts) -> Observations:
    """Steps so small that the budget ends before much is learned."""
    rate = facts.lr_multiple
    yield from _grew(facts)
    if rate < PRESET_RATE:
        yield Observation(min(3.5, 0.5 + 1.2 * math.log10(PRESET_RATE / rate)), facts.rate_text)
    else:
        yield Observation(-3.0, facts.rate_text)
    yield from _slow_progress(facts)
    if facts.median_norm < VANISHING_NORM:
        yield Observation(-2.0, f"the gradient norm itself was {facts.median_norm:.2g}")
    if facts.diverged:
        yield Observation(-5.0, "the weights diverged, which takes large steps")
    if rate > 0.05 and facts.planned_epochs < 8:
        yield Observation(-2.5, f"the trial had {facts.planned_epochs} epochs only")


def gradient_clipped_away(facts: Facts) -> Observations:
    """Clipping far below the usual norm, so that each step has the same tiny length."""
    clip = facts.grad_clip_norm
    norm = facts.median_norm
    if clip is None or not norm > 0 or clip > 0.1 * norm:
        yield Observation(-5.0, "gradients were not clipped to a small part of their norm")
        return
    yield from _grew(facts)
    if facts.values.get("optimizer.kind") == "adamw":
        yield Observation(-3.0, "the steps of AdamW do not depend on the length of the gradients")
    yield Observation(
        1.5 + min(2.0, math.log10(norm / clip)),
        f"gradients of norm {norm:.3g} were clipped at {clip:g},"
        f" in {facts.clipped_share:.0%} of the steps",
    )
    yield from _slow_progress(facts)
    if facts.lr_multiple < 0.1:
        yield Observation(-0.5, facts.rate_text)


def _grew(facts: Facts) -> Observations:
    """Whether loss or gradients grew, which short steps do not make them do."""
    if facts.signal_name in ("nonfinite_loss", "gradient_explosion", "loss_rising"):
        yield Observation(-8.0, "the loss or the gradients grew, which short steps do not cause")


def _slow_progress(facts: Facts) -> Observations:
    """Whether the loss fell slowly, and the training was still improving at its end."""
    fall = facts.loss_fall
    epochs = len(facts.complete_epochs)
    if math.isnan(fall):
        yield Observation(-3.0, "too few epochs to see whether the loss falls")
        return
    if fall < 0:
        yield Observation(-1.0, f"the {facts.loss_name} rose by {-fall:.1%} in {epochs} epochs")
        return
    text = f"the {facts.loss_name} fell by {fall:.1%} in {epochs} epochs"
    if fall < NOTHING_LEARNED:
        yield Observation(2.5, text)
    elif fall < 0.4:
        yield Observation(1.0, text)
    elif fall > 0.6:
        yield Observation(-1.5, text)
    yield from _still_improving(facts)


def _still_improving(facts: Facts) -> Observations:
    """Whether more epochs would have helped."""
    if facts.is_still_improving:
        yield Observation(
            1.0, f"the last epoch, {facts.best_epoch}, was the best one: it was still improving"
        )
    if facts.recent_fall > STILL_FALLING:
        yield Observation(
            0.5, f"the loss still fell by {facts.recent_fall:.1%} in the last third of the epochs"
        )


def too_few_epochs(facts: Facts) -> Observations:
    """A budget that ends while a training of usual steps is still improving."""
    epochs = facts.planned_epochs
    if facts.ended_early:
        yield Observation(-5.0, "the trial was stopped before its last epoch")
    yield Observation(max(-2.0, min(2.5, 4.5 - epochs / 2)), f"the trial had {epochs} epochs")
    if facts.best_is_last:
        yield from _still_improving(facts)
    else:
        yield Observation(-2.5, f"the best epoch, {facts.best_epoch}, was not the last one")
    if 0 <= facts.loss_fall < 0.03:
        yield Observation(-1.0, f"the {facts.loss_name} fell by only {facts.loss_fall:.1%}")
    if facts.lr_multiple < 0.05:
        yield Observation(-2.0, f"{facts.rate_text}, which explains it better")
    clip = facts.grad_clip_norm
    if clip is not None and clip < 0.05 * facts.median_norm:
        yield Observation(-2.0, "clipping removed nearly all of each gradient")
    if facts.data.carries_information is False:
        yield Observation(-2.0, "the images carry little information")


def precision_overflow(facts: Facts) -> Observations:
    """Gradients that overflow in float16, so that the loss scaler skips their steps."""
    share = facts.data.skipped_share
    if share < 0.02:
        yield Observation(-6.0, "hardly a step was skipped for an overflow")
        return
    text = f"the loss scaler skipped {share:.0%} of the steps, because a gradient overflowed"
    yield Observation(min(6.0, 1 + 15 * share), text)
    if facts.peak_norm < 10:
        yield Observation(0.5, f"the other norms were at most {facts.peak_norm:.3g}")


def batch_norm_tiny(facts: Facts) -> Observations:
    """Batch normalization over so few samples that its statistics are noise."""
    samples = facts.data.batch_norm_samples
    if samples is None:
        yield Observation(-5.0, "no batch normalization was seen")
        return
    text = f"batch norm normalized over {samples} sample{'s' if samples > 1 else ''}"
    if samples > TINY_BATCH:
        yield Observation(-5.0, text)
        return
    yield Observation(4.0, text)
    if int(facts.number("optimizer.accumulate", 1)) > 1:
        yield Observation(0.5, "accumulating batches for a step does not change that")
    if facts.val_ce_swing > 0.15:
        yield Observation(
            0.5, f"validation cross entropy changes by {facts.val_ce_swing:.0%} per epoch"
        )
    if facts.early_gap > 1.3:
        yield Observation(
            0.5, f"validation loss was {facts.early_gap:.3g} times the training loss early on"
        )
    if facts.lr_multiple > 3:
        yield Observation(-1.0, facts.rate_text)
