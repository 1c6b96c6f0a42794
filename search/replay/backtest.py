"""Backtest: which recorded trials the signals and a peer pruner would have stopped.

Signals judge the records of a trial one epoch after the other and spare it for the same reasons as
`search.pruners.verdict` does while it runs; the pruner is Optuna's own over a study in memory. The
score of a trial is known where it ran to completion. Of a trial that was cut short only its epochs
are known: a rule can save some of them, and what the trial would have become counts neither for the
rule nor against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from search.pruners.signals import NEEDS, lacks_numbers
from search.replay.pruner import Stops
from search.replay.ranking import RankedRecording, RankedTrial, was_cut_short
from search.replay.stops import Firing, ReplayedTrial, find_firings, replay_trials
from search.report.json_report import JsonReport
from spaces.config import Direction, ScoreRule
from spaces.records import EpochRecord
from spaces.study import PrunerConfig
from spaces.thresholds import SIGNALS, SignalsConfig

LISTED_TRIALS = 6
"""Numbers of trials that a sentence lists."""

ALL_SIGNALS = "all signals"


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
    firings = find_all_firings(recorded, signals)
    together = find_stops(recorded, firings, signals)
    if len(rows) > 1:
        rows.append(summarize_rule(recorded, ALL_SIGNALS, together))
    if pruner.kind != "none":
        alone = find_peer_stops(recorded, pruner)
        has_signals = bool(rows)
        rows.append(summarize_rule(recorded, pruner.kind, alone))
        if has_signals:
            everything = find_stops(recorded, firings, signals, pruner)
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
        stops = find_signal_stops(recorded, only_signal(signals, name))
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


Firings = Mapping[int, Iterable[Firing]]
"""Number of a trial → where the signals fire in it, before it is compared with its peers."""

NO_PRUNER = PrunerConfig(kind="none")


def find_all_firings(recorded: RankedRecording, signals: SignalsConfig) -> dict[int, list[Firing]]:
    """Find where the signals fire in every trial, which does not depend on the trials' order."""
    return {number: list(found) for number, found in _iter_firings(recorded, signals).items()}


JudgedAfter = Mapping[int, Sequence[int]]
"""Number of a trial → the numbers of records after which it is judged."""


def _iter_firings(
    recorded: RankedRecording, signals: SignalsConfig, judged_after: JudgedAfter | None = None
) -> dict[int, Iterator[Firing]]:
    metric = recorded.recording.study.metric
    epochs = recorded.planned_epochs
    judged = judged_after or {}
    return {
        trial.number: find_firings(trial.epochs, signals, metric, epochs, judged.get(trial.number))
        for trial in recorded.trials
    }


def find_signal_stops(
    recorded: RankedRecording, signals: SignalsConfig, judged_after: JudgedAfter | None = None
) -> Stops:
    """Find the trials that the signals stop, judged after every epoch as in a running study.

    Args:
        recorded: the trials.
        signals: which signals are enabled, and their thresholds.
        judged_after: from `stops.find_unspared`, if it is known and no signal on steps is enabled;
            it saves time where many thresholds are tried.
    """
    return find_stops(recorded, _iter_firings(recorded, signals, judged_after), signals)


def find_peer_stops(recorded: RankedRecording, pruner: PrunerConfig) -> Stops:
    """Find the trials that the pruner stops on its own."""
    return find_stops(recorded, {}, SignalsConfig(), pruner)


def find_stops(
    recorded: RankedRecording,
    firings: Firings,
    signals: SignalsConfig,
    pruner: PrunerConfig = NO_PRUNER,
) -> Stops:
    """Find the trials that the signals and the pruner stop, in the order of the recording.

    Args:
        recorded: the trials.
        firings: of the signals; a trial that is left out has none.
        signals: which trials are spared.
        pruner: configuration of the peer pruner.
    """
    scores = recorded.scores
    trials = [
        ReplayedTrial(
            trial.number, trial.epochs, firings.get(trial.number, ()), scores.get(trial.number)
        )
        for trial in recorded.trials
    ]
    name = recorded.recording.study.name
    return replay_trials(
        trials, signals.sparing, pruner, recorded.planned_epochs, recorded.direction, name
    )


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
