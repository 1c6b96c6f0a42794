"""The Gaussian process over learning curves, and the scores that it is fitted on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.sampling.freeze_thaw.curve_model import (
    CurveData,
    CurveModel,
    _Objective,
    fit_scales,
    prior_scales,
)
from search.sampling.freeze_thaw.curves import (
    Observations,
    TrialCurve,
    accumulate_scores,
    make_observations,
    rank_to_normal,
    scale_epochs,
)
from spaces.config import MetricConfig


def make_data(trials: int = 12, *, with_prior: bool = False) -> CurveData:
    """Trials on a line whose score rises along it, half of them complete."""
    generator = np.random.default_rng(3)
    features = np.sort(generator.random((trials, 1)), axis=0)
    rows, times, scores = [], [], []
    for row in range(trials):
        for time in (0.7, 0.3, 0.0) if row % 2 else (0.5,):
            rows.append(row)
            times.append(time)
            scores.append(2 * features[row, 0] - time + 0.05 * generator.normal())
    observed = Observations(np.array(rows), np.array(times), np.array(scores))
    prior = features[:, 0] if with_prior else None
    return CurveData(features, np.array([0]), 1, observed, prior)


class TestScores:
    def test_ranks(self) -> None:
        """Equal scores share a rank, a larger one has a larger score, the median has 0."""
        found = rank_to_normal(np.array([3.0, 1.0, 3.0, 2.0, 9.0]))
        assert found[0] == found[2]
        assert found[1] < found[3] < found[0] < found[4]
        assert math.isclose(rank_to_normal(np.array([1.0, 2.0, 3.0]))[1], 0.0, abs_tol=1e-12)

    def test_not_finite_is_worst(self) -> None:
        """A diverged trial counts as the worst, and nothing is NaN."""
        found = rank_to_normal(np.array([math.nan, 0.1, math.inf, 0.3]))
        assert np.isfinite(found).all()
        assert found[0] == found[2] == found.min() < found[1]

    @pytest.mark.parametrize(
        ("rule", "direction", "expected"),
        [
            ("best", "maximize", [0.2, 0.5, 0.5]),
            ("best", "minimize", [0.2, 0.2, 0.1]),
            ("last", "maximize", [0.2, 0.5, 0.1]),
            ("mean_last_5", "maximize", [0.2, 0.35, 0.8 / 3]),
        ],
    )
    def test_rules(self, rule: str, direction: str, expected: list[float]) -> None:
        """The score after each epoch is the one that the trial would have if it ended there."""
        metric = MetricConfig.model_validate({"direction": direction, "score": rule})
        found = accumulate_scores({1: 0.2, 2: 0.5, 3: 0.1}, metric)
        assert list(found.values()) == pytest.approx(expected)

    def test_times(self) -> None:
        """The last epoch is at 0 and the first at 1."""
        assert scale_epochs(np.array([1.0, 30.0]), 30).tolist() == [1.0, 0.0]
        assert scale_epochs(np.array([1.0]), 1).tolist() == [0.0]

    def test_observed_epochs(self) -> None:
        """A complete trial is observed at every rung, a paused one at its last epoch alone."""
        curves = [
            TrialCurve(0, {}, {epoch: epoch / 10 for epoch in range(1, 9)}, "complete"),
            TrialCurve(1, {}, {1: 0.1, 2: 0.2, 3: 0.3}, "paused"),
        ]
        found = make_observations(curves, (2, 4, 8), 8, 1.0)
        assert found.trial_N.tolist() == [0, 0, 0, 1]
        assert found.time_N.tolist() == scale_epochs(np.array([2.0, 4, 8, 3]), 8).tolist()

    def test_stopped_by_its_own_patience(self) -> None:
        """The score of a complete trial is final, at whatever epoch its training stopped."""
        curves = [TrialCurve(0, {}, {epoch: epoch / 10 for epoch in range(1, 6)}, "complete")]
        assert make_observations(curves, (2, 4, 8), 8, 1.0).time_N[-1] == 0.0


class TestFit:
    @pytest.mark.parametrize("with_prior", [False, True])
    def test_gradient(self, with_prior: bool) -> None:
        """The gradient of the log posterior equals its differences."""
        data = make_data(with_prior=with_prior)
        medians, deviations = prior_scales(1)
        objective = _Objective(data, medians.to_vector(), deviations)
        at = medians.to_vector() + 0.3
        _, gradient = objective(at)
        for index in range(len(at)):
            step = np.zeros_like(at)
            step[index] = 1e-5
            numeric = (objective(at + step)[0] - objective(at - step)[0]) / 2e-5
            assert gradient[index] == pytest.approx(numeric, rel=1e-4, abs=1e-5)

    def test_learned_length_is_the_start(self) -> None:
        """Where earlier studies suggest length scales, the fit starts from them."""
        data = make_data(2)
        plain, informed = fit_scales(data), fit_scales(data, lengths_D=np.array([2.0]))
        assert informed.lengths_D[0] > plain.lengths_D[0] + 1.0


class TestPrediction:
    def test_order(self) -> None:
        """Configurations further up the line are expected to end better."""
        data = make_data()
        model = CurveModel(data, fit_scales(data))
        found = model.predict_new(np.array([[0.1], [0.5], [0.9]])).mean_P
        assert found[0] < found[1] < found[2]

    def test_certainty(self) -> None:
        """The end of a complete trial is known better than that of a paused one or a new one."""
        data = make_data()
        model = CurveModel(data, fit_scales(data))
        trials = model.predict_trials().deviation_P
        assert trials[1::2].max() < trials[0::2].min()
        assert model.predict_new(np.array([[5.0]])).deviation_P[0] > trials.max()

    def test_prior_leads_where_nothing_was_seen(self) -> None:
        """Far from all trials, what earlier studies teach decides."""
        data = make_data(with_prior=True)
        model = CurveModel(data, fit_scales(data))
        far = np.array([[50.0], [50.0]])
        low, high = model.predict_new(far, np.array([-2.0, 2.0])).mean_P
        assert high - low > 0.5

    def test_inverted_prior_is_overruled(self) -> None:
        """Where the trials contradict what earlier studies teach, the trials win."""
        data = make_data(40, with_prior=True)
        assert data.prior_M is not None
        wrong = CurveData(data.features_MF, data.owner_F, 1, data.observed, -data.prior_M)
        found = CurveModel(wrong, fit_scales(wrong)).predict_new(
            np.array([[0.1], [0.9]]), np.array([-0.1, -0.9])
        )
        assert found.mean_P[0] < found.mean_P[1]
