"""The signals that judge single steps: losses that are not finite and exploding gradients."""

from __future__ import annotations

import math

from search.pruners.epoch_windows import Records, make_evidence
from spaces.records import EpochRecord, Evidence
from spaces.thresholds import GradientExplosion, NonfiniteLoss


def nonfinite_loss(records: Records, rule: NonfiniteLoss) -> Evidence | None:
    """The loss or the gradient norm was NaN or infinite at a step.

    Where no steps were recorded the norm is unknown, and the loss alone is judged.
    """
    last = records[-1]
    finite_loss = math.isfinite(last.train_loss)
    finite_norm = math.isfinite(last.grad_norm_max) or not last.steps
    if not rule.enabled or (finite_loss and finite_norm):
        return None
    what = "gradient norm" if finite_loss else "loss"
    return make_evidence(
        "nonfinite_loss",
        last,
        f"the {what} was not finite at {_format_place(last)}",
        {"train_loss": last.train_loss, "grad_norm_max": last.grad_norm_max, "lr": last.lr},
    )


def gradient_explosion(records: Records, rule: GradientExplosion) -> Evidence | None:
    """The gradient norm before clipping exceeded its bound at a step."""
    last = records[-1]
    if not rule.enabled or not last.grad_norm_max > rule.max_norm:
        return None
    numbers = {
        "grad_norm_max": last.grad_norm_max,
        "grad_norm_median": last.grad_norm_median,
        "max_norm": rule.max_norm,
        "lr": last.lr,
    }
    return make_evidence(
        "gradient_explosion",
        last,
        f"the gradient norm was {last.grad_norm_max:.4g} at {_format_place(last)},"
        f" over {rule.max_norm:g}",
        numbers,
    )


def _format_place(record: EpochRecord) -> str:
    """The epoch of a record, with its broken step where it has one."""
    if record.broken_step:
        return f"step {record.broken_step} of epoch {record.epoch}"
    return f"epoch {record.epoch}"
