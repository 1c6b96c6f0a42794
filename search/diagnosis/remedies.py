"""The remedies of every cause, in order: changes of the trial's own configuration.

Where the data are the cause no configuration helps; the remedy is then a title without a patch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from search.diagnosis.facts import Facts
from search.diagnosis.observation import PRESET_RATE
from search.planning.effects import takes_effect
from spaces.config_tree import ConfigTree
from spaces.presets import scaled_to
from spaces.records import Remedy

Remedies = Iterator[Remedy]

MORE_EPOCHS = "more epochs per trial: "
"""Start of a title that a number follows; `read_epochs` reads it back, also from older stores."""

RATE_FACTORS = (3, 10, 30)
"""Factors by which a low rate is raised: few, so that what each did is counted; none is larger, as
the usual rate need not suit the data."""


def harmless_remedies(cause: str, facts: Facts) -> tuple[Remedy, ...]:
    """The remedies that can do no harm where no cause is clear: a look, or more epochs."""
    found = [remedy for remedy in find_remedies(cause, facts) if not remedy.patch]
    if facts.best_is_last and not facts.ended_early:
        found += [remedy for remedy in _more_epochs(facts) if remedy not in found]
    return tuple(found)


def find_remedies(cause: str, facts: Facts) -> tuple[Remedy, ...]:
    """The remedies of a cause that change the configuration and take effect, in order."""
    found = []
    for remedy in _REMEDIES[cause](facts):
        patch = _effective_changes(remedy.patch, facts)
        if patch or not remedy.patch:
            found.append(replace(remedy, patch=patch))
    return tuple(found)


def _effective_changes(patch: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """The changes that are new and have an effect on the training.

    None where the configuration lacks one of the settings, as that of a custom objective may.
    """
    if any(path not in facts.values for path in patch):
        return {}
    after = {**facts.values, **patch}
    changed = {path: value for path, value in patch.items() if facts.values.get(path) != value}
    return {path: value for path, value in changed.items() if takes_effect(path, after)}


def describe_remedy(remedy: Remedy, config: Mapping[str, Any]) -> str:
    """Describe a remedy in one line: `title: path old → new, …`.

    Args:
        remedy: of a diagnosis.
        config: the configuration that it changes, nested.
    """
    values = ConfigTree(config)
    changes = [
        f"{path} {_show_value(values.get(path))} → {_show_value(new)}"
        for path, new in remedy.patch.items()
    ]
    return f"{remedy.title}: {', '.join(changes)}" if changes else remedy.title


def _show_value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _lower_rate(facts: Facts) -> Remedies:
    # Halving 30 times the base rate would change little, so a high rate goes back to the base rate.
    start = min(1.0, facts.lr_multiple)
    for factor in (0.5, 0.3):
        multiple = {"optimizer.lr_multiple": start * factor}
        above = facts.lr_multiple > 1
        title = f"{factor:g} × the base rate" if above else f"learning rate × {factor:g}"
        yield Remedy(title, multiple)
    yield from _clip_gradients(facts)
    yield from _warm_up_rate(facts)


def _clip_gradients(facts: Facts) -> Remedies:
    if facts.grad_clip_norm is None or facts.grad_clip_norm > 1:
        yield Remedy("clip the gradient norm at 1", {"optimizer.grad_clip_norm": 1.0})


def _warm_up_rate(facts: Facts) -> Remedies:
    if not facts.values.get("schedule.lr_warmup_epochs"):
        epochs = scaled_to(_trial_epochs(facts))(5)
        yield Remedy("warm up the learning rate", {"schedule.lr_warmup_epochs": epochs})


def _clip_then_lower_rate(facts: Facts) -> Remedies:
    yield from _clip_gradients(facts)
    yield _scale_rate(facts, 0.5)
    yield from _warm_up_rate(facts)


def _scale_rate(facts: Facts, factor: float) -> Remedy:
    multiple = facts.lr_multiple * factor
    return Remedy(f"learning rate × {factor:g}", {"optimizer.lr_multiple": multiple})


def _rescale_loss(facts: Facts) -> Remedies:
    alpha = facts.values.get("loss.alpha")
    if isinstance(alpha, (int, float)) and facts.uses_focal_loss:
        yield Remedy("no scalar alpha, which only rescales the loss", {"loss.alpha": None})
    yield Remedy("divide each part of the loss by its running mean", {"loss.normalize": True})
    yield _scale_rate(facts, 0.3 if facts.loss_scale > 1 else 3.0)


def _milder_weights(facts: Facts) -> Remedies:
    if facts.values.get("weights.method") == "inverse_freq":
        yield Remedy("milder class weights", {"weights.method": "sqrt_inv_freq"})
    for bound in (100.0, 10.0):
        if bound < facts.last_record.weight_ratio:
            yield Remedy(f"clip ratio {bound:g}", {"weights.clip_ratio": bound})
    yield _two_stages(facts)
    tau = facts.values.get("loss.alpha_tau")
    if tau:
        yield Remedy("milder alphas", {"loss.alpha_tau": float(tau) / 2})


def _two_stages(facts: Facts) -> Remedy:
    return Remedy(
        "two stages: a low clip ratio first",
        {
            "schedule.light_clip_epochs": scaled_to(_trial_epochs(facts))(20),
            "schedule.light_clip_ratio": 4.0,
        },
    )


def _steadier_dice(facts: Facts) -> Remedies:
    if facts.values.get("loss.smooth", 1.0) < 1:
        yield Remedy("a larger smooth", {"loss.smooth": 5.0})
    if not facts.values.get("schedule.dice_ce_only_epochs"):
        yield Remedy("a warm-up of Dice", _dice_warm_up(facts))
    yield Remedy(
        "smooth in steps: 10, 5, then the configured value", {"schedule.smooth_steps": True}
    )
    yield Remedy("a squared denominator", {"loss.square_denominator": True})
    if facts.dice_weight > 0.4:
        yield Remedy("less Dice", {"loss.dice_weight": 0.4, "loss.ce_weight": 0.6})


def _dice_warm_up(facts: Facts) -> dict[str, int]:
    """The documented warm-up of Dice, scaled to the length of the trial."""
    scaled = scaled_to(_trial_epochs(facts))
    return {"schedule.dice_ce_only_epochs": scaled(5), "schedule.dice_ramp_epochs": scaled(10)}


def _larger_batch(facts: Facts) -> Remedies:
    batches = -(-8 // int(facts.number("batch_size", 8)))
    yield Remedy("accumulate batches for a step", {"optimizer.accumulate": batches})
    yield Remedy("a larger batch", {"batch_size": 8})
    yield Remedy("Dice over the whole batch", {"loss.dice_reduction": "global"})


def _weight_rare_classes(facts: Facts) -> Remedies:
    # The configured bound: a light first stage may still have lowered the ratio.
    ratio = facts.number("weights.clip_ratio", facts.last_record.weight_ratio)
    if facts.values.get("weights.method") == "uniform":
        yield Remedy(
            "weight the rare classes",
            {"weights.method": "sqrt_inv_freq", "weights.clip_ratio": 100.0},
        )
    elif facts.values.get("weights.clip_ratio") is not None and ratio < 100:
        yield Remedy("a larger clip ratio", {"weights.clip_ratio": 25.0 if ratio < 25 else 100.0})
    yield _two_stages(facts)
    if facts.dice_weight < 0.3:
        more = {"loss.dice_weight": 0.3, "loss.ce_weight": 0.7, "loss.smooth": 5.0}
        yield Remedy("more Dice", more)


def _alpha_by_frequency(facts: Facts) -> Remedies:
    if not facts.uses_focal_loss:
        yield Remedy("check the weight of that class: its pixels get nearly no gradient", {})
    yield Remedy("alphas from the class frequencies", {"loss.alpha": None, "loss.alpha_tau": 0.5})
    yield Remedy("no alpha", {"loss.alpha": None})


def _earlier_dice(facts: Facts) -> Remedies:
    shorter = _dice_warm_up(facts)
    if sum(int(facts.number(path, 0)) for path in shorter) > sum(shorter.values()):
        yield Remedy("a shorter warm-up of Dice", shorter)
    yield Remedy("no warm-up of Dice", dict.fromkeys(shorter, 0))


def _check_labels(facts: Facts) -> Remedies:
    epoch = facts.loss_jump.epoch
    yield Remedy(
        f"check the training masks from epoch {epoch} on, and the code that reads them", {}
    )


def _check_inputs(facts: Facts) -> Remedies:
    yield Remedy(
        "check the training images, and the code that scales them, for NaN and infinity", {}
    )


def _look_at_images(facts: Facts) -> Remedies:
    yield Remedy("look at the training images: no hyperparameter helps", {})


def _look_at_masks(facts: Facts) -> Remedies:
    yield Remedy(
        "look at images with their masks: names, order, shift and crop have to"
        " match; no hyperparameter helps",
        {},
    )


def _look_at_classes(facts: Facts) -> Remedies:
    names = facts.class_names(facts.unseen_classes) or "that class"
    yield Remedy(f"look for {names} in the training masks: the class map, and the split", {})


def _compare_splits(facts: Facts) -> Remedies:
    yield Remedy(
        "compare training and validation images: brightness, channels and scaling have to agree",
        {},
    )


def _correct_once(facts: Facts) -> Remedies:
    yield Remedy(
        "no class weights, as rare classes are sampled more often",
        {"weights.method": "uniform", "weights.clip_ratio": None},
    )
    yield from _milder_weights(facts)


def _more_epochs(facts: Facts) -> Remedies:
    epochs = facts.planned_epochs
    yield Remedy(f"{MORE_EPOCHS}{2 * epochs} instead of {epochs}", {})


def read_epochs(remedy: Remedy) -> int | None:
    """The epochs per trial that a remedy asks for; None for any other remedy.

    Only another study can have them, so they are no change of a configuration.
    """
    if not remedy.title.startswith(MORE_EPOCHS):
        return None
    number = remedy.title.removeprefix(MORE_EPOCHS).partition(" ")[0]
    return int(number) if number.isdecimal() else None


def _larger_range(facts: Facts) -> Remedies:
    if facts.values.get("precision") != "float32":
        yield Remedy(
            "float32, which does not overflow (a GPU with bfloat16 does not, either)",
            {"precision": "float32"},
        )
    yield _scale_rate(facts, 0.3)


def _larger_norm_batch(facts: Facts) -> Remedies:
    yield Remedy("a larger batch", {"batch_size": 8, "optimizer.accumulate": 1})


def _more_regularization(facts: Facts) -> Remedies:
    decay = facts.number("optimizer.weight_decay", 0.0)
    if facts.number("loss.label_smoothing", 0.0) < 0.1:
        yield Remedy("label smoothing", {"loss.label_smoothing": 0.1})
    if decay < 0.01:
        yield Remedy("weight decay", {"optimizer.weight_decay": max(1e-4, decay * 10)})
    yield Remedy("stop early", {"early_stopping_patience": 3})


def _raise_rate(facts: Facts) -> Remedies:
    first = _find_first_factor(facts.lr_multiple)
    later = [factor for factor in RATE_FACTORS if factor > first]
    for factor in (first, *later[:1]):
        yield _scale_rate(facts, factor)
    if facts.lr_multiple * RATE_FACTORS[-1] < 0.9 * PRESET_RATE:
        title = f"{PRESET_RATE:g} × the base rate"
        yield Remedy(title, {"optimizer.lr_multiple": PRESET_RATE})
    yield from _clip_less(facts)
    yield from _more_epochs(facts)


def _find_first_factor(multiple: float) -> int:
    """The factor that brings a low rate nearest to the usual one, by its order of magnitude."""
    return min(RATE_FACTORS, key=lambda factor: abs(math.log(PRESET_RATE / multiple / factor)))


def _clip_less(facts: Facts) -> Remedies:
    clip = facts.grad_clip_norm
    if clip is None or not clip < max(1.0, facts.median_norm):
        return
    norm = 1.0 if clip < 1 else 10 * clip
    yield Remedy(f"clip the gradient norm at {norm:g}", {"optimizer.grad_clip_norm": norm})


def _unclip_gradients(facts: Facts) -> Remedies:
    yield from _clip_less(facts)
    yield Remedy("do not clip", {"optimizer.grad_clip_norm": None})
    yield from _more_epochs(facts)


def _less_focus(facts: Facts) -> Remedies:
    yield Remedy("gamma 2, as in the focal loss paper", {"loss.gamma": 2.0})
    yield Remedy("plain cross entropy", {"loss.gamma": 0.0})


def _less_decay(facts: Facts) -> Remedies:
    yield Remedy("a usual weight decay", {"optimizer.weight_decay": 1e-4})
    yield Remedy("no weight decay", {"optimizer.weight_decay": 0.0})


_REMEDIES: dict[str, Callable[[Facts], Remedies]] = {
    "learning rate too high": _lower_rate,
    "exploding gradient": _clip_then_lower_rate,
    "loss scale changed": _rescale_loss,
    "extreme class weights": _milder_weights,
    "Dice unstable early": _steadier_dice,
    "batch too small": _larger_batch,
    "imbalance too strong": _weight_rare_classes,
    "alpha wrong for a class": _alpha_by_frequency,
    "Dice too late": _earlier_dice,
    "labels broken": _check_labels,
    "labels do not match the images": _look_at_masks,
    "class missing in training": _look_at_classes,
    "rare classes corrected twice": _correct_once,
    "input without information": _look_at_images,
    "validation unlike training": _compare_splits,
    "inputs not finite": _check_inputs,
    "too little regularization": _more_regularization,
    "learning rate too low": _raise_rate,
    "gradient clipped away": _unclip_gradients,
    "too few epochs": _more_epochs,
    "mixed precision overflow": _larger_range,
    "batch norm with tiny batches": _larger_norm_batch,
    "focusing too strong": _less_focus,
    "weight decay too strong": _less_decay,
}


def _trial_epochs(facts: Facts) -> int:
    return int(facts.number("epochs", 30))
