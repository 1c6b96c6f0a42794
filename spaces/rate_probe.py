"""The result of a probe of the learning rate, which is stored with its study."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProbeStep:
    """One optimizer step of a probe.

    Attributes:
        lr: learning rate of the step.
        loss: training loss before the step; NaN or infinite where the training broke.
        epochs: epochs of training data that the probe has used so far.
        is_usable: whether loss and gradients allowed the step; the probe ends where they do not.
    """

    lr: float
    loss: float
    epochs: float
    is_usable: bool = True


@dataclass(frozen=True, slots=True)
class RateProbe:
    """What a probe of the learning rate found.

    Attributes:
        base_lr: the learning rate of a multiple of 1.
        stable_lr: the largest learning rate at which the training was stable.
        is_bounded: whether a larger rate was unstable; False where all tried rates were stable.
        epochs: epochs of training data that the probe used.
        curve: learning rate and smoothed training loss, by increasing rate.
    """

    base_lr: float
    stable_lr: float
    is_bounded: bool
    epochs: float
    curve: tuple[tuple[float, float], ...]

    @property
    def charged_epochs(self) -> int:
        """Epochs that count against the study's budget: whole ones."""
        return math.ceil(self.epochs)
