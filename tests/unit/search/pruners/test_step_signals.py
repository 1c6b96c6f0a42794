"""The signals on steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from search.pruners.signals import lacks_numbers
from search.pruners.step_signals import gradient_explosion, nonfinite_loss
from spaces.records import EpochRecord
from spaces.thresholds import GradientExplosion, NonfiniteLoss
from tests.unit.search.pruners.conftest import INF, NAN, signal


class TestNonfiniteLoss:
    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"train_loss": NAN}, "loss"),
            ({"train_loss": INF}, "loss"),
            ({"grad_norm_max": NAN}, "gradient norm"),
            ({"grad_norm_max": INF}, "gradient norm"),
        ],
    )
    def test_fires(
        self, make_record: Callable[..., EpochRecord], changes: dict[str, float], what: str
    ) -> None:
        """A loss or a gradient norm that is not finite fires, with its step."""
        found = nonfinite_loss(
            [make_record(1), make_record(2, broken_step=7, **changes)], NonfiniteLoss()
        )
        assert found is not None
        assert (found.signal, found.epoch, found.step) == ("nonfinite_loss", 2, 7)
        assert found.statement == f"the {what} was not finite at step 7 of epoch 2"
        assert found.numbers["lr"] == 1e-5

    def test_unwatched(self, make_record: Callable[..., EpochRecord]) -> None:
        """Where no step was recorded the norm is unknown, and the loss alone is judged."""
        assert nonfinite_loss([make_record(1, steps=0, grad_norm_max=NAN)], NonfiniteLoss()) is None
        assert (
            signal(
                nonfinite_loss(
                    [make_record(1, steps=0, grad_norm_max=NAN, train_loss=NAN)], NonfiniteLoss()
                )
            )
            == "nonfinite_loss"
        )
        assert lacks_numbers("gradient_explosion", [make_record(1, steps=0, grad_norm_max=NAN)])
        assert not lacks_numbers("gradient_explosion", [make_record(1, steps=0), make_record(2)])

    def test_past(self, make_record: Callable[..., EpochRecord]) -> None:
        """Only the latest epoch is judged."""
        assert (
            nonfinite_loss([make_record(1, train_loss=NAN), make_record(2)], NonfiniteLoss())
            is None
        )


class TestGradientExplosion:
    @pytest.mark.parametrize(
        ("norm", "name"),
        [
            (1000.0, None),
            (1000.1, "gradient_explosion"),
            (9.0, None),
            (INF, "gradient_explosion"),
            (NAN, None),
        ],
    )
    def test_bound(
        self, make_record: Callable[..., EpochRecord], norm: float, name: str | None
    ) -> None:
        """A norm over 1000 fires; 1000 does not, and NaN belongs to another signal."""
        assert (
            signal(gradient_explosion([make_record(1, grad_norm_max=norm)], GradientExplosion()))
            == name
        )

    def test_evidence(self, make_record: Callable[..., EpochRecord]) -> None:
        """The evidence has the norm, its bound, and the step where there is one."""
        rule = GradientExplosion(max_norm=10)
        found = gradient_explosion([make_record(4, grad_norm_max=25.0, broken_step=3)], rule)
        assert found is not None
        assert (
            found.epoch,
            found.step,
            found.numbers["grad_norm_max"],
            found.numbers["max_norm"],
        ) == (4, 3, 25, 10)
        assert found.statement == "the gradient norm was 25 at step 3 of epoch 4, over 10"
        unbroken = gradient_explosion([make_record(4, grad_norm_max=25.0)], rule)
        assert unbroken is not None
        assert unbroken.statement == "the gradient norm was 25 at epoch 4, over 10"
