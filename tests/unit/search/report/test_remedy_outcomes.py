"""What remedies did: scores of two trials compared, and the record of each remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from search.report.models import RemedyTrial
from search.report.remedy_outcomes import UNNAMED, measure_remedies, summarize_remedies
from spaces.config import Direction, MetricConfig
from spaces.records import EpochRecord
from storage.rows import StoredTrial, TriedRemedy

NAN = float("nan")
Make = Callable[..., EpochRecord]
Ended = tuple[str, Sequence[float]]
"""State and metrics of a trial."""


def make_trial(number: int, state: str, score: float | None) -> StoredTrial:
    """A trial of which nothing else matters."""
    names = list(StoredTrial.__dataclass_fields__)
    values: list[Any] = [None] * len(names)
    given = {"id": number, "number": number, "state": state, "score": score}
    for name, value in given.items():
        values[names.index(name)] = value
    return StoredTrial(*values)


@pytest.fixture
def measure(make_record: Make) -> Callable[..., RemedyTrial]:
    """Measure the remedy of trial 0 that trial 1 tries."""

    def compare(origin: Ended, remedied: Ended, direction: Direction = "maximize") -> RemedyTrial:
        best = max if direction == "maximize" else min
        trials, records = [], {}
        for number, (state, metrics) in enumerate((origin, remedied)):
            score = best(metrics) if state == "complete" else None
            trials.append(make_trial(number, state, score))
            records[number] = [
                make_record(epoch, metric=metric) for epoch, metric in enumerate(metrics, 1)
            ]
        metric = MetricConfig(
            name="miou" if direction == "maximize" else "val_ce", direction=direction
        )
        tried = [TriedRemedy(1, 0, 1, "slower", "rate")]
        (outcome,) = measure_remedies(tried, trials, records, metric)
        return outcome

    return compare


class TestMeasureRemedies:
    @pytest.mark.parametrize(
        ("origin", "remedied", "expected"),
        [
            # what a diverged trial reached is all that it would have reached
            (("diverged", [0.1, 0.2, NAN]), ("complete", [0.1] * 5 + [0.3]), (0.2, 0.3, None)),
            # a pruned trial is compared over its own epochs
            (("pruned", [0.1, 0.2]), ("complete", [0.1, 0.15, 0.4]), (0.2, 0.15, 2)),
            (("complete", [0.1, 0.2, 0.5]), ("pruned", [0.1, 0.3]), (0.2, 0.3, 2)),
            (("pruned", [0.1, 0.2, 0.3]), ("pruned", [0.4]), (0.1, 0.4, 1)),
            (("complete", [0.1, 0.3]), ("complete", [0.2, 0.1]), (0.3, 0.2, None)),
            (("diverged", [NAN]), ("complete", [0.1, 0.2]), (None, 0.2, None)),
        ],
    )
    def test_scores(
        self,
        measure: Callable[..., RemedyTrial],
        origin: Ended,
        remedied: Ended,
        expected: tuple[float | None, float, int | None],
    ) -> None:
        """The two scores, over the epochs that both have if peers ended one of the two."""
        outcome = measure(origin, remedied)
        assert (outcome.before, outcome.after, outcome.epochs) == expected

    @pytest.mark.parametrize(
        ("origin", "remedied", "verdict"),
        [
            ([0.2] * 4, [0.3] * 4, "helped"),
            ([0.3] * 4, [0.2] * 4, "worse"),
            ([0.3] * 4, [0.3] * 4, "same"),
            ([0.30, 0.33] * 3, [0.40] * 6, "same"),  # noise 0.036 and 0
            ([0.30, 0.33] * 3, [0.41] * 6, "helped"),
            ([0.30, 0.33] * 3, [0.43], "same"),  # noise 0.036 twice
            ([0.30, 0.33] * 3, [0.44], "helped"),
            ([0.2, 0.1], [0.9, 0.1], None),
            ([NAN, NAN], [0.1, 0.2], "helped"),
            ([0.1, 0.2], [NAN, NAN], "worse"),
            ([NAN, NAN], [NAN, NAN], "same"),
        ],
    )
    def test_verdict(
        self,
        measure: Callable[..., RemedyTrial],
        origin: Sequence[float],
        remedied: Sequence[float],
        verdict: str | None,
    ) -> None:
        """A remedy helped where the score is better by two deviations of the difference.

        A run of unknown noise has that of the other one; where both are unknown nothing is said.
        """
        assert measure(("diverged", origin), ("diverged", remedied)).verdict == verdict

    def test_minimized(self, measure: Callable[..., RemedyTrial]) -> None:
        """A minimized score is better when it is lower."""
        outcome = measure(("complete", [0.5] * 4), ("complete", [0.4] * 4), "minimize")
        assert (outcome.verdict, outcome.change) == ("helped", pytest.approx(-0.1))

    @pytest.mark.parametrize("state", ["running", "paused", "failed"])
    def test_unknown(self, measure: Callable[..., RemedyTrial], state: str) -> None:
        """A trial that has not ended, or failed with an error, shows nothing about its remedy."""
        outcome = measure(("diverged", [0.1]), (state, [0.3]))
        assert (outcome.verdict, outcome.before, outcome.change) == (None, None, None)

    def test_score_rule(self, make_record: Make) -> None:
        """The scores of trials that ended early follow the study's rule as well."""
        trials = [make_trial(number, "pruned", None) for number in (0, 1)]
        records = {
            number: [make_record(epoch, metric=metric) for epoch, metric in enumerate(metrics, 1)]
            for number, metrics in enumerate([(0.3, 0.1), (0.2, 0.15, 0.4)])
        }
        metric = MetricConfig(score="last")
        (found,) = measure_remedies([TriedRemedy(1, 0)], trials, records, metric)
        assert (found.before, found.after, found.epochs) == (0.1, 0.15, 2)

    def test_waiting(self) -> None:
        """A remedy that only waits to be tried is left out."""
        tried = [TriedRemedy(1, 0)]
        assert measure_remedies(tried, [make_trial(0, "diverged", None)], {}, MetricConfig()) == ()


class TestSummarizeRemedies:
    def outcome(self, title: str, verdict: Any, change: float | None = 0.0) -> RemedyTrial:
        """An outcome of trial 0's remedy."""
        after = None if change is None else 0.5 + change
        return RemedyTrial(1, 0, title, "", 0.5, after, None, verdict)

    def test_record(self) -> None:
        """Per remedy: how often it was tried, helped and did harm, and the median change."""
        record, other = summarize_remedies(
            [
                self.outcome("clip", "same"),
                self.outcome("slower", "helped", 0.25),
                self.outcome("slower", "helped", 0.125),
                self.outcome("slower", "worse", -0.25),
                self.outcome("slower", "worse", None),
                self.outcome("slower", None),
            ]
        )
        assert (record.title, record.tried, record.helped, record.worse) == ("slower", 4, 2, 2)
        assert record.median_change == 0.125
        assert (other.title, other.tried) == ("clip", 1)

    def test_untitled(self) -> None:
        """Remedies of older stores are counted together."""
        (record,) = summarize_remedies([self.outcome("", "helped"), self.outcome("", "worse")])
        assert (record.title, record.tried) == (UNNAMED, 2)
