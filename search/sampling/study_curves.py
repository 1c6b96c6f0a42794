"""The trials of a stored study as learning curves, and the freeze-thaw search over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.planning.plan import Plan, complete_config
from search.sampling.freeze_thaw.curves import CurveState, TrialCurve, accumulate_scores
from search.sampling.freeze_thaw.encoding import EncodedSpace
from search.sampling.freeze_thaw.engine import FreezeThaw
from search.sampling.freeze_thaw.prior import (
    EarlierStudy,
    JoinedPrior,
    Knowledge,
    Prior,
    StudyPrior,
    applies_to,
    load_knowledge,
    load_shipped,
    make_earlier_prior,
)
from search.sampling.freeze_thaw.steps import FreezeThawConfig, make_rungs
from search.stored_study import sampled_values
from spaces.study import StudySpec
from storage.repositories.promotions import StoredCurve
from storage.rows import FINAL_STATES
from storage.store import Store


class StudyCurves:
    """Reads the curves of a study; trials that have ended are read once.

    Args:
        store: an open store.
        study_id: of the study in the store.
        plan: of the study.
    """

    def __init__(self, store: Store, study_id: int, plan: Plan) -> None:
        self._store = store
        self._study_id = study_id
        self._plan = plan
        self._ended: dict[int, TrialCurve | None] = {}

    def read_curves(self) -> list[TrialCurve]:
        """Read the trials as they are now, ordered by number.

        A trial that failed, or has no configuration yet, is among them without a score.

        Raises:
            StoreError: when the database fails.
        """
        found = dict(self._ended)
        for stored in self._store.promotions.list_curves(self._study_id, self._ended):
            found[stored.trial_id] = self._make_curve(stored)
            if stored.state in FINAL_STATES:
                self._ended[stored.trial_id] = found[stored.trial_id]
        curves = [curve for curve in found.values() if curve is not None]
        return sorted(curves, key=lambda curve: curve.number)

    def _make_curve(self, stored: StoredCurve) -> TrialCurve | None:
        if stored.number is None:
            return None
        if stored.state == "failed" or stored.config is None:
            return TrialCurve(stored.number, {}, {}, "ended")
        spec = self._plan.spec
        params, _ = sampled_values(spec, stored.config)
        scores = accumulate_scores(stored.metrics, spec.metric)
        if stored.state == "diverged":
            scores[max(scores, default=1)] = math.nan
        return TrialCurve(
            stored.number,
            params,
            scores,
            _find_state(stored),
            stored.until_epoch or spec.epochs,
            restarts=stored.checkpoint_dropped,
        )


def _find_state(stored: StoredCurve) -> CurveState:
    if stored.state == "complete":
        return "complete"
    if stored.state in FINAL_STATES:
        return "ended"
    return "paused" if stored.awaits_promotion else "running"


LEARNED_METRICS = ("miou", "macro_f1")
"""Metrics of a segmentation that what ships with the package is about."""


def make_engine(plan: Plan, earlier: Sequence[EarlierStudy] = ()) -> FreezeThaw:
    """Make the search of a study from its plan.

    Args:
        plan: of the study.
        earlier: studies that it learns from, in addition to what ships with the package.
    """
    spec = plan.spec
    fixed: dict[str, Any] = dict(complete_config(plan.objective, plan.starting_tree(None)))
    space = EncodedSpace({path: spec.space[path] for path in plan.order}, fixed)
    pauses = spec.sampler.kind == "auto"
    rungs = make_rungs(spec.epochs, spec.sampler.first_rung) if pauses else (spec.epochs,)
    config = FreezeThawConfig(
        direction=spec.metric.direction,
        rungs=rungs,
        start_trials=min(spec.sampler.startup_trials, spec.trials),
        seed=spec.seed,
    )
    parts: list[Prior] = [make_earlier_prior(each, space) for each in earlier]
    if spec.sampler.knowledge and knows_study(plan, space, fixed):
        parts.append(StudyPrior(load_for_study(spec), space, fixed, spec.epochs))
    return FreezeThaw(space, config, JoinedPrior(parts) if parts else None)


def is_settled(
    engine: FreezeThaw, curves: Sequence[TrialCurve], share: float | None, *, may_start: bool
) -> bool:
    """Whether the next step is expected to improve the best score by less than a share of it.

    Args:
        engine: the search.
        curves: all trials.
        share: of the best score; None: never.
        may_start: whether the budget has room for a new trial.
    """
    if share is None or len(curves) < engine.config.start_trials:
        return False
    gain = engine.expect_gain(curves, may_start=may_start)
    complete = [curve.scores[curve.epoch] for curve in curves if curve.state == "complete"]
    if gain is None or not complete:
        return False
    best = max(complete) if engine.config.direction == "maximize" else min(complete)
    return bool(gain.metric < share * abs(best))


def load_for_study(spec: StudySpec) -> Knowledge:
    """Load what a study starts from: its own file, or what ships with the package.

    Raises:
        RecordsError: when the file is none, or of another version.
    """
    given = spec.sampler.knowledge
    return load_knowledge(Path(given)) if isinstance(given, str) else load_shipped()


def knows_study(plan: Plan, space: EncodedSpace, fixed: Mapping[str, Any]) -> bool:
    """Whether what ships with the package is about the configurations of a study."""
    spec = plan.spec
    is_about = spec.objective == "segmentation" and spec.metric.name in LEARNED_METRICS
    return is_about and applies_to(space, fixed)
