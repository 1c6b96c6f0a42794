"""Backtest: which recorded trials the signals and a peer pruner would have stopped.

Signals judge the records of a trial one epoch after the other, as `search.pruners.verdict` did
while it ran; the pruner is Optuna's own over a study in memory. The score of a trial is known where
it ran to completion. Of a trial that was cut short only its epochs are known: a rule can save some
of them, and what the trial would have become counts neither for the rule nor against it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from search.pruners.signals import NEEDS, find_divergence, lacks_numbers
from search.replay.pruner import ReplayedTrial, replay_peers
from search.replay.ranking import RankedRecording, RankedTrial, was_cut_short
from search.report.models import JsonReport
from spaces.config import Direction, ScoreRule
from spaces.recordings import RecordedTrial
from spaces.records import EpochRecord
from spaces.study import PrunerConfig
from spaces.thresholds import SIGNALS, SignalsConfig

LISTED_TRIALS = 6
"""Numbers of trials that a sentence lists."""

ALL_SIGNALS = "all signals"


class Stop(NamedTuple):
    """Where a rule stops a trial.

    Attributes:
        seen: number of the trial's records up to the stop.
        by: the signal or the pruner.
    """

    seen: int
    by: str


Stops = dict[int, Stop]
"""Number of a stopped trial → where it is stopped."""


@dataclass(frozen=True, slots=True)
class KilledTrial:
    """A trial that a rule would have stopped."""

    number: int
    epoch: int
    by: str
    epochs_saved: int


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What a rule, or several together, would have done.

    Attributes:
        rule: a signal, a pruner, or the name of several together.
        unjudged: trials without the numbers that the rule needs; None for several together.
        hours_saved: device-hours; None where the duration of epochs was not recorded.
        best_killed: numbers of the best trials that would have been stopped.
        found: the best trial that would have run to completion; None where none would.
    """

    rule: str
    killed: tuple[KilledTrial, ...]
    unjudged: tuple[int, ...] | None
    epochs_saved: int
    share_saved: float
    hours_saved: float | None
    best_killed: tuple[int, ...]
    found: RankedTrial | None


@dataclass(frozen=True, slots=True)
class Backtest(JsonReport):
    """Recorded trials, and what every rule would have done to them.

    Attributes:
        trials: number of those with an epoch; `epochs` and `hours` are what they took in all.
        ranked: number of those that ran to completion with a finite score.
        best: the best tenth of the ranked trials, the best first.
        unknown: what these records cannot show, a sentence each.
    """

    study: str
    metric: str
    direction: Direction
    score_rule: ScoreRule
    trials: int
    ranked: int
    epochs: int
    hours: float | None
    best: tuple[RankedTrial, ...]
    rows: tuple[RuleResult, ...]
    unknown: tuple[str, ...]


def run_backtest(
    recorded: RankedRecording, signals: SignalsConfig, pruner: PrunerConfig
) -> Backtest:
    """Replay recorded trials through every enabled signal, the pruner, and all of them together.

    Args:
        recorded: the trials.
        signals: which signals are enabled, and their thresholds.
        pruner: configuration of the peer pruner.
    """
    rows = _signal_results(recorded, signals)
    together = find_signal_stops(recorded.trials, signals, recorded.direction)
    if len(rows) > 1:
        rows.append(summarize_rule(recorded, ALL_SIGNALS, together))
    if pruner.kind != "none":
        alone = find_peer_stops(recorded, pruner, {})
        has_signals = bool(rows)
        rows.append(summarize_rule(recorded, pruner.kind, alone))
        if has_signals:
            everything = together | find_peer_stops(recorded, pruner, together)
            rows.append(summarize_rule(recorded, f"{ALL_SIGNALS} + {pruner.kind}", everything))
    study = recorded.recording.study
    records = [record for trial in recorded.trials for record in trial.epochs]
    return Backtest(
        study=study.name,
        metric=study.metric.name,
        direction=recorded.direction,
        score_rule=study.metric.score,
        trials=len(recorded.trials),
        ranked=len(recorded.ranked),
        epochs=len(records),
        hours=_device_hours(records),
        best=recorded.best_trials(),
        rows=tuple(rows),
        unknown=tuple(_explain_unknown(recorded, rows, pruner)),
    )


def _signal_results(recorded: RankedRecording, signals: SignalsConfig) -> list[RuleResult]:
    """The result of every enabled signal on its own."""
    rows = []
    for name in SIGNALS:
        if not getattr(signals, name).enabled:
            continue
        stops = find_signal_stops(recorded.trials, only_signal(signals, name), recorded.direction)
        unjudged = [trial.number for trial in recorded.trials if lacks_numbers(name, trial.epochs)]
        rows.append(summarize_rule(recorded, name, stops, unjudged))
    return rows


def only_signal(signals: SignalsConfig, name: str) -> SignalsConfig:
    """The same thresholds with every other signal disabled."""
    disabled = {
        other: getattr(signals, other).model_copy(update={"enabled": False})
        for other in SIGNALS
        if other != name
    }
    return signals.model_copy(update=disabled)


def find_signal_stops(
    trials: Collection[RecordedTrial], signals: SignalsConfig, direction: Direction
) -> Stops:
    """Find the trials that the signals stop, judged after every epoch as in a running study."""
    stops: Stops = {}
    for trial in trials:
        for seen in range(1, len(trial.epochs) + 1):
            evidence = find_divergence(trial.epochs[:seen], signals, direction)
            if evidence is not None:
                stops[trial.number] = Stop(seen, evidence.signal)
                break
    return stops


def find_peer_stops(recorded: RankedRecording, pruner: PrunerConfig, signal_stops: Stops) -> Stops:
    """Find the trials that the pruner stops, of those that no signal stops before."""
    scores = recorded.scores
    ends = {number: stop.seen for number, stop in signal_stops.items()}
    trials = [
        ReplayedTrial(trial.number, trial.epochs, ends.get(trial.number), scores.get(trial.number))
        for trial in recorded.trials
    ]
    name = recorded.recording.study.name
    pruned = replay_peers(trials, pruner, recorded.planned_epochs, recorded.direction, name)
    return {number: Stop(seen, pruner.kind) for number, seen in pruned.items()}


def summarize_rule(
    recorded: RankedRecording, rule: str, stops: Stops, unjudged: Sequence[int] | None = None
) -> RuleResult:
    """Summarize what a rule would have saved, and which of the best trials it would have stopped.

    Args:
        recorded: the trials.
        rule: a signal, a pruner, or the name of several together.
        stops: where it stops which trials.
        unjudged: numbers of the trials that it cannot judge; None for several rules together.
    """
    killed: list[KilledTrial] = []
    saved: list[EpochRecord] = []
    for trial in recorded.trials:
        if trial.number in stops:
            stop = stops[trial.number]
            epoch = trial.epochs[stop.seen - 1].epoch
            rest = trial.epochs[stop.seen :]
            killed.append(KilledTrial(trial.number, epoch, stop.by, len(rest)))
            saved += rest
    survivors = [trial for trial in recorded.ranked if trial.number not in stops]
    best = [trial.number for trial in recorded.best_trials()]
    return RuleResult(
        rule=rule,
        killed=tuple(killed),
        unjudged=None if unjudged is None else tuple(unjudged),
        epochs_saved=len(saved),
        share_saved=len(saved) / sum(len(trial.epochs) for trial in recorded.trials),
        hours_saved=_device_hours(saved),
        best_killed=tuple(number for number in best if number in stops),
        found=survivors[0] if survivors else None,
    )


def _device_hours(records: Iterable[EpochRecord]) -> float | None:
    hours = sum(record.seconds for record in records) / 3600
    return None if math.isnan(hours) else hours


def _explain_unknown(
    recorded: RankedRecording, rows: Sequence[RuleResult], pruner: PrunerConfig
) -> Iterator[str]:
    """What these records cannot show, a sentence each."""
    cut = [trial.number for trial in recorded.trials if was_cut_short(trial)]
    if cut:
        yield (
            f"{_name_trials(cut)} cut short in the record: how it would have ended is unknown, so"
            " such a trial is not ranked, and only its recorded epochs can be saved"
        )
    if cut and pruner.kind != "none":
        yield (
            f"{_name_trials(cut)} no peers to the {pruner.kind} pruner, though some might have"
            " become peers"
        )
    empty = len(recorded.recording.trials) - len(recorded.trials)
    if empty:
        yield f"{empty} recorded without an epoch: nothing to replay"
    for row in rows:
        if row.unjudged:
            trials = _name_trials(row.unjudged)
            yield f"{row.rule}: {trials} not judged, as the record has no {NEEDS[row.rule].numbers}"
    if pruner.kind != "none":
        yield (
            "the pruner's peers are those of a single worker, trial by trial; with several workers"
            " fewer trials have finished at a time"
        )


def _name_trials(numbers: Sequence[int]) -> str:
    """`trial 3 was`, or `15 trials (3, 4, … and 9 more) were`."""
    if len(numbers) == 1:
        return f"trial {numbers[0]} was"
    listed = ", ".join(map(str, numbers[:LISTED_TRIALS]))
    if len(numbers) > LISTED_TRIALS:
        listed += f" and {len(numbers) - LISTED_TRIALS} more"
    return f"{len(numbers)} trials ({listed}) were"
