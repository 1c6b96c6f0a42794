"""What remedies did: trials that try one, compared with those that they are the remedies of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from search.report.models import RemedyRecord, RemedyTrial, metric_noise
from spaces.config import Direction, MetricConfig
from spaces.records import EpochRecord, score
from storage.rows import StoredTrial, TriedRemedy

if TYPE_CHECKING:
    from storage.store import Store

COMPARED_STATES = ("complete", "pruned", "diverged")
"""States of trials that can be compared; a failed one shows nothing about its remedy."""

DEVIATIONS = 2.0
"""Standard deviations of the difference of two scores within which noise alone may explain it."""

UNNAMED = "(title not recorded)"
"""The title of remedies that version 0.1.0 enqueued."""


@dataclass(frozen=True, slots=True)
class Course:
    """A trial with its records."""

    trial: StoredTrial
    records: Sequence[EpochRecord]


def measure_remedy(
    store: Store,
    study_id: int,
    metric: MetricConfig,
    trial: StoredTrial,
    tried: Sequence[TriedRemedy],
) -> RemedyTrial | None:
    """Measure what the remedy that a trial tries did; None for a trial that tries none."""
    own = next((each for each in tried if each.number == trial.number), None)
    if own is None:
        return None
    origin = store.trials.find_trial(study_id, own.of)
    courses = {
        each.number: Course(each, store.epochs.trial_records(each.id))
        for each in (trial, origin)
        if each is not None and each.number is not None
    }
    return _compare(own, courses, metric)


def measure_remedies(
    tried: Sequence[TriedRemedy],
    trials: Sequence[StoredTrial],
    records: Mapping[int, Sequence[EpochRecord]],
    metric: MetricConfig,
) -> tuple[RemedyTrial, ...]:
    """Measure what every remedy did; those that only wait to be tried are left out.

    Args:
        tried: the trials that try a remedy.
        trials: of the study.
        records: id of a trial → its records.
        metric: of the study.
    """
    courses = {
        trial.number: Course(trial, records.get(trial.id, ()))
        for trial in trials
        if trial.number is not None
    }
    return tuple(_compare(each, courses, metric) for each in tried if each.number in courses)


def summarize_remedies(outcomes: Sequence[RemedyTrial]) -> tuple[RemedyRecord, ...]:
    """Sum up the known outcomes of each remedy, the most often tried first."""
    known = [each for each in outcomes if each.verdict is not None]
    titles = dict.fromkeys(each.title or UNNAMED for each in known)
    records = [
        _sum_up(title, [each for each in known if (each.title or UNNAMED) == title])
        for title in titles
    ]
    return tuple(sorted(records, key=lambda record: -record.tried))


def _sum_up(title: str, outcomes: Sequence[RemedyTrial]) -> RemedyRecord:
    verdicts = [each.verdict for each in outcomes]
    changes = [each.change for each in outcomes if each.change is not None]
    return RemedyRecord(
        title,
        len(outcomes),
        verdicts.count("helped"),
        verdicts.count("worse"),
        median(changes) if changes else None,
    )


def _compare(
    tried: TriedRemedy, courses: Mapping[int, Course], metric: MetricConfig
) -> RemedyTrial:
    """Compare a trial with the one that it is the remedy of, by the study's score.

    What a diverged trial reached is all that it would have reached. A pruned one might have become
    better, so the two are compared over the epochs that it has.
    """
    ended = [courses.get(tried.of), courses[tried.number]]
    pair = [each for each in ended if each is not None and each.trial.state in COMPARED_STATES]
    unknown = RemedyTrial(
        tried.number, tried.of, tried.title, tried.cause, None, None, None, None, tried.by_sampler
    )
    if len(pair) < 2:
        return unknown
    pruned = [len(each.records) for each in pair if each.trial.state == "pruned"]
    epochs = min(pruned, default=None)
    before, after = (_score_course(each, epochs, metric) for each in pair)
    noise = _estimate_difference_noise([each.records[:epochs] for each in pair])
    return RemedyTrial(
        tried.number,
        tried.of,
        tried.title,
        tried.cause,
        before,
        after,
        epochs,
        _judge_change(before, after, noise, metric.direction),
        tried.by_sampler,
    )


def _score_course(course: Course, epochs: int | None, metric: MetricConfig) -> float | None:
    """The score of a trial, over its first epochs if they are given; None without a metric."""
    if epochs is None and course.trial.state == "complete":
        reached = course.trial.score
    else:
        validated = [each for each in course.records[:epochs] if math.isfinite(each.metric)]
        reached = score(validated, metric) if validated else None
    return reached if reached is not None and math.isfinite(reached) else None


def _estimate_difference_noise(pair: Sequence[Sequence[EpochRecord]]) -> float | None:
    """The standard deviation of the difference of two runs; None where both are too short.

    A run that is too short to show its noise is taken to have that of the other one.
    """
    known = [noise for noise in map(metric_noise, pair) if noise is not None]
    return math.hypot(known[0], known[-1]) if known else None


def _judge_change(
    before: float | None, after: float | None, noise: float | None, direction: Direction
) -> Literal["helped", "worse", "same"] | None:
    if before is None or after is None:
        if before is after:
            return "same"
        return "helped" if before is None else "worse"
    if noise is None:
        return None
    gain = after - before if direction == "maximize" else before - after
    if abs(gain) <= DEVIATIONS * noise:
        return "same"
    return "helped" if gain > 0 else "worse"
