"""What a search with a model of learning curves expects of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search.report.search_models import PausedTrial, SearchOutlook
from spaces.errors import SearchError
from spaces.study import CURVE_KINDS, StudySpec
from storage.rows import StoredStudy, StoredTrial

if TYPE_CHECKING:
    from search.sampling.freeze_thaw.curves import TrialCurve
    from search.sampling.freeze_thaw.engine import FreezeThaw
    from storage.store import Store

MIN_TRIALS = 5
"""Fewer trials do not show whether earlier knowledge agrees."""


def describe_search(
    store: Store, stored: StoredStudy, spec: StudySpec, trials: Sequence[StoredTrial]
) -> dict[str, Any]:
    """Return the report's fields on paused trials and on what is expected.

    Nothing is returned for a sampler that has no model of curves, and for a study whose search
    cannot be made any more, such as one whose objective is not installed here.
    """
    if not any(trial.started_at for trial in trials):
        return {}
    found = _open_search(store, stored, spec)
    if found is None:
        return {}
    engine, curves = found
    left = spec.trials - len(trials)
    probed = 0 if stored.rate_probe is None else stored.rate_probe.charged_epochs
    return {
        "paused": _list_paused(engine, curves, trials),
        "search": _describe_outlook(engine, curves, spec, left, probed),
    }


def find_likely_best(store: Store, stored: StoredStudy, spec: StudySpec) -> int | None:
    """Return the number of the trial whose configuration is likely the best.

    None where the sampler has no model of curves, and before any trial is complete.
    """
    found = _open_search(store, stored, spec)
    return None if found is None else found[0].pick(found[1])


def _open_search(
    store: Store, stored: StoredStudy, spec: StudySpec
) -> tuple[FreezeThaw, Sequence[TrialCurve]] | None:
    """The search of a study and what it decides by; None where there is none."""
    if spec.sampler.kind not in CURVE_KINDS:
        return None
    # scipy and the model: only for a study that uses them
    from search.sampling.earlier_studies import load_earlier_studies
    from search.sampling.study_curves import StudyCurves, make_engine
    from search.stored_study import stored_plan

    try:
        plan = stored_plan(stored)
        engine = make_engine(
            plan, load_earlier_studies(store, spec.sampler.learn_from, spec.metric)
        )
    except SearchError:
        return None
    curves = StudyCurves(store, stored.id, plan).read_curves()
    if not any(curve.epoch for curve in curves):
        return None
    return engine, curves


def _list_paused(
    engine: FreezeThaw, curves: Sequence[TrialCurve], trials: Sequence[StoredTrial]
) -> tuple[PausedTrial, ...]:
    curve_of = {curve.number: curve for curve in curves}
    reason_of = {trial.number: trial.reason for trial in trials}
    return tuple(
        PausedTrial(
            number,
            curve_of[number].epoch,
            curve_of[number].scores[curve_of[number].epoch],
            _explain_pause(engine, curves, number) or reason_of.get(number, ""),
        )
        for number in engine.rank_paused(curves)
    )


def _explain_pause(engine: FreezeThaw, curves: Sequence[TrialCurve], number: int) -> str:
    """Where a trial is paused, and its chance by what is known now; empty before that is known."""
    from search.sampling.freeze_thaw.outlook import describe_chance

    outlook = engine.look_ahead(curves)
    if not outlook.rows_in("complete"):
        return ""
    row = next(row for row, curve in enumerate(outlook.curves) if curve.number == number)
    chance = describe_chance(outlook.chance_to_lead(row))
    return f"after epoch {outlook.curves[row].epoch} of {engine.config.epochs}: {chance}"


def _describe_outlook(
    engine: FreezeThaw, curves: Sequence[TrialCurve], spec: StudySpec, left: int, probed: int
) -> SearchOutlook:
    from search.sampling.study_curves import is_settled

    gain = engine.expect_gain(curves, may_start=left > 0)
    trained = probed + sum(curve.epoch for curve in curves)
    is_spent = spec.epochs_budget is not None and trained >= spec.epochs_budget
    may_start = left > 0 and not is_spent
    settled = is_settled(engine, curves, spec.settled_gain, may_start=may_start)
    step = None if is_spent or settled else engine.choose_step(curves, may_start=may_start)
    return SearchOutlook(
        likely_best=engine.pick(curves),
        gain=None if gain is None else gain.metric,
        gain_epochs=None if gain is None else gain.epochs,
        prior_agreement=_compare_prior(engine, curves),
        is_over=step is None,
        is_settled=settled,
    )


def _compare_prior(engine: FreezeThaw, curves: Sequence[TrialCurve]) -> float | None:
    """Rank correlation of expected and predicted final scores."""
    seen = [curve for curve in curves if curve.epoch]
    if engine.prior is None or len(seen) < MIN_TRIALS:
        return None
    from scipy.stats import spearmanr

    expected = engine.prior([curve.params for curve in seen])
    found = float(spearmanr(expected, engine.look_ahead(curves).mean_M).statistic)
    return None if found != found else found
