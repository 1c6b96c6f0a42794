"""What the sampler learns from stopped trials: the share of epochs of diverging trials.

The same seeded studies are run twice, over a space in which many trials diverge: once a stopped
trial reports its severity to TPE as a constraint, as always; once it is an ordinary pruned trial.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from unittest import mock

from benchmarks import report
from benchmarks.report import Figure, Result
from search.sampling.optuna_trial import optuna_end
from search.session import open_session
from search.worker import ending
from search.worker.context import make_context
from search.worker.loop import train_trials
from search.worker.options import WorkerOptions
from search.worker.stop import StopRequest
from spaces.loader import check
from spaces.study import StudySpec
from storage.location import StoreLocation

SEEDS, QUICK_SEEDS = 6, 1
TRIALS, QUICK_TRIALS = 50, 14
EPOCHS = 8
DEADLINE_S = 1800.0

STUDY: dict[str, Any] = {
    "name": "learning",
    "epochs": EPOCHS,
    "base": {
        "data": {"train_scenes": 48, "val_scenes": 24, "test_scenes": 8, "size": 32},
        "weights": {"method": "sqrt_inv_freq", "clip_ratio": 100},
        "schedule": {"lr": "cosine"},
    },
    "space": {
        "optimizer.lr_multiple": {"kind": "float", "low": 0.1, "high": 1000.0, "log": True},
        "optimizer.momentum": {"kind": "float", "low": 0.5, "high": 0.99},
        "loss.dice_weight": {"kind": "float", "low": 0.0, "high": 0.9},
    },
    "sampler": {"kind": "tpe", "startup_trials": 10},
    "pruner": {"kind": "none"},
    "signals": {"gradient_explosion": {"max_norm": 50.0}},
}


class Outcome(NamedTuple):
    """One study: epochs of diverged trials, all epochs, diverged trials, and the best score."""

    killed_epochs: int
    epochs: int
    killed: int
    best: float


def run(seed: int, trials: int, constrained: bool) -> Outcome:
    """One study, in this process."""
    spec = check(StudySpec, STUDY | {"seed": seed, "trials": trials}, "the benchmark's study")
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as folder, ExitStack() as stack:
        if not constrained:
            stack.enter_context(
                mock.patch.object(
                    ending,
                    "optuna_end",
                    lambda outcome: replace(optuna_end(outcome), constraints={}),
                )
            )
        url = f"sqlite:///{Path(folder) / 'search.db'}"
        session = open_session(spec, StoreLocation.parse(url))
        store = stack.enter_context(session.store)
        train_trials(
            make_context(
                StoreLocation.parse(url),
                WorkerOptions(spec.name),
                store,
                session.stored,
                StopRequest(DEADLINE_S),
            ),
            session.stored,
        )
        ended, records = (
            store.trials.list_trials(session.stored.id),
            store.epochs.study_records(session.stored.id),
        )
    lengths = {trial.id: len(records.get(trial.id, [])) for trial in ended}
    killed = [trial for trial in ended if trial.state == "diverged"]
    scores = [
        trial.score for trial in ended if trial.state == "complete" and trial.score is not None
    ]
    return Outcome(
        sum(lengths[trial.id] for trial in killed),
        sum(lengths.values()),
        len(killed),
        max(scores, default=0.0),
    )


def measure(*, quick: bool, workers: int, seeds: int) -> Result:
    """Every seed, with and without."""
    trials = QUICK_TRIALS if quick else TRIALS
    jobs = [(seed, trials, constrained) for seed in range(seeds) for constrained in (True, False)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(run, *zip(*jobs, strict=True)))
    taught, untaught = found[0::2], found[1::2]
    rows = [
        (
            str(seed),
            *(
                f"{side.killed} of {trials}, {side.killed_epochs / side.epochs:.0%}, "
                f"{side.best:.4f}"
                for side in pair
            ),
        )
        for seed, pair in enumerate(zip(taught, untaught, strict=True))
    ]
    print(
        report.table(
            ("seed", "with constraints: diverged, share of epochs, best", "without"), rows
        ),
        end="\n\n",
        flush=True,
    )
    share, share_without = (
        sum(side.killed_epochs for side in sides) / sum(side.epochs for side in sides)
        for sides in (taught, untaught)
    )
    figures = [
        Figure(
            "share of epochs in trials that diverge",
            share,
            "",
            None,
            peer="killed trials as ordinary pruned ones",
            peer_found=share_without,
        ),
        Figure("studies of each kind", len(taught)),
        Figure(
            "trials that diverge",
            sum(side.killed for side in taught),
            "",
            None,
            peer="killed trials as ordinary pruned ones",
            peer_found=sum(side.killed for side in untaught),
        ),
        Figure(
            "mean best score",
            fmean(side.best for side in taught),
            "",
            None,
            peer="killed trials as ordinary pruned ones",
            peer_found=fmean(side.best for side in untaught),
        ),
    ]
    return Result(figures, {"with": taught, "without": untaught})


def main() -> int:
    """Measure, print and store the figures."""
    parser = report.parser(__doc__ or "")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, help=f"studies of each kind; default {SEEDS}")
    options = parser.parse_args()
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    return report.publish(
        "learning",
        measure(quick=options.quick, workers=options.workers, seeds=seeds),
        quick=options.quick,
    )


if __name__ == "__main__":
    sys.exit(main())
