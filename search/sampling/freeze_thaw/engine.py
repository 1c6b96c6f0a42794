"""Decides which trial to train next, to which epoch, and with which configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from search.planning.random_seeds import derive_seed
from search.sampling.freeze_thaw.candidates import (
    CandidateSearch,
    expected_improvement,
)
from search.sampling.freeze_thaw.curve_model import CurveData, CurveModel, fit_scales
from search.sampling.freeze_thaw.curves import (
    Floats,
    Observations,
    TrialCurve,
    list_observed,
    make_observations,
)
from search.sampling.freeze_thaw.encoding import EncodedSpace, Points
from search.sampling.freeze_thaw.outlook import Gain, Outlook, describe_chance
from search.sampling.freeze_thaw.prior import Prior
from search.sampling.freeze_thaw.steps import Continuation, FreezeThawConfig, Step
from spaces.parameters import Scalar

Params = dict[str, Scalar]


MIN_COMPLETE = 3
"""So many trials are completed before the improvement over the best one counts."""

FIRST_RUNG_SHARE = 0.5
"""When more of the epochs than this went into the first rungs of trials, one is resumed."""

SHORT_RUNG = 0.25
"""In trials so short that the first rung is a larger share, that does not count."""

NEW_TRIAL_COST = 0.5
"""Epochs that a new trial is expected to take, as a share of a complete one's."""

OWN_SHARE = 0.3
"""Share of what is a trial's alone that counts for its configuration; the rest is its seed's."""

SWITCH_MARGIN = 0.25
"""By how much another trial has to be more promising, in standard deviations of final scores."""

MIN_CHANCE = 0.05
"""A paused trial with a smaller chance to beat the best complete one is not resumed any more, once
no new one may start."""


class FreezeThaw:
    """The search: all decisions are functions of the trials' curves and the study's seed.

    Args:
        space: of the study.
        config: settings.
        prior: what earlier studies teach; None where nothing is known.
    """

    def __init__(
        self, space: EncodedSpace, config: FreezeThawConfig, prior: Prior | None = None
    ) -> None:
        self.space = space
        self.config = config
        self.prior = prior
        self._cached: tuple[tuple[TrialCurve, ...], Outlook] | None = None

    def choose_step(self, curves: Sequence[TrialCurve], *, may_start: bool = True) -> Step | None:
        """Choose what a free worker trains next.

        Args:
            curves: all trials of the study, those that are running included.
            may_start: whether the budget has room for a new trial.

        Returns:
            None when no trial is worth resuming and none may start.
        """
        first = self.config.rungs[0]
        if may_start and len(curves) < self.config.start_trials:
            return Step(None, first, f"one of the first {self.config.start_trials} trials")
        paused = [curve for curve in curves if curve.state == "paused" and curve.epoch]
        if not paused:
            return Step(None, first, "no trial is paused") if may_start else None
        outlook = self.look_ahead(curves)
        rows = outlook.rows_in("paused")
        if len(outlook.rows_in("complete")) < MIN_COMPLETE:
            reason = f"fewer than {MIN_COMPLETE} trials are complete"
            return self._resume_most_hopeful(outlook, rows, reason)
        if not may_start:
            return self._resume_while_hopeful(outlook, rows)
        if self._is_first_rung_short and self._share_of_first_rungs(curves) > FIRST_RUNG_SHARE:
            reason = "more than half of the epochs went into first rungs"
            return self._resume_most_hopeful(outlook, rows, reason)
        return self._choose_by_gain(outlook, rows, len(curves))

    def continue_trial(self, curves: Sequence[TrialCurve], number: int) -> Continuation:
        """Decide whether a running trial that has reached a rung continues to the next one.

        It does while it is expected to beat the best complete trial.
        """
        if len(curves) < self.config.start_trials:
            return Continuation(
                None, f"the first {self.config.start_trials} trials all begin before one continues"
            )
        # Its own expected score is no observation, or it would seem certain.
        at_rung = [
            replace(curve, state="paused") if curve.number == number else curve for curve in curves
        ]
        outlook = self.look_ahead(at_rung)
        row = next(row for row, curve in enumerate(outlook.curves) if curve.number == number)
        until = self.config.next_rung(outlook.curves[row].epoch)
        if len(outlook.rows_in("complete")) < MIN_COMPLETE:
            hope_M = outlook.mean_M + outlook.deviation_M
            rivals = [rival for rival in outlook.rows_in("paused") if rival != row]
            if all(hope_M[row] >= hope_M[rival] - SWITCH_MARGIN for rival in rivals):
                return Continuation(until)
            return Continuation(None, "another trial is more promising")
        if outlook.mean_M[row] >= outlook.reference:
            return Continuation(until)
        chance = outlook.chance_to_lead(row)
        return Continuation(None, describe_chance(chance))

    def expect_gain(self, curves: Sequence[TrialCurve], *, may_start: bool = True) -> Gain | None:
        """Return the improvement that the best next step is expected to bring.

        Returns:
            None before enough trials are complete.
        """
        if sum(curve.state == "complete" for curve in curves) < MIN_COMPLETE:
            return None
        outlook = self.look_ahead(curves)
        rows = outlook.rows_in("paused")
        mean_P, deviation_P = outlook.mean_M[rows], outlook.deviation_M[rows]
        gain_P = expected_improvement(mean_P, deviation_P, outlook.reference)
        steps = [
            (float(gain), self.config.epochs - outlook.curves[row].epoch)
            for gain, row in zip(gain_P, rows, strict=True)
        ]
        if may_start:
            generator = self._generator(len(curves))
            _, _, gain = self._search_candidates(outlook, generator)
            steps.append((gain, self.config.epochs))
        if not steps:
            return None
        gain, epochs = max(steps)
        return Gain(outlook.gain_in_metric(gain), epochs)

    def rank_paused(self, curves: Sequence[TrialCurve]) -> list[int]:
        """Return the numbers of the paused trials, the most promising first."""
        if not any(curve.state == "paused" and curve.epoch for curve in curves):
            return []
        outlook = self.look_ahead(curves)
        hope_M = outlook.mean_M + outlook.deviation_M
        rows = sorted(outlook.rows_in("paused"), key=lambda row: -hope_M[row])
        return [outlook.curves[row].number for row in rows]

    def propose(self, curves: Sequence[TrialCurve], number: int) -> Params:
        """Return the configuration of a new trial.

        Args:
            curves: all other trials of the study.
            number: of the new trial; it seeds what is random.
        """
        generator = self._generator(number)
        started = [curve for curve in curves if curve.number != number]
        observed = [curve for curve in started if curve.epoch]
        if len(started) < self.config.start_trials or not observed:
            return self._propose_first(generator)
        outlook = self.look_ahead(started)
        found, best, _ = self._search_candidates(outlook, generator)
        return self.space.decode(found, best)

    def rank_complete(self, curves: Sequence[TrialCurve]) -> list[int]:
        """Return the numbers of the complete trials, the one with the best configuration first.

        The best observed score is in part the luck of its seed. So only a share of what is a
        trial's alone counts for its configuration.
        """
        if not any(curve.state == "complete" for curve in curves):
            return []
        outlook = self.look_ahead(curves)
        expected_M = outlook.model.predict_trials(OWN_SHARE).mean_P
        rows = sorted(outlook.rows_in("complete"), key=lambda row: -expected_M[row])
        return [outlook.curves[row].number for row in rows]

    def pick(self, curves: Sequence[TrialCurve]) -> int | None:
        """Return the number of the complete trial with the best configuration."""
        return next(iter(self.rank_complete(curves)), None)

    def look_ahead(self, curves: Sequence[TrialCurve]) -> Outlook:
        """Fit the model on the trials, and predict where each would end."""
        key = tuple(curves)
        if self._cached is not None and self._cached[0] == key:
            return self._cached[1]
        outlook = self._predict(curves)
        self._cached = (key, outlook)
        return outlook

    def _predict(self, curves: Sequence[TrialCurve]) -> Outlook:
        seen = [curve for curve in curves if curve.epoch]
        waiting = [curve for curve in curves if not curve.epoch]
        sign = 1.0 if self.config.direction == "maximize" else -1.0
        points = self.space.encode([curve.params for curve in seen])
        features_MF, owner_F = self.space.features(points)
        observed = make_observations(seen, self.config.rungs, self.config.epochs, sign)
        prior_M = self._prior_of([curve.params for curve in seen])
        data = CurveData(features_MF, owner_F, len(self.space), observed, prior_M)
        lengths_D = None if self.prior is None else self.prior.lengths_D
        model = CurveModel(data, fit_scales(data, lengths_D=lengths_D))
        running = [curve for curve in curves if curve.state == "running" and curve.until_epoch]
        if running:
            model = self._believe_running(model, seen, waiting)
        prediction = model.predict_trials()
        count = len(seen)
        metric_N = [
            seen[row].scores[epoch] for row, epoch in list_observed(seen, self.config.rungs)
        ]
        return Outlook(
            seen,
            model,
            points,
            prediction.mean_P[:count],
            prediction.deviation_P[:count],
            np.array(metric_N),
        )

    def _believe_running(
        self, model: CurveModel, seen: Sequence[TrialCurve], waiting: Sequence[TrialCurve]
    ) -> CurveModel:
        """Add the expected final score of each running trial as an observation.

        It changes no mean, but the next worker looks elsewhere (the kriging believer of Ginsbourger
        et al., 2010).
        """
        curves = [*seen, *waiting]
        points = self.space.encode([curve.params for curve in curves])
        features_MF, owner_F = self.space.features(points)
        prior_M = self._prior_of([curve.params for curve in curves])
        observed = model.data.observed
        extended = CurveData(features_MF, owner_F, len(self.space), observed, prior_M)
        known = CurveModel(extended, model.scales)
        rows = np.array([row for row, curve in enumerate(curves) if curve.state == "running"])
        time_P = np.zeros(len(rows))
        expected = known.predict_scores(rows, time_P).mean_P
        joined = Observations(
            np.concatenate([observed.trial_N, rows]),
            np.concatenate([observed.time_N, time_P]),
            np.concatenate([observed.score_N, expected]),
        )
        data = CurveData(features_MF, owner_F, len(self.space), joined, prior_M)
        return CurveModel(data, model.scales)

    def _generator(self, number: int) -> np.random.Generator:
        """The generator of what is random in the proposal of a trial."""
        return np.random.default_rng(derive_seed(self.config.seed, number, "sampler"))

    def _prior_of(self, configurations: Sequence[Mapping[str, Scalar]]) -> Floats | None:
        return None if self.prior is None else self.prior(configurations)

    def _propose_first(self, generator: np.random.Generator) -> Params:
        """A random configuration; the most promising of some where earlier studies teach."""
        if self.prior is None:
            return self.space.decode(self.space.sample(generator, 1), 0)
        points = self.space.sample(generator, 60)
        expected = self.prior([self.space.decode(points, row) for row in range(len(points))])
        return self.space.decode(points, int(np.argmax(expected)))

    def _search_candidates(
        self, outlook: Outlook, generator: np.random.Generator
    ) -> tuple[Points, int, float]:
        """The candidates, the row of the best one, and its expected improvement."""
        search = CandidateSearch(self.space, outlook.model, self.prior, generator)
        order = np.argsort(-outlook.mean_M, kind="stable")
        reference = outlook.reference
        if not math.isfinite(reference):
            reference = float(outlook.mean_M.max())
        return search.maximize_improvement(outlook.points.take(order[:6]), reference)

    def _resume(self, outlook: Outlook, row: int, reason: str) -> Step:
        curve = outlook.curves[row]
        return Step(curve.number, self.config.next_rung(curve.epoch), reason)

    def _resume_most_hopeful(self, outlook: Outlook, rows: Sequence[int], reason: str) -> Step:
        hope_M = outlook.mean_M + outlook.deviation_M
        return self._resume(outlook, max(rows, key=lambda row: hope_M[row]), reason)

    def _resume_while_hopeful(self, outlook: Outlook, rows: Sequence[int]) -> Step | None:
        gain_per_epoch = self._gain_per_epoch(outlook, rows)
        for index in np.argsort(-gain_per_epoch, kind="stable"):
            chance = outlook.chance_to_lead(rows[index])
            if chance >= MIN_CHANCE:
                reason = describe_chance(chance)
                return self._resume(outlook, rows[index], reason)
        return None

    def _gain_per_epoch(self, outlook: Outlook, rows: Sequence[int]) -> Floats:
        mean_P, deviation_P = outlook.mean_M[rows], outlook.deviation_M[rows]
        gain_P = expected_improvement(mean_P, deviation_P, outlook.reference)
        left_P = np.array([self._epochs_left(outlook.curves[row]) for row in rows])
        result: Floats = gain_P / np.maximum(left_P, 1)
        return result

    def _epochs_left(self, curve: TrialCurve) -> int:
        """Epochs until a paused trial is complete."""
        return self.config.epochs - (0 if curve.restarts else curve.epoch)

    def _choose_by_gain(self, outlook: Outlook, rows: Sequence[int], number: int) -> Step:
        """Compare what paused trials and a new one are expected to gain per epoch."""
        resumed = self._gain_per_epoch(outlook, rows)
        _, _, gain = self._search_candidates(outlook, self._generator(number))
        of_new = gain / (NEW_TRIAL_COST * self.config.epochs)
        best = int(np.argmax(resumed))
        if resumed[best] >= of_new:
            chance = outlook.chance_to_lead(rows[best])
            reason = describe_chance(chance)
            return self._resume(outlook, rows[best], reason)
        return Step(None, self.config.rungs[0], "a new trial is expected to gain more per epoch")

    @property
    def _is_first_rung_short(self) -> bool:
        """Whether a trial is so long that its first rung is only a beginning."""
        return self.config.rungs[0] <= SHORT_RUNG * self.config.epochs

    def _share_of_first_rungs(self, curves: Sequence[TrialCurve]) -> float:
        first = self.config.rungs[0]
        spent = sum(curve.epoch for curve in curves)
        return sum(min(curve.epoch, first) for curve in curves) / max(spent, 1)
