"""A pruner with a margin for the noise of a trial."""

from __future__ import annotations

import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner
from optuna.trial import FrozenTrial

from search.pruners.noise_margin import LenientPruner
from search.pruners.robust_stats import estimate_noise

QUIET = [0.30, 0.30, 0.30, 0.30, 0.30, 0.30]
NOISY = [0.20, 0.28, 0.18, 0.29, 0.20, 0.30]
"""The same best value, and noise of about 0.09."""


class Recorder(BasePruner):
    """Records the values that it gets."""

    def __init__(self) -> None:
        self.asked: list[dict[int, float]] = []

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Prune every trial."""
        self.asked.append(dict(trial.intermediate_values))
        return True


def study_of(pruner: BasePruner, direction: str = "maximize", *peers: float) -> optuna.Study:
    """A study with complete trials that have these constant values."""
    study = optuna.create_study(direction=direction, pruner=pruner)
    for peer in peers:
        trial = study.ask()
        for step in range(1, 7):
            trial.report(peer, step)
        study.tell(trial, peer)
    return study


def pruned_at(study: optuna.Study, values: list[float]) -> int | None:
    """The step at which a trial with these values would be pruned."""
    trial = study.ask()
    for step, value in enumerate(values, 1):
        trial.report(value, step)
        if trial.should_prune():
            return step
    return None


class TestLenientPruner:
    def test_quiet_and_noisy(self) -> None:
        """Of two trials with the same best value only the quiet one is pruned."""
        study = study_of(LenientPruner(MedianPruner(2, 4), 2.0), "maximize", 0.35, 0.35, 0.35)
        assert pruned_at(study, QUIET) == 4
        assert pruned_at(study, NOISY) is None
        assert pruned_at(study_of(MedianPruner(2, 4), "maximize", 0.35, 0.35, 0.35), NOISY) == 4

    def test_far_below(self) -> None:
        """A noisy trial that is far below its peers is pruned."""
        assert (
            pruned_at(study_of(LenientPruner(MedianPruner(2, 4), 2.0), "maximize", 0.9, 0.9), NOISY)
            == 4
        )

    def test_minimize(self) -> None:
        """Where the metric is minimized the margin is subtracted."""
        study = study_of(LenientPruner(MedianPruner(2, 4), 2.0), "minimize", 0.15, 0.15)
        assert pruned_at(study, QUIET) == 4
        assert pruned_at(study, NOISY) is None

    @pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
    def test_margin(self, direction: str, sign: int) -> None:
        """The wrapped pruner gets values improved by margin × noise; the trial does not change."""
        recorder = Recorder()
        study = study_of(LenientPruner(recorder, 3.0), direction)
        trial = study.ask()
        for step, value in enumerate(NOISY, 1):
            trial.report(value, step)
        assert trial.should_prune()
        gain = 3.0 * estimate_noise(NOISY)
        assert recorder.asked[-1] == pytest.approx(
            {step: value + sign * gain for step, value in enumerate(NOISY, 1)}
        )
        assert study.trials[0].intermediate_values == dict(enumerate(NOISY, 1))

    def test_not_finite(self) -> None:
        """Reports that are not finite do not count for the noise."""
        leader = [0.80, 0.90, float("nan"), 0.90, 0.85, 0.90, 0.88, 0.92]
        assert (
            pruned_at(
                study_of(LenientPruner(MedianPruner(2, 4), 2.0), "maximize", 0.35, 0.35), leader
            )
            is None
        )
        recorder = Recorder()
        trial = study_of(LenientPruner(recorder, 3.0)).ask()
        for step, value in enumerate([*NOISY, float("inf")], 1):
            trial.report(value, step)
        trial.should_prune()
        assert recorder.asked[-1][1] == pytest.approx(NOISY[0] + 3.0 * estimate_noise(NOISY))

    def test_nothing_reported(self) -> None:
        """A trial without a report has no noise."""
        recorder = Recorder()
        assert study_of(LenientPruner(recorder, 3.0)).ask().should_prune()
        assert recorder.asked == [{}]
