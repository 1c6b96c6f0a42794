"""The divergence signals, each a pure function of a trial's epoch records up to the latest one.

A signal returns the evidence when it fires, else None. Where a rule says "rises" or "falls", it
separates a trend from noise by a robust slope, by the share of pairs that agree with it, and by a
margin in units of the trial's own noise. Losses are recombined with the latest CE/Dice weights and
compared only among epochs with the same class weights and the same smooth, so that a schedule never
triggers a signal. Rules look at a window, not at the whole past. A rule skips records that lack the
numbers it needs: gaps in the records do not count as time. `spaces.thresholds` documents every
threshold, and docs/backtest.md shows what the rules do to recorded trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from search.pruners.class_collapse import class_collapse
from search.pruners.epoch_windows import Records
from search.pruners.not_learning import not_learning
from search.pruners.step_signals import gradient_explosion, nonfinite_loss
from search.pruners.trend_signals import (
    loss_metric_decoupling,
    loss_rising,
    metric_falling,
    overfitting,
)
from spaces.config import Direction
from spaces.records import EpochRecord, Evidence
from spaces.thresholds import SignalsConfig


@dataclass(frozen=True, slots=True)
class Need:
    """Numbers that a signal needs and a record may lack.

    Attributes:
        numbers: what they are, as text.
        are_in: whether a record has them.
    """

    numbers: str
    are_in: Callable[[EpochRecord], bool]


CLASS_METRICS = Need(
    "class metrics", lambda record: any(value is not None for value in record.class_metric)
)

NEEDS: Mapping[str, Need] = {
    "gradient_explosion": Need("gradient norms", lambda record: bool(record.steps)),
    "class_collapse": CLASS_METRICS,
    "not_learning": CLASS_METRICS,
    "overfitting": Need("validation losses", lambda record: math.isfinite(record.val_loss)),
}
"""Name of a signal → what it needs beyond epoch, loss and metric, which every record has."""


def find_divergence(
    records: Records, config: SignalsConfig, direction: Direction
) -> Evidence | None:
    """Find the first signal that fires; those that judge steps come before those on epochs.

    Args:
        records: of one trial, in order of epochs; may be empty.
        config: which signals are enabled, and their thresholds.
        direction: of the metric.
    """
    if not records:
        return None
    found = nonfinite_loss(records, config.nonfinite_loss) or gradient_explosion(
        records, config.gradient_explosion
    )
    if found is not None or records[-1].epoch <= config.grace_epochs:
        return found
    sign = 1.0 if direction == "maximize" else -1.0
    rules: tuple[Callable[[], Evidence | None], ...] = (
        lambda: loss_rising(records, config.loss_rising),
        lambda: metric_falling(records, config.metric_falling, sign),
        lambda: loss_metric_decoupling(records, config.loss_metric_decoupling, sign),
        lambda: overfitting(records, config.overfitting, sign),
        lambda: class_collapse(records, config.class_collapse),
        lambda: not_learning(records, config.not_learning, config.sparing, sign),
    )
    return next((evidence for rule in rules if (evidence := rule()) is not None), None)


def lacks_numbers(signal: str, records: Records) -> bool:
    """Whether no record has what the signal needs, so that its silence means nothing."""
    need = NEEDS.get(signal)
    return need is not None and not any(map(need.are_in, records))
