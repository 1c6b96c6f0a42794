"""The causes for which a trial can fail, and the signals that point to them.

Each cause is a function from the facts of a trial to the observations for and against it, from its
records first and from its configuration second. `rank_causes` ranks the causes by the sum of these
weights; `benchmarks/faults.py` checks the ranking on planted faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from search.diagnosis import (
    data_causes,
    label_causes,
    loss_causes,
    optimizer_causes,
    progress_causes,
)
from search.diagnosis.facts import Facts
from search.diagnosis.observation import Cause, Observation

CAUSES: dict[str, Cause] = {
    "learning rate too high": optimizer_causes.learning_rate_too_high,
    "exploding gradient": optimizer_causes.exploding_gradient,
    "loss scale changed": loss_causes.loss_scale_changed,
    "extreme class weights": loss_causes.extreme_class_weights,
    "Dice unstable early": loss_causes.dice_unstable,
    "batch too small": optimizer_causes.batch_too_small,
    "imbalance too strong": loss_causes.imbalance_too_strong,
    "alpha wrong for a class": loss_causes.alpha_wrong,
    "Dice too late": loss_causes.dice_too_late,
    "labels broken": label_causes.labels_broken,
    "labels do not match the images": label_causes.labels_do_not_match,
    "class missing in training": label_causes.class_missing,
    "rare classes corrected twice": label_causes.corrected_twice,
    "inputs not finite": data_causes.inputs_not_finite,
    "input without information": data_causes.input_without_information,
    "validation unlike training": data_causes.validation_unlike_training,
    "too little regularization": data_causes.too_little_regularization,
    "learning rate too low": progress_causes.learning_rate_too_low,
    "gradient clipped away": progress_causes.gradient_clipped_away,
    "too few epochs": progress_causes.too_few_epochs,
    "mixed precision overflow": progress_causes.precision_overflow,
    "batch norm with tiny batches": progress_causes.batch_norm_tiny,
    "focusing too strong": loss_causes.focusing_too_strong,
    "weight decay too strong": optimizer_causes.weight_decay_too_strong,
}
"""Name of a cause → its observations. Of equally likely causes the first one is named."""

APPLIES: Mapping[str, Callable[[Facts], bool]] = {
    "loss scale changed": lambda facts: "loss.kind" in facts.values,
    "extreme class weights": lambda facts: facts.uses_class_weights,
    "rare classes corrected twice": lambda facts: facts.uses_class_weights,
    "Dice unstable early": lambda facts: facts.uses_dice,
    "Dice too late": lambda facts: facts.uses_dice,
    "batch too small": lambda facts: "batch_size" in facts.values,
    "alpha wrong for a class": lambda facts: "loss.kind" in facts.values,
    "focusing too strong": lambda facts: "loss.kind" in facts.values,
    "gradient clipped away": lambda facts: "optimizer.grad_clip_norm" in facts.values,
    "weight decay too strong": lambda facts: "optimizer.weight_decay" in facts.values,
}
"""Name of a cause → whether the trial has what it is about, where a custom objective may lack it."""

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
        "learning rate too low",
        "labels do not match the images",
        "input without information",
        "class missing in training",
    ),
    "overfitting": (
        "too little regularization",
        "extreme class weights",
        "validation unlike training",
    ),
    "loss_metric_decoupling": (
        "extreme class weights",
        "labels broken",
        "rare classes corrected twice",
    ),
    "not_learning": (
        "learning rate too low",
        "gradient clipped away",
        "imbalance too strong",
        "alpha wrong for a class",
        "labels do not match the images",
        "input without information",
        "class missing in training",
    ),
}
"""Name of a signal → the causes that it points to more often than to others."""

SUSPICION = Observation(1.0, "the signal that fired is a usual sign of it", measured=False)
