"""What the reports contain about the search itself: pauses, expectations and confirmations."""

from __future__ import annotations

from dataclasses import dataclass

from search.report.json_report import JsonReport


@dataclass(frozen=True, slots=True)
class PausedTrial:
    """A trial that the search has paused.

    Attributes:
        score: reached so far.
        reason: where it paused, and why it did not continue.
    """

    number: int
    epochs: int
    score: float
    reason: str


@dataclass(frozen=True, slots=True)
class SearchOutlook:
    """What the search expects of a study.

    Attributes:
        likely_best: number of the complete trial whose configuration is likely the best, by all
            curves together; None before enough trials are complete.
        gain: expected improvement of the best score by the next step, in the metric's unit.
        gain_epochs: epochs that the next step would take.
        prior_agreement: rank correlation of what earlier studies let expect and what was seen, over
            all trials; None without such knowledge or with too few trials.
        is_over: whether the budget has no room for a step that is worth its epochs.
        is_settled: whether that is so because little further gain is expected.
    """

    likely_best: int | None
    gain: float | None
    gain_epochs: int | None
    prior_agreement: float | None
    is_over: bool
    is_settled: bool = False


@dataclass(frozen=True, slots=True)
class ConfirmedTrial:
    """What training a trial's configuration again over seeds showed.

    Attributes:
        number: of the trial. Its own score does not count, since it was selected by that.
        seeds: number of trainings that ended, diverged ones included.
        diverged: number of those that diverged, each of which counts as worse than every score.
        mean: of the scores; None where there is none.
        low: lower end of the 95% interval of the mean over seeds.
        high: upper end of the interval.
        chance: that it is the best of the trials that were confirmed.
        test: mean of the metric on the test split, by which nothing was chosen.
    """

    number: int
    seeds: int
    diverged: int
    mean: float | None
    low: float | None
    high: float | None
    chance: float
    test: float | None


@dataclass(frozen=True, slots=True)
class Confirmation(JsonReport):
    """The best trials of a study, trained again over seeds.

    Attributes:
        study: name of the study with these trainings.
        metric: of both studies.
        trials: the one that is the likeliest to be the best first.
        unfinished: number of trainings that wait, run, or are paused.
        failed: number of trainings that ended with an error and were not repeated.
        completed_since: number of trials of the study that completed after the latest training
            began.
    """

    study: str
    metric: str
    trials: tuple[ConfirmedTrial, ...]
    unfinished: int = 0
    failed: int = 0
    completed_since: int = 0

    @property
    def winner(self) -> ConfirmedTrial | None:
        """The trial that is the likeliest to be the best; None where no training has a score."""
        first = next(iter(self.trials), None)
        return None if first is None or first.mean is None else first
