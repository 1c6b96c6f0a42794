"""The trainings that repeat a study's best trials over seeds, and what they say about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from search.planning.companion import find_main_name, name_companion
from search.planning.racing import RaceRules, Scores, Standing, rank_candidates
from search.report.models import metric_noise
from search.report.search_models import Confirmation, ConfirmedTrial
from spaces.config import ScoreRule
from spaces.loader import check
from spaces.records import EpochRecord
from spaces.study import StudySpec
from storage.rows import FINAL_STATES, StoredStudy, StoredTrial

if TYPE_CHECKING:
    from storage.store import Store

NOISE_SHARE: dict[ScoreRule, float] = {"best": 0.5, "last": 1.0, "mean_last_5": 0.5}
"""Noise of a score from seed to seed, as a share of the metric's noise from epoch to epoch.

For the best epoch it is measured: over 20 seeds of three presets, 0.017 against 0.031
(benchmarks/campaign/presets.jsonl.gz). It is a prior, which two seeds weigh as much as.
"""


@dataclass(frozen=True)
class Trainings:
    """The trainings of a study's companion, by trial of the study and by number of the seed.

    Attributes:
        scores: of the trainings that ended; NaN where one diverged.
        tests: metrics on the test split, by trial of the study.
        unfinished: number of trainings that wait, run, or are paused.
        failed: number of trainings that ended with an error and were not repeated.
    """

    scores: Scores
    tests: Mapping[int, Sequence[float]]
    unfinished: int
    failed: int


def find_companion(store: Store, stored: StoredStudy) -> StoredStudy | None:
    """Find the companion of a study, which `search confirm` creates."""
    found = store.studies.find_study(name_companion(stored.name))
    return found if found is not None and store.confirmations.list_trainings(found.id) else None


def is_companion(store: Store, stored: StoredStudy) -> bool:
    """Whether a study is the companion of another one in the store."""
    main = find_main_name(stored.name)
    if main is None or store.studies.find_study(main) is None:
        return False
    return bool(store.confirmations.list_trainings(stored.id))


def list_main_studies(store: Store) -> list[str]:
    """List the names of the studies that are no companion, the oldest first."""
    studies = store.studies.list_studies()
    return [stored.name for stored in studies if not is_companion(store, stored)]


def read_trainings(store: Store, companion: StoredStudy) -> Trainings:
    """Read the trainings of a companion as they are now.

    Raises:
        StoreError: when the database fails.
    """
    trials = {trial.number: trial for trial in store.trials.list_trials(companion.id)}
    records = store.epochs.study_records(companion.id)
    scores: dict[int, dict[int, float]] = {}
    tests: dict[int, list[float]] = {}
    unfinished, failed = 0, set()
    for each in store.confirmations.list_trainings(companion.id):
        trial = trials.get(each.number)
        if each.is_failed:
            failed.add((each.of, each.seed_number))
            continue
        failed.discard((each.of, each.seed_number))
        of_trial = scores.setdefault(each.of, {})
        if trial is None or trial.state not in FINAL_STATES:
            unfinished += 1
            continue
        of_trial[each.seed_number] = _find_score(trial)
        tests.setdefault(each.of, []).extend(_find_test(records.get(trial.id, ())))
    return Trainings(scores, tests, unfinished, len(failed))


def _find_score(trial: StoredTrial) -> float:
    """The score of a training that ended; NaN where it diverged."""
    return trial.score if trial.state == "complete" and trial.score is not None else math.nan


def _find_test(records: Sequence[EpochRecord]) -> list[float]:
    """The metric on the test split, which the last epoch has."""
    return [record.test.metric for record in records if record.test is not None][-1:]


def make_rules(
    store: Store, stored: StoredStudy, candidates: Sequence[int], seeds: int
) -> RaceRules:
    """Make the rules of a race between trials of a study.

    Args:
        store: an open store.
        stored: the study.
        candidates: numbers of its trials, whose epochs show how noisy the metric is.
        seeds: most seeds per candidate.
    """
    spec = check(StudySpec, stored.definition, f"study {stored.name} in the store")
    found = [store.trials.find_trial(stored.id, number) for number in candidates]
    records = [store.epochs.trial_records(trial.id) for trial in found if trial is not None]
    noise = expect_noise(records, spec.metric.score)
    return RaceRules(spec.metric.direction, seeds, noise, spec.seed)


def expect_noise(trials: Sequence[Sequence[EpochRecord]], rule: ScoreRule) -> float | None:
    """Expect the noise of a score from seed to seed, from the epochs of some trials.

    Returns:
        None where the trials are too short to show any noise.
    """
    found = [noise for noise in map(metric_noise, trials) if noise]
    return NOISE_SHARE[rule] * median(found) if found else None


def read_confirmation(store: Store, stored: StoredStudy) -> Confirmation | None:
    """Read what the confirmation of a study has shown so far.

    Args:
        store: an open store.
        stored: the study, not its companion.

    Returns:
        None where the study was never confirmed.
    """
    companion = find_companion(store, stored)
    if companion is None:
        return None
    trainings = read_trainings(store, companion)
    candidates = sorted(number for number, found in trainings.scores.items() if found)
    rules = make_rules(store, stored, candidates, 0)
    standings = rank_candidates({each: trainings.scores[each] for each in candidates}, rules)
    return Confirmation(
        study=companion.name,
        metric=str(stored.definition["metric"]["name"]),
        trials=tuple(_make_confirmed(each, trainings) for each in standings),
        unfinished=trainings.unfinished,
        failed=trainings.failed,
        completed_since=store.confirmations.count_completed_since(stored.id, companion.id),
    )


def _make_confirmed(standing: Standing, trainings: Trainings) -> ConfirmedTrial:
    tests = trainings.tests.get(standing.number)
    return ConfirmedTrial(
        number=standing.number,
        seeds=standing.seeds,
        diverged=standing.diverged,
        mean=standing.mean,
        low=standing.low,
        high=standing.high,
        chance=standing.chance,
        test=fmean(tests) if tests else None,
    )
