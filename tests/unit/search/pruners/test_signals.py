"""All divergence signals together: the first one fires, and healthy trials fire none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search.pruners.signals import find_divergence
from spaces.records import EpochRecord
from spaces.thresholds import SignalsConfig
from tests.unit.search.pruners.conftest import DECOUPLED_LOSS, FALLING, NAN, RISING, Series, signal


def healthy(epochs: int, seed: int) -> dict[str, list[Any]]:
    """A healthy trial with 5% of noise: losses fall to a floor, and the metric rises to a plateau.

    One class stays at 0, another one rises late.
    """
    rng, time = np.random.default_rng(seed), np.arange(epochs)
    loss = 0.3 + 1.2 * np.exp(-time / 8)
    columns = {"loss": loss, "val_loss": loss * 1.2, "metric": 0.45 * (1 - np.exp(-(time + 1) / 6))}
    noisy: dict[str, list[Any]] = {
        name: list(column * rng.normal(1, 0.05, epochs)) for name, column in columns.items()
    }
    return noisy | {
        "classes": [(0.9, value, max(0.0, value - 0.3), 0.0, None) for value in noisy["metric"]]
    }


COURSES: dict[str, dict[str, Any]] = {
    "nonfinite_loss": {"train_loss": [NAN]},
    "gradient_explosion": {"grad_norm_max": [2000.0]},
    "loss_rising": {"loss": RISING},
    "metric_falling": {"metric": FALLING},
    "loss_metric_decoupling": {
        "loss": list(DECOUPLED_LOSS),
        "metric": [0.5, 0.5, 0.5, 0.4, 0.41, 0.35, 0.36, 0.3, 0.31],
    },
    "overfitting": {
        "loss": [1.2 - 0.05 * epoch for epoch in range(12)],
        "val_loss": [1.0, 0.9, *(1 + 0.1 * epoch for epoch in range(10))],
        "metric": [0.4, 0.5, 0.5, *[0.3] * 9],
    },
    "class_collapse": {"classes": [*[(0.8, 0.5, 0.5)] * 2, *[(0.8, 0.0, 0.0)] * 5]},
    "not_learning": {"classes": [(0.8, 0.0, 0.0)] * 5},
}
"""Name of a signal → the shortest course that fires it."""


class TestFindDivergence:
    @pytest.mark.parametrize("name", COURSES)
    def test_each(self, series: Series, name: str) -> None:
        """Each signal fires with its default thresholds."""
        assert signal(find_divergence(series(**COURSES[name]), SignalsConfig(), "maximize")) == name

    @pytest.mark.parametrize("name", COURSES)
    def test_disabled(self, series: Series, name: str) -> None:
        """A disabled signal does not fire."""
        assert (
            find_divergence(
                series(**COURSES[name]),
                SignalsConfig.model_validate({name: {"enabled": False}}),
                "maximize",
            )
            is None
        )

    @pytest.mark.parametrize("name", list(COURSES)[2:])
    def test_grace(self, series: Series, name: str) -> None:
        """Signals on epochs have a grace, of 3 epochs by default."""
        records = series(**COURSES[name])
        assert (
            find_divergence(records, SignalsConfig(grace_epochs=len(records)), "maximize") is None
        )
        assert (
            signal(
                find_divergence(records, SignalsConfig(grace_epochs=len(records) - 1), "maximize")
            )
            == name
        )
        assert SignalsConfig().grace_epochs == 3

    @pytest.mark.parametrize("name", list(COURSES)[:2])
    def test_no_grace(self, series: Series, name: str) -> None:
        """Signals on steps have no grace."""
        assert (
            signal(
                find_divergence(series(**COURSES[name]), SignalsConfig(grace_epochs=99), "maximize")
            )
            == name
        )

    def test_step_first(self, series: Series) -> None:
        """Where several fire, a signal on steps comes before one on epochs."""
        records = series(
            loss=RISING, metric=FALLING, grad_norm_max=[1.0, 1.0, 1.0, 1.0, 1.0, 5000.0]
        )
        assert signal(find_divergence(records, SignalsConfig(), "maximize")) == "gradient_explosion"

    @pytest.mark.parametrize(
        ("direction", "name"), [("minimize", "metric_falling"), ("maximize", None)]
    )
    def test_direction(self, series: Series, direction: Any, name: str | None) -> None:
        """The direction of the metric counts."""
        assert signal(find_divergence(series(metric=RISING), SignalsConfig(), direction)) == name

    def test_nothing(self) -> None:
        """Without a record nothing fires."""
        assert find_divergence([], SignalsConfig(), "maximize") is None

    def test_one(self, make_record: Callable[..., EpochRecord]) -> None:
        """A single healthy record fires nothing, even without a grace."""
        assert find_divergence([make_record(1)], SignalsConfig(grace_epochs=0), "maximize") is None

    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    def test_nan_validation(self, series: Series, direction: Any) -> None:
        """A metric that is NaN neither fires a signal nor lowers a threshold."""
        falls = [NAN, 0.5, 0.499, 0.498, 0.497, 0.496, 0.4965, 0.494, 0.493]
        rises = [NAN, 0.5, 0.501, 0.502, 0.503, 0.504, 0.5035, 0.506, 0.507]
        metric, loss = (
            (falls if direction == "maximize" else rises),
            [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
        )
        records = series(
            loss=loss,
            metric=metric,
            val_loss=[NAN, 1.0, 1.001, 1.002, 1.003, 1.004, 1.005, 1.006, 1.007],
        )
        config = SignalsConfig.model_validate({"metric_falling": {"drop": 0.1}})
        assert [
            signal(find_divergence(records[:epochs], config, direction)) for epochs in range(1, 10)
        ] == [None] * 9
        assert (
            find_divergence(
                series(metric=[0.5, 0.4, 0.3, 0.2, 0.1, NAN]), SignalsConfig(), direction
            )
            is None
        )

    @pytest.mark.parametrize("seed", range(10))
    def test_healthy(self, series: Series, seed: int) -> None:
        """Forty epochs of a healthy trial with noise fire nothing at any epoch."""
        records = series(**healthy(40, seed))
        assert [
            signal(find_divergence(records[:epochs], SignalsConfig(), "maximize"))
            for epochs in range(41)
        ] == [None] * 41

    @pytest.mark.parametrize(("to", "severity"), [(1.15, 0.15), (1.5, 0.5), (3.0, 1.0)])
    def test_severity(self, series: Series, to: float, severity: float) -> None:
        """The severity of a rising loss is its relative rise, up to 1."""
        found = find_divergence(
            series(loss=[1.0 + (to - 1.0) * step / 5 for step in range(6)]),
            SignalsConfig(),
            "maximize",
        )
        assert found is not None
        assert (found.severity, found.step) == (pytest.approx(severity), None)
