"""The epochs at which trials pause, and the decisions about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from spaces.config import Direction


def make_rungs(epochs: int, first_share: float = 0.1) -> tuple[int, ...]:
    """Return the epochs at which a trial may pause, each twice the one before; the last is the end.

    Args:
        epochs: of a complete trial.
        first_share: of the first rung, which is at least epoch 2.
    """
    rungs = []
    rung = max(2, round(first_share * epochs))
    while rung <= 0.75 * epochs:
        rungs.append(rung)
        rung *= 2
    return (*rungs, epochs)


@dataclass(frozen=True)
class FreezeThawConfig:
    """Settings of the search.

    Attributes:
        direction: of the metric.
        rungs: epochs at which a trial may pause, ascending; the last one is the end of a trial.
        start_trials: number of trials before the model proposes any.
        seed: of the study.
    """

    direction: Direction
    rungs: tuple[int, ...]
    start_trials: int
    seed: int

    @property
    def epochs(self) -> int:
        """Epochs of a complete trial."""
        return self.rungs[-1]

    def next_rung(self, epoch: int) -> int:
        """Return the first rung after an epoch."""
        return next((rung for rung in self.rungs if rung > epoch), self.epochs)


@dataclass(frozen=True, slots=True)
class Step:
    """What is trained next.

    Attributes:
        number: the paused trial to resume; None for a new one.
        until_epoch: the epoch after which the trial pauses or ends.
        reason: why, for people.
    """

    number: int | None
    until_epoch: int
    reason: str


class Continuation(NamedTuple):
    """Whether a trial that has reached a rung continues.

    Attributes:
        until_epoch: the next rung; None: it pauses.
        reason: why it pauses, for people.
    """

    until_epoch: int | None
    reason: str = ""
