"""Recorded trials, ranked by the scores with which they completed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from spaces.config import Direction, MetricConfig
from spaces.errors import RecordsError
from spaces.recordings import RecordedTrial, Recording
from spaces.records import score

BEST_SHARE = 0.1
"""Share of the ranked trials that are the best ones, which no rule should stop."""


@dataclass(frozen=True, slots=True)
class RankedTrial:
    """A trial that ran to completion, and its score."""

    number: int
    score: float


@dataclass(frozen=True)
class RankedRecording:
    """Recorded trials and their ranks.

    Attributes:
        recording: as it was read.
        trials: those with an epoch, in order of their numbers.
        ranked: those that ran to completion with a finite score, the best first.
    """

    recording: Recording
    trials: tuple[RecordedTrial, ...]
    ranked: tuple[RankedTrial, ...]

    @property
    def direction(self) -> Direction:
        """The direction of the metric."""
        return self.recording.study.metric.direction

    @property
    def planned_epochs(self) -> int:
        """The epochs of a complete trial; where they were not recorded, those of the longest."""
        longest = max(trial.epochs[-1].epoch for trial in self.trials)
        return self.recording.study.epochs or longest

    @property
    def scores(self) -> dict[int, float]:
        """Number of a ranked trial → its score."""
        return {trial.number: trial.score for trial in self.ranked}

    def best_trials(self, share: float = BEST_SHARE) -> tuple[RankedTrial, ...]:
        """The best share of the ranked trials, rounded up, the best first."""
        return self.ranked[: math.ceil(share * len(self.ranked))]


def rank_recording(recording: Recording, file: Path | None = None) -> RankedRecording:
    """Rank the trials of a recording.

    Args:
        recording: of the trials.
        file: from which it was read; None for a study in the store.

    Raises:
        RecordsError: when it has no epoch, no trial that ran to completion, or none with a finite
            score.
    """
    metric = recording.study.metric
    trials = tuple(trial for trial in recording.trials if trial.epochs)
    if not trials:
        raise _no_epochs(recording, file)
    scored = [
        RankedTrial(trial.number, score(trial.epochs, metric))
        for trial in trials
        if not was_cut_short(trial)
    ]
    if not scored:
        raise _none_complete(recording, len(trials), file)
    sign = -1 if metric.direction == "maximize" else 1
    ranked = sorted(
        (trial for trial in scored if math.isfinite(trial.score)),
        key=lambda trial: (sign * trial.score, trial.number),
    )
    if not ranked:
        raise _no_score(recording, metric, len(scored), file)
    return RankedRecording(recording, trials, tuple(ranked))


def was_cut_short(trial: RecordedTrial) -> bool:
    """Whether the trial would have continued if nothing had stopped it.

    A trial whose loss or gradient was not finite would not.
    """
    last = trial.epochs[-1]
    finite = math.isfinite(last.train_loss) and math.isfinite(last.grad_norm_max)
    broken = last.broken_step is not None and not finite
    return trial.state != "complete" and not broken


def _place_of(recording: Recording, file: Path | None) -> str:
    return f"study {recording.study.name}" if file is None else str(file)


def _no_epochs(recording: Recording, file: Path | None) -> RecordsError:
    in_file = "add the epochs of at least one trial; docs/backtest.md has the format"
    return RecordsError(
        f"{recording.study.name} has no recorded epochs",
        where=_place_of(recording, file),
        found=f"{len(recording.trials)} trials, none with an epoch",
        allowed="trials with epochs",
        next_step="run the study first" if file is None else in_file,
    )


def _none_complete(recording: Recording, trials: int, file: Path | None) -> RecordsError:
    in_file = 'write "state": "complete" for a trial that ran to completion'
    return RecordsError(
        f"no trial of {recording.study.name} ran to completion",
        where=_place_of(recording, file),
        found=f"{trials} trials, all of them cut short",
        allowed="a trial that is complete",
        next_step="run the study without signals and pruner" if file is None else in_file,
    )


def _no_score(
    recording: Recording, metric: MetricConfig, trials: int, file: Path | None
) -> RecordsError:
    in_store = "`search show` has the end of each trial"
    in_file = "record the metric of every epoch that was validated"
    return RecordsError(
        f"no complete trial of {recording.study.name} has a finite {metric.name}",
        where=_place_of(recording, file),
        found=f"{trials} trials whose {metric.name} is NaN, null or infinite",
        allowed="a trial with a finite score",
        next_step=in_store if file is None else in_file,
    )
