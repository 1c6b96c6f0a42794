"""Causes in the labels: which image they belong to, which classes occur, and how often."""

from __future__ import annotations

import math

from search.diagnosis.facts import Facts
from search.diagnosis.observation import CHANCE, EARLY_EPOCHS, JUMP, Observation, Observations
from search.diagnosis.trial_facts import FEW_SAMPLES
from spaces.records import best_record

USUAL_RATES = (0.1, 3.0)
"""Multiples of the base rate at which a model learns what can be learned."""


def labels_broken(facts: Facts) -> Observations:
    """Targets that changed from some epoch on: a bad mount, a wrong palette, a partial download."""
    jump = facts.loss_jump
    if jump.epoch <= EARLY_EPOCHS or not jump.ratio > JUMP:
        yield Observation(-4.0, "the training loss never jumped at an unchanged learning rate")
        return
    yield Observation(
        min(3.0, 2 * (jump.ratio - 0.9)),
        f"the training loss jumped {jump.ratio:.3g}-fold at epoch {jump.epoch},"
        f" at {_list_unchanged(facts)}",
    )
    yield from _learned_something_else(facts)
    if facts.lr_multiple > 3:
        yield Observation(-2.0, facts.rate_text)
    if facts.diverged:
        yield Observation(-0.5, "the weights diverged")


def _list_unchanged(facts: Facts) -> str:
    """What a jump of the loss is compared at, as far as the trial has it."""
    unchanged = ["an unchanged learning rate"]
    if facts.uses_class_weights:
        unchanged.append("unchanged class weights")
    if facts.uses_dice:
        unchanged.append("unchanged CE/Dice weights")
    return " and ".join(unchanged)


def _learned_something_else(facts: Facts) -> Observations:
    """That the loss fell again after its jump, and the metric did not recover."""
    jump_epoch = facts.loss_jump.epoch
    epochs = facts.complete_epochs
    last = epochs[-1]
    if last.epoch <= jump_epoch:
        return
    earlier = [record for record in epochs if record.epoch < jump_epoch]
    before = best_record(earlier, facts.direction).metric if earlier else math.nan
    worse = last.metric < 0.5 * before
    if facts.direction == "minimize":
        worse = last.metric > 2 * before
    highest = max(record.ce_loss for record in epochs if record.epoch >= jump_epoch)
    if worse and last.ce_loss < 0.7 * highest:
        yield Observation(
            2.0,
            f"it fell again while the metric stayed at {last.metric:.3g} (before: {before:.3g}):"
            " something else was learned",
        )


def labels_do_not_match(facts: Facts) -> Observations:
    """Masks that belong to other images, or are shifted: only the class frequencies are learned."""
    known = facts.recognized_classes(CHANCE)
    present = len(facts.present_classes)
    if present < 2 or len(facts.complete_epochs) < 3:
        yield Observation(-4.0, "too few classes or epochs to see whether any class is recognized")
        return
    if known:
        yield Observation(-5.0, f"recognized: {facts.class_names(known)}")
        return
    yield Observation(
        2.0,
        f"none of {present} classes scored above chance",
    )
    yield from _loss_at_its_floor(facts)
    yield from _other_reasons(facts)


def _loss_at_its_floor(facts: Facts) -> Observations:
    """Whether the loss stopped far above 0 although the model was trained with usual steps."""
    last = facts.complete_epochs[-1]
    if facts.loss_fall > 0.6 or facts.diverged:
        yield Observation(-2.0, f"the training loss fell by {facts.loss_fall:.0%}")
        return
    low, high = USUAL_RATES
    if "optimizer.lr_multiple" in facts.values and low <= facts.lr_multiple <= high:
        yield Observation(1.5, f"{facts.rate_text}, a rate at which models usually learn")
    if facts.val_ce_fall < 0.15 and last.val_ce < facts.guess_loss:
        yield Observation(
            1.0,
            f"validation cross entropy stays at {last.val_ce:.3g}, below the"
            f" {facts.guess_loss:.2f} of a uniform guess, as if nothing but frequencies was known",
        )


def _other_reasons(facts: Facts) -> Observations:
    """What else explains that no class is recognized."""
    clip = facts.grad_clip_norm
    if facts.is_still_improving and facts.planned_epochs < 8:
        yield Observation(-2.5, "the trial ended while it was still improving")
    if facts.has_few_samples:
        weight = -4.0 if facts.samples_per_epoch < FEW_SAMPLES / 3 else -2.0
        yield Observation(
            weight, f"an epoch has {facts.samples_per_epoch} samples, which explains it as well"
        )
    if facts.data.inputs is None:
        yield Observation(-2.0, "the records have no figures of the inputs")
    elif facts.data.carries_information is False:
        yield Observation(-3.0, "the images themselves carry little information")
    elif facts.data.carries_information:
        yield Observation(0.5, "the images vary and are not saturated")
    if facts.lr_multiple < USUAL_RATES[0]:
        yield Observation(-3.0, f"{facts.rate_text}, which explains it as well")
    if facts.lr_multiple > USUAL_RATES[1]:
        yield Observation(-2.5, f"{facts.rate_text}, which explains it as well")
    if clip is not None and clip < 0.05 * facts.median_norm:
        yield Observation(-4.0, "clipping removed nearly all of each gradient")
    if facts.number("optimizer.weight_decay", 0.0) > 0.01:
        yield Observation(-4.5, "the weight decay explains it as well")
    if facts.data.skipped_share > 0.1:
        yield Observation(-2.0, "many steps were skipped")
    if facts.uses_focal_loss and facts.number("loss.gamma", 0.0) > 4:
        yield Observation(-2.0, "the focusing exponent explains it as well")
    if facts.dice_share > 0.6:
        yield Observation(-2.0, f"Dice has {facts.dice_share:.0%} of the gradient")
    if facts.last_record.weight_ratio < 4:
        yield Observation(-1.5, f"there are no {_name_emphasis(facts)}")
    if facts.loss_scale <= 0.03 or facts.loss_scale >= 10:
        yield Observation(-3.5, "the scale of the loss is unusual")
    if facts.data.splits_differ:
        yield Observation(-3.0, "the validation images are unlike those of training")


def _name_emphasis(facts: Facts) -> str:
    means = "class weights" if facts.uses_class_weights else "means"
    return f"{means} that would make rare classes count"


def class_missing(facts: Facts) -> Observations:
    """A class that validation contains and training does not."""
    missing = facts.unseen_classes
    if not missing:
        yield Observation(-5.0, "no class was seen to be missing among the training targets")
        return
    names = facts.class_names(missing)
    epochs = len(facts.records)
    yield Observation(
        5.0,
        f"in {epochs} epochs no training target was of class {names}, which validation contains",
    )
    dead = [index for index in missing if index in facts.dead_classes]
    if dead:
        yield Observation(1.0, f"{facts.class_names(dead)} stayed at 0")


def corrected_twice(facts: Facts) -> Observations:
    """Rare classes that are sampled more often and have weights made for their true frequency."""
    ratios = facts.data.oversampled_classes
    if facts.values.get("data.crop") is not None:
        yield Observation(-5.0, "random crops change how often classes are seen")
        return
    if not ratios:
        yield Observation(-5.0, "no rare class was sampled more often than it occurs")
        return
    index = max(ratios, key=lambda key: ratios[key])
    weight_ratio = facts.last_record.weight_ratio
    sampled = (
        f"{facts.class_name(index)} was {ratios[index]:.3g} times as frequent among the training"
        " targets as in the data"
    )
    if weight_ratio < 4 and not facts.values.get("loss.alpha_tau"):
        yield Observation(-2.0, f"{sampled}, and class weights hardly correct that again")
        return
    yield Observation(4.0, sampled)
    yield Observation(
        min(3.0, math.log10(max(weight_ratio, 1.0))),
        f"class weights differ by a factor of {weight_ratio:.3g} on top of it",
    )
    if facts.diverged:
        yield Observation(-2.0, "the weights diverged, which this alone does not cause")
