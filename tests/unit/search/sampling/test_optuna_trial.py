"""The end of a trial as Optuna's tables have it."""

from __future__ import annotations

import pytest

from search.sampling.optuna_trial import optuna_end
from spaces.records import Diagnosis, Evidence, Remedy
from storage.rows import FinalState, Outcome


def make_outcome(state: FinalState, confidence: float) -> Outcome:
    """A trial with evidence and a diagnosis of this confidence."""
    evidence = Evidence("loss_rising", 3, None, "it rose", {}, severity=1.5)
    remedy = Remedy("slower", {"optimizer.lr_multiple": 0.5})
    diagnosis = Diagnosis("learning rate too high", (), (remedy,), confidence)
    return Outcome(state, 0.1, "loss_rising: it rose", "loss_rising", evidence, diagnosis)


class TestOptunaEnd:
    @pytest.mark.parametrize(
        ("confidence", "cause"), [(0.4, "learning rate too high"), (0.39, "no clear cause")]
    )
    def test_cause(self, confidence: float, cause: str) -> None:
        """The dashboard has the cause where it is clear."""
        end = optuna_end(make_outcome("diverged", confidence))
        assert end.user_attrs["cause"] == cause
        assert end.constraints == {"diverged": 1.5}

    @pytest.mark.parametrize("state", ["pruned", "complete"])
    def test_feasible(self, state: FinalState) -> None:
        """Only a diverged trial is infeasible: evidence in another one is no constraint."""
        end = optuna_end(make_outcome(state, 0.9))
        assert end.constraints == {}
        assert end.user_attrs["cause"] == "learning rate too high"
