"""What signals and a peer pruner would have done to recorded trials: whom they would have killed, and what that would have saved.

Signals judge the first epochs of a trial as `search.pruners.verdict` did while it ran; the pruner is Optuna's own over a study in
memory. A trial's eventual score is known where it ran to its end. Of one that was cut short only its epochs are known:
a rule can be credited with those that it saves, and is neither praised nor blamed for what the trial would have become.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.pruners.signals import NEEDS, fired, unjudged
from search.replay.pruner import Entrant, replay_peers
from search.report.models import Told
from spaces.config import Direction, ScoreRule
from spaces.errors import RecordsError
from spaces.recordings import RecordedTrial, Recording
from spaces.records import EpochRecord, score
from spaces.study import PrunerConfig
from spaces.thresholds import SIGNALS, SignalsConfig

BEST_SHARE = 0.1
"""Of the trials that ran to their end: those whose death would be a loss."""

SHOWN = 6
"""Numbers of trials that a sentence lists."""

Kills = dict[int, tuple[int, str]]
"""Number of a killed trial → how many of its records it lived to see, and by whom it was killed."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A trial that ran to its end, and its eventual score."""

    number: int
    score: float


@dataclass(frozen=True, slots=True)
class Killed:
    """A trial that a rule would have killed."""

    number: int
    epoch: int
    by: str
    epochs_saved: int


@dataclass(frozen=True, slots=True)
class Row:
    """What one rule, or several together, would have done.

    Attributes:
        rule: a signal, a pruner, or what they are called together.
        unjudged: trials that lack what the rule needs; left at None for several together.
        hours_saved: device-hours; None where the records do not tell how long an epoch took.
        best_killed: those of the eventual best that would have died.
        found: the best trial that would have lived to its end; None when none would.
    """

    rule: str
    killed: tuple[Killed, ...]
    unjudged: tuple[int, ...] | None
    epochs_saved: int
    share_saved: float
    hours_saved: float | None
    best_killed: tuple[int, ...]
    found: Ranked | None


@dataclass(frozen=True, slots=True)
class Backtest(Told):
    """Recorded trials and what every rule would have done to them.

    Attributes:
        trials: those with an epoch; `epochs` and `hours` are what they took.
        best: the eventual best tenth of the trials that ran to their end, the best first.
        unknown: what cannot be known from these records, a sentence each.
    """

    study: str
    metric: str
    direction: Direction
    score_rule: ScoreRule
    trials: int
    ranked: int
    epochs: int
    hours: float | None
    best: tuple[Ranked, ...]
    rows: tuple[Row, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Field:
    """Recorded trials as they are judged: those with an epoch, in order of their numbers, and how they rank."""

    recording: Recording
    trials: tuple[RecordedTrial, ...]
    ranked: tuple[Ranked, ...]

    @property
    def direction(self) -> Direction:
        """Of the metric."""
        return self.recording.study.metric.direction

    @property
    def epochs_planned(self) -> int:
        """Of a trial; those of the longest where nobody said."""
        return self.recording.study.epochs or max(trial.epochs[-1].epoch for trial in self.trials)

    def best(self, share: float = BEST_SHARE) -> tuple[Ranked, ...]:
        """So large a share of the ranked trials, rounded up."""
        return self.ranked[: math.ceil(share * len(self.ranked))]


def make_field(recording: Recording, file: Path | None = None) -> Field:
    """The trials of a recording, ranked.

    Args:
        recording: of the trials.
        file: that it was read from; None for a study in the store.

    Raises:
        RecordsError: when there is no epoch in it, no trial that ran to its end, or none with a score.
    """
    name, metric = recording.study.name, recording.study.metric
    where = f"study {name}" if file is None else str(file)
    trials = tuple(trial for trial in recording.trials if trial.epochs)
    if not trials:
        next_step = (
            "run the study first"
            if file is None
            else "add the epochs of at least one trial; docs/backtest.md has the format"
        )
        raise RecordsError(
            f"{name} has no recorded epochs",
            where=where,
            found=f"{len(recording.trials)} trials, none with an epoch",
            allowed="trials with epochs",
            next_step=next_step,
        )
    scored = [
        Ranked(trial.number, score(trial.epochs, metric))
        for trial in trials
        if not cut_short(trial)
    ]
    if not scored:
        next_step = (
            "run the study with its kills off"
            if file is None
            else 'say of a trial that ran to its end that it is: "state": "complete"'
        )
        raise RecordsError(
            f"no trial of {name} ran to its end",
            where=where,
            found=f"{len(trials)} trials, all of them cut short",
            allowed="a trial that is complete",
            next_step=next_step,
        )
    sign = -1 if metric.direction == "maximize" else 1
    ranked = sorted(
        (held for held in scored if math.isfinite(held.score)),
        key=lambda held: (sign * held.score, held.number),
    )
    if not ranked:
        next_step = (
            "`search show` tells how its trials ended"
            if file is None
            else "record the metric of every epoch that was validated"
        )
        raise RecordsError(
            f"no trial of {name} that ran to its end has a {metric.name} that is a number",
            where=where,
            found=f"{len(scored)} trials whose {metric.name} is NaN, null or infinite",
            allowed="a trial with a finite score",
            next_step=next_step,
        )
    return Field(recording, trials, tuple(ranked))


def cut_short(trial: RecordedTrial) -> bool:
    """Whether the trial would have gone on if it had been let; one whose loss or gradient was not finite would not."""
    last = trial.epochs[-1]
    broken = last.broken_step is not None and not (
        math.isfinite(last.train_loss) and math.isfinite(last.grad_norm_max)
    )
    return trial.state != "complete" and not broken


def backtest(field: Field, signals: SignalsConfig, pruner: PrunerConfig) -> Backtest:
    """Every signal that is on by itself, all of them together, the pruner by itself, and everything together."""
    alone = {
        name: signal_kills(field.trials, only(signals, name), field.direction)
        for name in SIGNALS
        if getattr(signals, name).enabled
    }
    rows = [
        make_row(
            field,
            name,
            kills,
            [trial.number for trial in field.trials if unjudged(name, trial.epochs)],
        )
        for name, kills in alone.items()
    ]
    together = signal_kills(field.trials, signals, field.direction)
    if len(alone) > 1:
        rows.append(make_row(field, "all signals", together))
    if pruner.kind != "none":
        rows.append(make_row(field, pruner.kind, peer_kills(field, pruner, {})))
        rows += (
            [
                make_row(
                    field,
                    f"all signals + {pruner.kind}",
                    together | peer_kills(field, pruner, together),
                )
            ]
            if alone
            else []
        )
    study = field.recording.study
    return Backtest(
        study=study.name,
        metric=study.metric.name,
        direction=field.direction,
        score_rule=study.metric.score,
        trials=len(field.trials),
        ranked=len(field.ranked),
        epochs=sum(len(trial.epochs) for trial in field.trials),
        hours=_hours(record for trial in field.trials for record in trial.epochs),
        best=field.best(),
        rows=tuple(rows),
        unknown=tuple(_unknown(field, rows, pruner)),
    )


def only(signals: SignalsConfig, name: str) -> SignalsConfig:
    """The same thresholds with every other signal switched off."""
    off = {
        other: getattr(signals, other).model_copy(update={"enabled": False})
        for other in SIGNALS
        if other != name
    }
    return signals.model_copy(update=off)


def signal_kills(
    trials: Collection[RecordedTrial], signals: SignalsConfig, direction: Direction
) -> Kills:
    """Whom the signals kill, judged after every epoch as in a running study."""
    kills: Kills = {}
    for trial in trials:
        for seen in range(1, len(trial.epochs) + 1):
            evidence = fired(trial.epochs[:seen], signals, direction)
            if evidence is not None:
                kills[trial.number] = seen, evidence.signal
                break
    return kills


def peer_kills(field: Field, pruner: PrunerConfig, killed: Kills) -> Kills:
    """Whom the pruner kills of those that no signal has killed before."""
    scores = {held.number: held.score for held in field.ranked}
    entrants = [
        Entrant(
            trial.number,
            trial.epochs,
            killed[trial.number][0] if trial.number in killed else None,
            scores.get(trial.number),
        )
        for trial in field.trials
    ]
    pruned = replay_peers(
        entrants, pruner, field.epochs_planned, field.direction, field.recording.study.name
    )
    return {number: (seen, pruner.kind) for number, seen in pruned.items()}


def make_row(field: Field, rule: str, kills: Kills, unjudged: Sequence[int] | None = None) -> Row:
    """What a rule has done that killed those."""
    killed: list[Killed] = []
    saved: list[EpochRecord] = []
    for trial in field.trials:
        if trial.number in kills:
            seen, by = kills[trial.number]
            killed.append(
                Killed(trial.number, trial.epochs[seen - 1].epoch, by, len(trial.epochs) - seen)
            )
            saved += trial.epochs[seen:]
    alive = [held for held in field.ranked if held.number not in kills]
    return Row(
        rule=rule,
        killed=tuple(killed),
        unjudged=None if unjudged is None else tuple(unjudged),
        epochs_saved=len(saved),
        share_saved=len(saved) / sum(len(trial.epochs) for trial in field.trials),
        hours_saved=_hours(saved),
        best_killed=tuple(held.number for held in field.best() if held.number in kills),
        found=alive[0] if alive else None,
    )


def _hours(records: Iterable[EpochRecord]) -> float | None:
    hours = sum(record.seconds for record in records) / 3600
    return None if math.isnan(hours) else hours


def _unknown(field: Field, rows: Sequence[Row], pruner: PrunerConfig) -> Iterator[str]:
    """What these records cannot tell."""
    cut = [trial.number for trial in field.trials if cut_short(trial)]
    if cut:
        yield f"{_trials(cut)} cut short in the record: what they would have become is unknown, so they are not ranked, and only the epochs that they had can be saved"
    if cut and pruner.kind != "none":
        yield f"{_trials(cut)} no peers to the {pruner.kind} pruner, though some might have become peers"
    empty = len(field.recording.trials) - len(field.trials)
    if empty:
        yield f"{empty} recorded without an epoch: nothing to replay"
    for row in rows:
        if row.unjudged:
            yield f"{row.rule}: {_trials(row.unjudged)} not judged, for want of {NEEDS[row.rule]} in the record"
    if pruner.kind != "none":
        yield "the pruner's peers are those of a single worker, trial by trial; several workers see fewer finished ones"


def _trials(numbers: Sequence[int]) -> str:
    """`trial 3 was`, `trials 3, 4 and 9 more were`."""
    if len(numbers) == 1:
        return f"trial {numbers[0]} was"
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"{len(numbers)} trials ({', '.join(map(str, numbers[:SHOWN]))}{more}) were"
