"""The base learning rate that the loss of a range test gives."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from objectives.training.stable_rate import MOST_POINTS, find_base_lr
from spaces.rate_probe import ProbeStep

COUNT = 76


def steps(loss_at: Callable[[float], float], count: int = COUNT) -> list[ProbeStep]:
    """Make the steps of a probe from 1e-5 to 10 whose loss follows from the logarithm of the rate."""
    places = [-5 + 6 * index / (count - 1) for index in range(count)]
    return [
        ProbeStep(10**place, loss_at(place), (index + 1) / 24) for index, place in enumerate(places)
    ]


def fall(place: float) -> float:
    """Fall from 2 to 0.5 between rates of 1e-3 and 1e-2."""
    return 0.5 + 1.5 * min(1.0, max(0.0, -2 - place))


def wave(place: float) -> float:
    """Vary by ± 0.1 from step to step, as the loss of different batches does."""
    return 0.1 * math.sin(37 * place)


class TestRate:
    def test_end_of_fall(self) -> None:
        """The base rate follows from the fall of the loss, the largest stable rate from its rise."""
        probe = find_base_lr(steps(lambda place: fall(place) + 9 * max(0.0, place)))
        assert probe is not None
        assert 2e-2 < probe.base_lr < 1e-1
        assert 1.0 < probe.stable_lr < 2.0
        assert probe.is_bounded

    def test_no_rise(self) -> None:
        """A loss that never rises gives the same base rate; all tried rates are stable."""
        probe = find_base_lr(steps(fall))
        assert probe is not None
        assert 2e-2 < probe.base_lr < 1e-1
        assert probe.stable_lr == 10
        assert not probe.is_bounded

    @pytest.mark.parametrize("bad", [math.nan, math.inf, 1e9])
    def test_near_the_edge(self, bad: float) -> None:
        """A loss that breaks right after its fall gives a quarter of the largest stable rate."""
        probe = find_base_lr(steps(lambda place: bad if place > -2 else fall(place)))
        assert probe is not None
        assert probe.base_lr == pytest.approx(0.25 * probe.stable_lr, rel=0.1)
        assert probe.stable_lr == pytest.approx(1e-2, rel=0.3)

    def test_noise(self) -> None:
        """Batches of different difficulty move the base rate by less than a factor of two."""
        plain = find_base_lr(steps(fall))
        noisy = find_base_lr(steps(lambda place: fall(place) + wave(place)))
        assert plain is not None
        assert noisy is not None
        assert 0.5 < noisy.base_lr / plain.base_lr < 2
        assert not noisy.is_bounded

    def test_no_fall(self) -> None:
        """Where no rate changes the loss, a quarter of the largest rate is the base rate."""
        probe = find_base_lr(steps(lambda place: 2.0 + wave(place)))
        assert probe is not None
        assert probe.base_lr == 2.5

    def test_optimizer(self) -> None:
        """The same curve gives AdamW a smaller rate than SGD."""
        sgd, adamw = find_base_lr(steps(fall), "sgd"), find_base_lr(steps(fall), "adamw")
        assert sgd is not None
        assert adamw is not None
        assert 5 < sgd.base_lr / adamw.base_lr < 20
        assert sgd.stable_lr == adamw.stable_lr

    def test_broken_step(self) -> None:
        """A step with a finite loss whose gradients broke is unstable, too."""
        made = steps(fall)[:40]
        made.append(ProbeStep(made[-1].lr * 1.2, 1.0, 2.0, is_usable=False))
        probe = find_base_lr(made)
        assert probe is not None
        assert probe.is_bounded
        assert probe.stable_lr == pytest.approx(made[-2].lr, rel=0.05)

    @pytest.mark.parametrize("stable", [0, 1, 3])
    def test_none(self, stable: int) -> None:
        """A training that breaks within the first steps has no stable rate."""
        broken = ProbeStep(1.0, math.nan, 1.0, is_usable=False)
        assert find_base_lr([*steps(fall)[:stable], broken]) is None


class TestCurve:
    def test_size(self) -> None:
        """A long probe stores a bounded number of points, the last step included."""
        made = steps(fall, 1000)
        probe = find_base_lr(made)
        assert probe is not None
        assert MOST_POINTS / 2 < len(probe.curve) <= MOST_POINTS
        assert probe.curve[-1][0] == pytest.approx(made[-1].lr)
        assert [lr for lr, _ in probe.curve] == sorted(lr for lr, _ in probe.curve)
        assert probe.epochs == round(1000 / 24, 2)
