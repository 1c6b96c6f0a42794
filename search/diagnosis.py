"""From a signal to its likely cause, read from the trial's own configuration and telemetry, and to what to try."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spaces.paths import flatten
from spaces.records import Diagnosis, EpochRecord, Evidence, Remedy, best_record

Values = Mapping[str, Any]
"""The configuration by dotted path."""

LARGE_RATIO = 10.0
"""Class weights that differ by more are worth a suspicion."""

HIGH_MULTIPLE = 2.0
"""Learning rates above so many times the base rate are worth one, too."""


def diagnose(evidence: Evidence, records: Sequence[EpochRecord], config: Mapping[str, Any]) -> Diagnosis:
    """The likely cause of a kill, what speaks for it, and the remedies in the order in which to try them."""
    values = dict(flatten(config))
    return _BY_SIGNAL[evidence.signal](records, values)


def _exploding(records: Sequence[EpochRecord], values: Values) -> Diagnosis:
    multiple, clip = values.get("optimizer.lr_multiple", 1.0), values.get("optimizer.grad_clip_norm")
    because = [
        f"the learning rate was {records[-1].lr:.4g}, {multiple:.3g} times the base rate",
        "gradients were not clipped" if clip is None else f"gradients were clipped at {clip:g}",
        f"largest gradient norm by epoch: {', '.join(f'{record.grad_norm_max:.3g}' for record in records[-5:])} (healthy: 0.1 to 10)",
    ]
    remedies = [_patch(f"learning rate × {factor}", {"optimizer.lr_multiple": (multiple, multiple * factor)}) for factor in (0.5, 0.3)]
    unclipped = clip is None and multiple <= 1
    if clip is None or clip > 1:
        remedies.insert(0 if unclipped else len(remedies), _patch("clip the gradient norm at 1", {"optimizer.grad_clip_norm": (clip, 1.0)}))
    if not values.get("schedule.lr_warmup_epochs"):
        remedies.append(_patch("warm the learning rate up", {"schedule.lr_warmup_epochs": (0, 5)}))
    cause = "no gradient clipping" if unclipped else "learning rate too high"
    return Diagnosis(cause, tuple(because), tuple(remedies))


def _unbalanced(records: Sequence[EpochRecord], values: Values) -> Diagnosis:
    ratio = records[-1].weight_ratio
    because = [f"class weights differ by a factor of {ratio:.4g}", _gains(records, values)]
    if ratio <= LARGE_RATIO:
        because.append("the class weights are mild, which speaks against them as the cause")
        return Diagnosis("learning rate too high", tuple(because), _exploding(records, values).remedies)
    remedies = []
    method, clip = values.get("weights.method"), values.get("weights.clip_ratio")
    if method == "inverse_freq":
        remedies.append(_patch("milder weights", {"weights.method": (method, "sqrt_inv_freq")}))
    remedies += [_patch(f"clip ratio {bound:g}", {"weights.clip_ratio": (clip, bound)}) for bound in (100.0, 10.0) if bound < ratio]
    remedies.append(_patch("two stages: a light clip first", {"schedule.stages": ([], [{"before_epoch": 21, "clip_ratio": 4.0}])}))
    return Diagnosis("extreme class weights", tuple(because), tuple(remedies))


def _collapsed(records: Sequence[EpochRecord], values: Values) -> Diagnosis:
    alive = [value for value in records[-1].class_metric if value]
    if len(alive) <= 1 and values.get("optimizer.lr_multiple", 1.0) > HIGH_MULTIPLE:
        # A rate that throws the weights away in the first epoch leaves a network that predicts one class for ever.
        return _exploding(records, values)
    method, dice = values.get("weights.method"), values.get("loss.dice_weight", 0.0)
    because = [f"weight method {method}, weights differ by a factor of {records[-1].weight_ratio:.4g}", f"Dice share {dice:.2g}", _gains(records, values)]
    remedies = []
    if method == "uniform":
        remedies.append(_patch("weigh the rare classes", {"weights.method": (method, "sqrt_inv_freq"), "weights.clip_ratio": (values.get("weights.clip_ratio"), 100.0)}))
    if dice < 0.3:
        remedies.append(_patch("more Dice", {"loss.dice_weight": (dice, 0.3), "loss.smooth": (values.get("loss.smooth"), 5.0)}))
    remedies.append(_patch("learning rate × 0.5", {"optimizer.lr_multiple": (values["optimizer.lr_multiple"], values["optimizer.lr_multiple"] * 0.5)}))
    return Diagnosis("rare classes ignored", tuple(because), tuple(remedies))


def _overfitted(records: Sequence[EpochRecord], values: Values) -> Diagnosis:
    because = [f"training loss {records[-1].train_loss:.4g}, validation loss {records[-1].val_loss:.4g}", _gains(records, values)]
    smoothing, decay = values.get("loss.label_smoothing", 0.0), values.get("optimizer.weight_decay", 0.0)
    remedies = (
        _patch("label smoothing", {"loss.label_smoothing": (smoothing, 0.1)}),
        _patch("weight decay", {"optimizer.weight_decay": (decay, max(1e-4, decay * 10))}),
        _patch("stop early", {"early_stopping_patience": (values.get("early_stopping_patience"), 3)}),
    )
    return Diagnosis("too little regularisation", tuple(because), remedies)


_BY_SIGNAL: dict[str, Callable[[Sequence[EpochRecord], Values], Diagnosis]] = {
    "nonfinite_loss": _exploding,
    "gradient_explosion": _exploding,
    "loss_rising": _exploding,
    "metric_falling": _unbalanced,
    "loss_metric_divorce": _unbalanced,
    "class_collapse": _collapsed,
    "overfitting": _overfitted,
}


def _gains(records: Sequence[EpochRecord], values: Values) -> str:
    """Which classes gained and which lost, from the best epoch to the last."""
    best = best_record(records, values.get("metric.direction", "maximize"))
    pairs = list(enumerate(zip(best.class_metric, records[-1].class_metric, strict=True)))
    moved = [(index, after - before) for index, (before, after) in pairs if before is not None and after is not None]
    gained = [f"class {index} {change:+.3f}" for index, change in sorted(moved, key=lambda item: -item[1])[:2] if change > 0]
    lost = [f"class {index} {change:+.3f}" for index, change in sorted(moved, key=lambda item: item[1])[:2] if change < 0]
    return f"since epoch {best.epoch}: gained {', '.join(gained) or 'none'}; lost {', '.join(lost) or 'none'}"


def _patch(text: str, changes: Mapping[str, tuple[Any, Any]]) -> Remedy:
    shown = ", ".join(f"{path} {_short(old)} → {_short(new)}" for path, (old, new) in changes.items())
    return Remedy(f"{text}: {shown}", {path: new for path, (_, new) in changes.items()})


def _short(value: Any) -> str:
    return "none" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
