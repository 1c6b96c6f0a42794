"""Planted faults, and whether the diagnosis names them first: `python -m benchmarks.faults`.

Each kind of fault is trained on the embedded data with several seeds and two sizes of model, judged
after every epoch by the default signals as a worker would, and diagnosed where it was stopped, or
at its end. Presets without a fault are trained as well: no signal may stop one. The thresholds of
the diagnosis were set with other seeds (those from 100 on).

Trained trials are kept in a file, so that an interrupted run continues. With `--kinds`, `--models`
or `--from` only a part is measured, and no result is written.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.planted import BASE, FAULTS, MODELS, SPOILT
from benchmarks.planted_trials import (
    DEFAULT_FILE,
    Job,
    PlantedTrial,
    healthy_jobs,
    train_missing,
)
from benchmarks.report import Figure, Result
from objectives.data.loading import _EpochOrder
from search.diagnosis.rank_causes import diagnose

SEEDS, QUICK_SEEDS = 12, 1
HEALTHY, QUICK_HEALTHY = 90, 2
TO_REACH = 0.9
TO_REACH_PER_KIND = 0.6
LARGEST_GAP = 0.1
BINS = 5
FEWEST_IN_BIN = 10
"""Trials in a bin below which its share says nothing."""


@dataclass(frozen=True)
class Outcome:
    """One trial: the signal that stopped it (empty if none did), when, and the diagnosis."""

    job: Job
    signal: str
    epoch: int
    step: int | None
    cause: str
    confidence: float

    @property
    def is_right(self) -> bool:
        """Whether the planted cause is named first."""
        return self.cause == self.job.fault.cause


def diagnose_trial(trial: PlantedTrial) -> Outcome:
    """Judge and diagnose a trial as a worker would."""
    evidence, records = trial.judged()
    found = diagnose(evidence, records, trial.config, trial.counts)
    return Outcome(
        trial.job,
        "" if evidence is None else evidence.signal,
        records[-1].epoch,
        records[-1].broken_step,
        found.cause,
        found.confidence,
    )


def make_result(outcomes: Sequence[Outcome]) -> Result:
    """Print the tables, and make the figures."""
    planted = [outcome for outcome in outcomes if not outcome.job.is_healthy]
    healthy = [outcome for outcome in outcomes if outcome.job.is_healthy]
    kinds = list(dict.fromkeys(outcome.job.kind for outcome in planted))
    rows = [_describe_kind(kind, planted) for kind in kinds]
    _print_table(("planted", "cause", "named first", "named instead", "stopped by"), rows)
    bins = make_bins(planted)
    _print_table(("stated confidence", "trials", "mean", "right"), [each.cells() for each in bins])
    stopped = [outcome for outcome in healthy if outcome.signal]
    for outcome in stopped:
        print(f"a healthy trial was stopped: {outcome}")
    shares = [_share_right([each for each in planted if each.job.kind == kind]) for kind in kinds]
    gaps = [abs(each.stated - each.right) for each in bins if each.trials >= FEWEST_IN_BIN]
    figures = [
        Figure("kinds of planted faults", len(kinds), "", 30, at_least=True),
        Figure("trials with a planted fault", len(planted)),
        Figure(
            "share whose planted cause is named first",
            _share_right(planted),
            "",
            TO_REACH,
            at_least=True,
        ),
        Figure(
            "the same, of the kind with the lowest share",
            min(shares, default=0.0),
            "",
            TO_REACH_PER_KIND,
            at_least=True,
        ),
        Figure(
            f"largest gap between stated confidence and share right, in bins of {FEWEST_IN_BIN}"
            " trials or more",
            max(gaps, default=0.0),
            "",
            LARGEST_GAP,
        ),
        Figure(f"healthy trials of {len(healthy)} stopped by a signal", len(stopped), "", 0),
        Figure(
            "steps from a planted NaN to the end, at most",
            max((_late(each) for each in planted if each.job.kind == "NaN in an image"), default=0),
            "",
            10,
        ),
    ]
    return Result(figures, {"table": rows, "bins": bins, "outcomes": [*map(_list_of, outcomes)]})


def _describe_kind(kind: str, planted: Sequence[Outcome]) -> tuple[str, ...]:
    own = [outcome for outcome in planted if outcome.job.kind == kind]
    causes = Counter(outcome.cause for outcome in own)
    signals = Counter(outcome.signal or "none" for outcome in own)
    expected = FAULTS[kind].cause
    hits = causes.pop(expected, 0)
    missed = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
    stops = ", ".join(f"{signal} {count}" for signal, count in signals.most_common())
    return kind, expected, f"{hits} of {len(own)}", missed, stops


class Bin(NamedTuple):
    """Trials of similar confidence.

    Attributes:
        name: range of the confidence.
        trials: how many.
        stated: their mean confidence.
        right: share in which the planted cause was named first.
    """

    name: str
    trials: int
    stated: float
    right: float

    def cells(self) -> tuple[str, ...]:
        """The row of a table."""
        if not self.trials:
            return self.name, "0", "", ""
        return self.name, str(self.trials), f"{self.stated:.0%}", f"{self.right:.0%}"


def make_bins(outcomes: Sequence[Outcome]) -> list[Bin]:
    """Group trials by confidence: five bins of equal width, then five of equal numbers.

    Most diagnoses are sure, so the first five have few trials in their lower bins.
    """
    bins = []
    for number in range(BINS):
        own = [each for each in outcomes if min(4, int(BINS * each.confidence)) == number]
        bins.append(_make_bin(f"{number / BINS:.0%} to {(number + 1) / BINS:.0%}", own))
    ranked = sorted(outcomes, key=lambda each: each.confidence)
    for number in range(BINS):
        own = ranked[len(ranked) * number // BINS : len(ranked) * (number + 1) // BINS]
        bins.append(_make_bin(f"fifth {number + 1} of the trials", own))
    return bins


def _make_bin(name: str, outcomes: Sequence[Outcome]) -> Bin:
    stated = sum(each.confidence for each in outcomes) / len(outcomes) if outcomes else 0.0
    return Bin(name, len(outcomes), stated, _share_right(outcomes))


def _share_right(outcomes: Sequence[Outcome]) -> float:
    return sum(each.is_right for each in outcomes) / len(outcomes) if outcomes else 0.0


def _list_of(outcome: Outcome) -> list[Any]:
    job = outcome.job
    found = [outcome.signal, outcome.epoch, outcome.step, outcome.cause]
    return [job.kind, job.model, job.seed, *found, round(outcome.confidence, 3)]


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    print(report.table(head, rows), end="\n\n", flush=True)


def _late(outcome: Outcome) -> float:
    """Optimizer steps from the batch with the NaN, in the first epoch, to the end of the trial."""
    if outcome.epoch != 1 or outcome.step is None:
        return 1e6
    order = _EpochOrder(BASE["data"]["train_scenes"], 8, outcome.job.seed)
    order.epoch = 1
    first_bad_step = next(
        step for step, keys in enumerate(order, 1) if any(index == SPOILT for index, _ in keys)
    )
    return outcome.step - first_bad_step


def main() -> int:
    """Measure, print and store the figures."""
    parser = report.parser(__doc__ or "")
    parser.add_argument("--seeds", type=int, help=f"seeds per kind and model; default {SEEDS}")
    parser.add_argument("--from", dest="start", type=int, default=0, help="the first seed")
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, metavar="KIND", help="only these")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS], help="only these")
    parser.add_argument("--healthy", type=int, help=f"trials without a fault; default {HEALTHY}")
    parser.add_argument("--trials", type=Path, default=DEFAULT_FILE, help="where records are kept")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    healthy = options.healthy
    if healthy is None:
        healthy = 0 if options.kinds else QUICK_HEALTHY if options.quick else HEALTHY
    jobs = [
        Job(kind, model, seed)
        for seed in range(options.start, options.start + seeds)
        for kind in options.kinds or FAULTS
        for model in options.models
    ]
    jobs += healthy_jobs(healthy, options.start)
    trials = train_missing(jobs, options.trials, options.workers)
    result = make_result([diagnose_trial(trial) for trial in trials])
    if options.kinds or len(options.models) < len(MODELS) or options.start:
        print("a part of the benchmark: no result is written")
        return 0
    return report.publish("faults", result, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
