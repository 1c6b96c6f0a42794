"""Whether sampled values reached the training."""

from __future__ import annotations

from typing import Any

import pytest

from search.worker.readback import check_used
from spaces.errors import UnusedHyperparameterError


class TestCheckUsed:
    def test_absent(self) -> None:
        """A value that the training never read back is an error with its name, the used values and a next step."""
        with pytest.raises(
            UnusedHyperparameterError,
            match=r"the sampled loss\.smooth = 5\.0 never reached the training",
        ) as caught:
            check_used(
                {"loss.gamma": 2.0, "loss.smooth": 5.0}, {"loss.gamma": 2.0, "loss.kind": "focal"}
            )
        assert "used:    loss.gamma, loss.kind" in str(caught.value)
        assert "give the dimension a `when`" in str(caught.value)
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize(
        ("sampled", "used"),
        [
            (2.0, 2.1),
            (0.3, 0.3 * (1 + 1e-9)),
            (None, 100.0),
            (100.0, None),
            ("focal", "ce"),
            (True, False),
            (8, 4),
            (1e-5, 0.0),
            (2.0, float("nan")),
            (2.0, "2.0"),
        ],
    )
    def test_other_value(self, sampled: Any, used: Any) -> None:
        """A value that the training used differently is an error with both values."""
        with pytest.raises(
            UnusedHyperparameterError,
            match=f"loss.gamma was sampled as {sampled}, but the training used {used}",
        ):
            check_used({"loss.gamma": sampled}, {"loss.gamma": used})

    @pytest.mark.parametrize(
        ("sampled", "used"),
        [
            (0.3, 0.1 + 0.2),
            (100, 100.0),
            (2.0, 2),
            (None, None),
            ("focal", "focal"),
            (True, True),
            (False, False),
            (8, 8),
            (1e-5, 1e-5 * (1 + 1e-15)),
            (0.0, 0.0),
        ],
    )
    def test_same(self, sampled: Any, used: Any) -> None:
        """Rounding of a multiplication is tolerated, and so is an integer as a float."""
        check_used({"loss.gamma": sampled}, {"loss.gamma": used, "environment.device": "cpu"})

    def test_nothing_sampled(self) -> None:
        """Values that were not sampled are not checked."""
        check_used({}, {"loss.gamma": 2.0})
