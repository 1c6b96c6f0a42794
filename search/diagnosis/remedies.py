"""For every cause what to try, in order: concrete changes of the trial's own configuration.

Where the data are at fault no configuration helps; then the remedy is in words, with nothing to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from search.diagnosis.facts import Facts
from search.planning.effects import takes_effect
from spaces.presets import scaled_to
from spaces.records import Remedy

Changes = Mapping[str, Any]
"""Dotted path → new value."""

Options = Iterator[tuple[str, Changes]]
"""In words, and as changes."""


def remedies(cause: str, facts: Facts) -> tuple[Remedy, ...]:
    """What to try, first things first; changes that would change nothing, or would not reach the training, are left out."""
    found = []
    sections = {path.partition(".")[0] for path in facts.values}
    for words, changes in _REMEDIES[cause](facts):
        if not all(path.partition(".")[0] in sections for path in changes):
            continue  # an objective of one's own that has no such thing
        after = {**facts.values, **changes}
        new = {
            path: value
            for path, value in changes.items()
            if facts.values.get(path) != value and takes_effect(path, after)
        }
        if not changes:
            found.append(Remedy(words, {}))
        elif new:
            shown = ", ".join(
                f"{path} {_short(facts.values.get(path))} → {_short(value)}"
                for path, value in new.items()
            )
            found.append(Remedy(f"{words}: {shown}", new))
    return tuple(found)


def _slower(facts: Facts) -> Options:
    # Halving a rate that is thirty times the documented one is no remedy: from there, back to the documented values.
    start = min(1.0, facts.rate)
    for factor in (0.5, 0.3):
        yield (
            f"learning rate × {factor:g}{' of the base rate' if facts.rate > 1 else ''}",
            {"optimizer.lr_multiple": start * factor},
        )
    yield from _clip(facts)
    yield from _warm_up(facts)


def _clip(facts: Facts) -> Options:
    if facts.clip is None or facts.clip > 1:
        yield "clip the gradient norm at 1", {"optimizer.grad_clip_norm": 1.0}


def _warm_up(facts: Facts) -> Options:
    if not facts.values.get("schedule.lr_warmup_epochs"):
        yield (
            "warm the learning rate up",
            {"schedule.lr_warmup_epochs": scaled_to(_epochs(facts))(5)},
        )


def _clip_first(facts: Facts) -> Options:
    yield from _clip(facts)
    yield f"learning rate × {0.5:g}", {"optimizer.lr_multiple": facts.rate * 0.5}
    yield from _warm_up(facts)


def _rescale(facts: Facts) -> Options:
    alpha = facts.values.get("loss.alpha")
    if isinstance(alpha, (int, float)) and facts.focal:
        yield "no scalar alpha, which only rescales the loss", {"loss.alpha": None}
    yield "divide each part of the loss by its running mean", {"loss.normalize": True}
    factor = 0.3 if facts.loss_scale > 1 else 3.0
    yield f"learning rate × {factor:g}", {"optimizer.lr_multiple": facts.rate * factor}


def _milder_weights(facts: Facts) -> Options:
    method, ratio = facts.values.get("weights.method"), facts.last.weight_ratio
    if method == "inverse_freq":
        yield "milder weights", {"weights.method": "sqrt_inv_freq"}
    for bound in (100.0, 10.0):
        if bound < ratio:
            yield f"clip ratio {bound:g}", {"weights.clip_ratio": bound}
    yield (
        "two stages: a light clip first",
        {
            "schedule.light_clip_epochs": scaled_to(_epochs(facts))(20),
            "schedule.light_clip_ratio": 4.0,
        },
    )
    if facts.values.get("loss.alpha_tau"):
        yield "milder alphas", {"loss.alpha_tau": float(facts.values["loss.alpha_tau"]) / 2}


def _steadier_dice(facts: Facts) -> Options:
    scaled = scaled_to(_epochs(facts))
    smooth = facts.values.get("loss.smooth", 1.0)
    if smooth < 1:
        yield "a larger smooth", {"loss.smooth": 5.0}
    if not facts.values.get("schedule.dice_ce_only_epochs"):
        yield (
            "Dice warm-up",
            {"schedule.dice_ce_only_epochs": scaled(5), "schedule.dice_ramp_epochs": scaled(10)},
        )
    yield "smooth in steps, 10, 5, then its own", {"schedule.smooth_steps": True}
    yield "the squared denominator", {"loss.square_denominator": True}
    if facts.dice_weight > 0.4:
        yield "less Dice", {"loss.dice_weight": 0.4, "loss.ce_weight": 0.6}


def _larger_batch(facts: Facts) -> Options:
    yield (
        "gather batches for a step",
        {"optimizer.accumulate": -(-8 // int(facts.values.get("batch_size", 8)))},
    )
    yield "a larger batch", {"batch_size": 8}
    yield "Dice over the whole batch", {"loss.dice_reduction": "global"}


def _weigh_the_rare(facts: Facts) -> Options:
    if facts.values.get("weights.method") == "uniform":
        yield (
            "weigh the rare classes",
            {"weights.method": "sqrt_inv_freq", "weights.clip_ratio": 100.0},
        )
    elif facts.last.weight_ratio < 10:
        yield (
            "a wider clip ratio",
            {"weights.clip_ratio": 25.0 if facts.last.weight_ratio < 5 else 100.0},
        )
    yield (
        "two stages: a light clip first",
        {
            "schedule.light_clip_epochs": scaled_to(_epochs(facts))(20),
            "schedule.light_clip_ratio": 4.0,
        },
    )
    if facts.dice_weight < 0.3:
        yield "more Dice", {"loss.dice_weight": 0.3, "loss.ce_weight": 0.7, "loss.smooth": 5.0}


def _alpha_by_frequency(facts: Facts) -> Options:
    if not facts.focal:
        yield "look at the weight of that class: its pixels get next to no gradient", {}
    yield "alphas from the class frequencies", {"loss.alpha": None, "loss.alpha_tau": 0.5}
    yield "no alpha", {"loss.alpha": None}


def _dice_sooner(facts: Facts) -> Options:
    scaled = scaled_to(_epochs(facts))
    held = [
        int(facts.values.get(f"schedule.dice_{name}_epochs", 0)) for name in ("ce_only", "ramp")
    ]
    if sum(held) > scaled(5) + scaled(10):
        yield (
            "a shorter warm-up",
            {"schedule.dice_ce_only_epochs": scaled(5), "schedule.dice_ramp_epochs": scaled(10)},
        )
    yield "no warm-up", {"schedule.dice_ce_only_epochs": 0, "schedule.dice_ramp_epochs": 0}


def _look_at_the_labels(facts: Facts) -> Options:
    yield (
        f"look at the training masks as they are from epoch {facts.jump[0]} on, and at what reads them",
        {},
    )


def _look_at_the_inputs(facts: Facts) -> Options:
    yield "look for NaN and infinity in the training images, and in what scales them", {}


def _regularise(facts: Facts) -> Options:
    decay, smoothing = (
        float(facts.values.get(path, 0.0))
        for path in ("optimizer.weight_decay", "loss.label_smoothing")
    )
    if smoothing < 0.1:
        yield "label smoothing", {"loss.label_smoothing": 0.1}
    if decay < 0.01:
        yield "weight decay", {"optimizer.weight_decay": max(1e-4, decay * 10)}
    yield "stop early", {"early_stopping_patience": 3}


def _faster(facts: Facts) -> Options:
    for multiple, words in ((0.3, "the base rate × 0.3"), (1.0, "the base rate")):
        if facts.rate < multiple:
            yield words, {"optimizer.lr_multiple": multiple}
    if facts.rate >= 0.3:
        yield "learning rate × 3", {"optimizer.lr_multiple": facts.rate * 3}


def _wider_clip(facts: Facts) -> Options:
    yield "clip the gradient norm at 1", {"optimizer.grad_clip_norm": 1.0}
    yield "do not clip", {"optimizer.grad_clip_norm": None}


def _less_focus(facts: Facts) -> Options:
    yield "the gamma of the paper", {"loss.gamma": 2.0}
    yield "cross entropy", {"loss.gamma": 0.0}


def _less_decay(facts: Facts) -> Options:
    yield "a usual weight decay", {"optimizer.weight_decay": 1e-4}
    yield "none", {"optimizer.weight_decay": 0.0}


_REMEDIES: dict[str, Callable[[Facts], Options]] = {
    "learning rate too high": _slower,
    "exploding gradient": _clip_first,
    "loss scale changed": _rescale,
    "extreme class weights": _milder_weights,
    "Dice unstable early": _steadier_dice,
    "batch too small": _larger_batch,
    "imbalance too strong": _weigh_the_rare,
    "alpha wrong for a class": _alpha_by_frequency,
    "Dice too late": _dice_sooner,
    "labels broken": _look_at_the_labels,
    "inputs not finite": _look_at_the_inputs,
    "too little regularisation": _regularise,
    "learning rate too low": _faster,
    "gradient clipped away": _wider_clip,
    "focusing too strong": _less_focus,
    "weight decay too strong": _less_decay,
}


def _epochs(facts: Facts) -> int:
    return int(facts.values.get("epochs", 30))


def _short(value: Any) -> str:
    return "none" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
