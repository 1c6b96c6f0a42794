"""A Gaussian process over the learning curves of all trials of a study.

The score of trial i with configuration x at the scaled time t (0 at the last epoch, 1 at the first)

    z(x, t) = a + 2 b t + c t² + β m(x) + f(x) + g(x, t) + u_i + v_i(t) + noise

    a, b, c ~ N(0, 1)        common to all trials
    m                        what earlier studies teach, if anything; β ~ N(½, ¼)
    f ~ GP(s_f² k)           the final score of a configuration
    g ~ GP(s_g² k · min)     how similar configurations approach it: a Brownian motion in t
    u_i ~ N(0, s_u²)         what is this trial's alone, its seed included
    v_i ~ Brownian(s_v²)     how this trial alone approaches it

with a Matérn-5/2 kernel k that has a length scale per dimension.
References: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapters 2, 4
and 5; Swersky, Snoek and Adams (2014) for curves with a prior over their end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from search.sampling.freeze_thaw.curves import Floats, Observations

JITTER = 1e-4

NUMERIC_ERRORS = (np.linalg.LinAlgError, FloatingPointError, ValueError)
"""What the model can raise on curves that it was not made for; no trial should fail for that."""

PRIOR_WEIGHT = 0.5
PRIOR_WEIGHT_SD = 0.5
"""Mean and standard deviation of β, the weight of what earlier studies teach."""

MAX_STEPS = 8
"""Iterations of L-BFGS per fit; each fit starts from the last one."""

FITTED_TRIALS = 250
"""Hyperparameters are fitted on the trials that were seen longest, at most so many."""


@dataclass(frozen=True)
class Scales:
    """Hyperparameters of the model, as logarithms.

    Attributes:
        lengths_D: length scale of each dimension.
        final: s_f.
        approach: s_g.
        own_final: s_u.
        own_approach: s_v.
    """

    lengths_D: Floats
    final: float
    approach: float
    own_final: float
    own_approach: float

    def to_vector(self) -> Floats:
        """All of them in one vector, the length scales first."""
        rest = [self.final, self.approach, self.own_final, self.own_approach]
        return np.concatenate([self.lengths_D, rest])

    @classmethod
    def from_vector(cls, vector: Floats) -> Scales:
        """The reverse of `to_vector`."""
        final, approach, own_final, own_approach = (float(value) for value in vector[-4:])
        return cls(vector[:-4], final, approach, own_final, own_approach)


def prior_scales(dimensions: int, lengths_D: Floats | None = None) -> tuple[Scales, Floats]:
    """Return medians and standard deviations of the log-normal priors of the hyperparameters.

    Args:
        dimensions: number of dimensions.
        lengths_D: logarithms of the medians of the length scales, where they are known.
    """
    lengths = lengths_D
    if lengths is None:
        lengths = np.full(dimensions, math.log(0.35 * math.sqrt(dimensions)))
    medians = Scales(lengths, 0.0, math.log(0.4), math.log(0.35), math.log(0.4))
    deviations = np.concatenate([np.full(dimensions, 0.8), [0.4, 0.6, 0.7, 0.6]])
    return medians, deviations


@dataclass(frozen=True)
class CurveData:
    """What the model is fitted on: M trials with F features, N observations of them.

    Attributes:
        features_MF: see `EncodedSpace.features`.
        owner_F: dimension of each feature.
        dimensions: number of dimensions.
        prior_M: m(x) of each trial; None where nothing is known.
        observed: the observations.
    """

    features_MF: Floats
    owner_F: NDArray[np.int64]
    dimensions: int
    observed: Observations
    prior_M: Floats | None = None


def matern(squared: Floats) -> tuple[Floats, Floats]:
    """The Matérn-5/2 kernel of squared distances, and −2 times its derivative by them."""
    root = np.sqrt(5.0 * np.maximum(squared, 0.0))
    decay = np.exp(-root)
    kernel: Floats = (1.0 + root + root**2 / 3.0) * decay
    return kernel, (5.0 / 3.0) * (1.0 + root) * decay


def squared_distances(left_AF: Floats, right_BF: Floats) -> Floats:
    """Squared Euclidean distances between the rows of two arrays, A × B."""
    products = left_AF @ right_BF.T
    norms = (left_AF**2).sum(1)[:, None] + (right_BF**2).sum(1)[None, :]
    squared: Floats = np.maximum(norms - 2.0 * products, 0.0)
    return squared


def fit_scales(
    data: CurveData, start: Scales | None = None, lengths_D: Floats | None = None
) -> Scales:
    """Fit the hyperparameters: the maximum of the posterior, by L-BFGS with its gradient.

    Args:
        data: the observations.
        start: where the fit starts; None: at the medians of the priors.
        lengths_D: see `prior_scales`.
    """
    medians, deviations = prior_scales(data.dimensions, lengths_D)
    objective = _Objective(_keep_longest(data, FITTED_TRIALS), medians.to_vector(), deviations)
    first = medians.to_vector() if start is None else start.to_vector()
    center = medians.to_vector()
    bounds = list(zip(center - 3.0, center + 3.0, strict=True))
    found = minimize(
        objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MAX_STEPS}
    )
    return Scales.from_vector(np.asarray(found.x))


def _keep_longest(data: CurveData, most: int) -> CurveData:
    """Keep the trials that were observed at the latest epochs."""
    trials = len(data.features_MF)
    if trials <= most:
        return data
    observed = data.observed
    latest_M = np.full(trials, 2.0)
    np.minimum.at(latest_M, observed.trial_N, observed.time_N)
    kept = np.sort(np.argsort(latest_M, kind="stable")[:most])
    row_of = np.full(trials, -1)
    row_of[kept] = np.arange(most)
    mask = row_of[observed.trial_N] >= 0
    subset = Observations(
        row_of[observed.trial_N][mask], observed.time_N[mask], observed.score_N[mask]
    )
    prior = None if data.prior_M is None else data.prior_M[kept]
    return CurveData(data.features_MF[kept], data.owner_F, data.dimensions, subset, prior)


class _Objective:
    """Negative log posterior of the hyperparameters and its gradient."""

    def __init__(self, data: CurveData, medians: Floats, deviations: Floats) -> None:
        self._data = data
        self._medians = medians
        self._deviations = deviations
        self._squared_DMM = np.stack(
            [
                squared_distances(columns, columns)
                for columns in (
                    data.features_MF[:, data.owner_F == dimension]
                    for dimension in range(data.dimensions)
                )
            ]
        )
        observed = data.observed
        self._rows = np.ix_(observed.trial_N, observed.trial_N)
        self._min_NN = np.minimum.outer(observed.time_N, observed.time_N)
        self._same_NN = np.equal.outer(observed.trial_N, observed.trial_N).astype(float)
        self._basis_NN = _basis_covariance(data)
        self._starts = np.flatnonzero(np.diff(observed.trial_N, prepend=-1))
        self._residual_N = _subtract_prior(data)

    def __call__(self, vector: Floats) -> tuple[float, Floats]:
        scales = Scales.from_vector(vector)
        inverse_D = np.exp(-2.0 * scales.lengths_D)
        kernel_MM, slope_MM = matern(np.tensordot(inverse_D, self._squared_DMM, axes=1))
        final, approach, own_final, own_approach = np.exp(2.0 * vector[-4:])
        similar_NN = kernel_MM[self._rows]
        shared_NN = final + approach * self._min_NN
        covariance = self._basis_NN + shared_NN * similar_NN
        covariance += self._same_NN * (own_final + own_approach * self._min_NN)
        covariance[np.diag_indices_from(covariance)] += JITTER
        lower = cholesky(covariance, lower=True, check_finite=False)
        weights = cho_solve((lower, True), self._residual_N, check_finite=False)
        inverse = cho_solve((lower, True), np.eye(len(lower)), check_finite=False)
        outer = np.outer(weights, weights) - inverse  # dlogp = ½ sum(outer ∘ dK)
        by_trial = self._sum_by_trial(outer * shared_NN) * slope_MM
        gradient = np.empty_like(vector)
        # d k / d log(length) = slope · d²/length²
        gradient[:-4] = -0.5 * np.tensordot(self._squared_DMM, by_trial, axes=2) * inverse_D
        gradient[-4] = -(outer * similar_NN).sum() * final
        gradient[-3] = -(outer * similar_NN * self._min_NN).sum() * approach
        gradient[-2] = -(outer * self._same_NN).sum() * own_final
        gradient[-1] = -(outer * self._same_NN * self._min_NN).sum() * own_approach
        away = (vector - self._medians) / self._deviations
        value = 0.5 * self._residual_N @ weights + np.log(np.diag(lower)).sum()
        return float(value + 0.5 * away @ away), gradient + away / self._deviations

    def _sum_by_trial(self, values_NN: Floats) -> Floats:
        rows = np.add.reduceat(values_NN, self._starts, axis=0)
        summed: Floats = np.add.reduceat(rows, self._starts, axis=1)
        return summed


def _basis_covariance(data: CurveData) -> Floats:
    """Covariance of a + 2 b t + c t² + β m(x) between the observations, N × N."""
    time_N = data.observed.time_N
    product = np.outer(time_N, time_N)
    covariance: Floats = 1.0 + 4.0 * product + product**2
    if data.prior_M is not None:
        prior_N = data.prior_M[data.observed.trial_N]
        covariance += PRIOR_WEIGHT_SD**2 * np.outer(prior_N, prior_N)
    return covariance


def _subtract_prior(data: CurveData) -> Floats:
    """Scores minus the mean that earlier studies give them."""
    if data.prior_M is None:
        return data.observed.score_N
    residual: Floats = data.observed.score_N - PRIOR_WEIGHT * data.prior_M[data.observed.trial_N]
    return residual


@dataclass(frozen=True)
class Prediction:
    """Normal distributions, one per configuration.

    Attributes:
        mean_P: expected normal score at the last epoch.
        deviation_P: standard deviation of it.
    """

    mean_P: Floats
    deviation_P: Floats


@dataclass(frozen=True)
class CurveModel:
    """The posterior, given the observations.

    Attributes:
        data: the trials and what was observed of them.
        scales: the hyperparameters.
    """

    data: CurveData
    scales: Scales
    _lower: Floats = field(init=False)
    _weights: Floats = field(init=False)

    def __post_init__(self) -> None:
        observed = self.data.observed
        features = self._scale(self.data.features_MF)
        kernel_MM, _ = matern(squared_distances(features, features))
        min_NN = np.minimum.outer(observed.time_N, observed.time_N)
        same_NN = np.equal.outer(observed.trial_N, observed.trial_N)
        shared = _square(self.scales.final) + _square(self.scales.approach) * min_NN
        own = _square(self.scales.own_final) + _square(self.scales.own_approach) * min_NN
        covariance = _basis_covariance(self.data) + same_NN * own
        covariance += shared * kernel_MM[np.ix_(observed.trial_N, observed.trial_N)]
        covariance[np.diag_indices_from(covariance)] += JITTER
        lower = cholesky(covariance, lower=True, check_finite=False)
        object.__setattr__(self, "_lower", lower)
        weights = cho_solve((lower, True), _subtract_prior(self.data), check_finite=False)
        object.__setattr__(self, "_weights", weights)

    def predict_new(self, features_PF: Floats, prior_P: Floats | None = None) -> Prediction:
        """Predict f(x), the final score of configurations without the chance of a single trial."""
        count = len(features_PF)
        of_no_trial = np.full(count, -1)
        return self._predict(features_PF, np.zeros(count), of_no_trial, prior_P, own_share=0.0)

    def predict_trials(self, own_share: float = 1.0) -> Prediction:
        """Predict the final score of the model's trials, with a share of what is theirs alone."""
        rows = np.arange(len(self.data.features_MF))
        times = np.zeros(len(rows))
        return self._predict(self.data.features_MF, times, rows, self.data.prior_M, own_share)

    def predict_scores(self, rows_P: NDArray[np.int64], time_P: Floats) -> Prediction:
        """Predict the score of some of the model's trials at a scaled time."""
        prior = None if self.data.prior_M is None else self.data.prior_M[rows_P]
        return self._predict(self.data.features_MF[rows_P], time_P, rows_P, prior, own_share=1.0)

    def _predict(
        self,
        features_PF: Floats,
        time_P: Floats,
        row_P: NDArray[np.int64],
        prior_P: Floats | None,
        own_share: float,
    ) -> Prediction:
        """Condition the joint normal distribution on the observations."""
        observed = self.data.observed
        squares = [_square(scale) for scale in self.scales.to_vector()[-4:]]
        final, approach, own_final, own_approach = squares
        kernel_PM, _ = matern(
            squared_distances(self._scale(features_PF), self._scale(self.data.features_MF))
        )
        product_PN = np.outer(time_P, observed.time_N)
        min_PN = np.minimum.outer(time_P, observed.time_N)
        cross_PN = 1.0 + 4.0 * product_PN + product_PN**2
        cross_PN += (final + approach * min_PN) * kernel_PM[:, observed.trial_N]
        same_PN = np.equal.outer(row_P, observed.trial_N)
        cross_PN += same_PN * own_share * (own_final + own_approach * min_PN)
        variance_P = 1.0 + 4.0 * time_P**2 + time_P**4 + final + approach * time_P
        variance_P += own_share**2 * (own_final + own_approach * time_P)
        mean_P = np.zeros(len(time_P))
        if prior_P is not None and self.data.prior_M is not None:
            prior_N = self.data.prior_M[observed.trial_N]
            cross_PN += PRIOR_WEIGHT_SD**2 * np.outer(prior_P, prior_N)
            variance_P += PRIOR_WEIGHT_SD**2 * prior_P**2
            mean_P = PRIOR_WEIGHT * prior_P
        solved = solve_triangular(self._lower, cross_PN.T, lower=True, check_finite=False)
        remaining_P = np.maximum(variance_P - (solved**2).sum(0), 1e-10)
        return Prediction(mean_P + cross_PN @ self._weights, np.sqrt(remaining_P))

    def _scale(self, features_PF: Floats) -> Floats:
        return features_PF / np.exp(self.scales.lengths_D)[self.data.owner_F]


def _square(logarithm: float) -> float:
    return math.exp(2.0 * logarithm)
