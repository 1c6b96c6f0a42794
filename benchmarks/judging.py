"""What it costs to judge one epoch with every signal on, 300 epochs into a trial.

In a trial that is spared a signal fires after every epoch, and the trial is compared with its
peers: the most that judging costs.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace
from statistics import median

from benchmarks import report
from benchmarks.history import RECORD
from benchmarks.report import Figure, Result
from search.pruners.verdict import judge
from spaces.records import EpochRecord
from spaces.study import StudySpec

EPOCHS, CLASSES, BOUND_MS = 300, 19, 1.0
"""As many classes as Cityscapes has."""

COURSES, ROUNDS, QUICK_ROUNDS = 10, 200, 5
AILING_EPOCHS = 20

SPEC = StudySpec.model_validate(
    {
        "name": "judging",
        "epochs": 2 * EPOCHS,
        "space": {"loss.gamma": {"kind": "float", "low": 0, "high": 5}},
    }
)
PEERS = [0.3 + 0.0001 * peer for peer in range(1_000)]
"""Metrics of the peers, below those of the trials."""


def course(seed: int, kind: str) -> list[EpochRecord]:
    """A noisy trial: healthy, slightly ailing, or with lost classes, for which it is spared."""
    ailing = kind == "slightly ailing"
    rng, records = random.Random(seed), []
    for epoch in range(1, EPOCHS + 1):
        ill = max(0.0, 1 - (EPOCHS - epoch) / AILING_EPOCHS) if ailing else 0.0
        metric = 0.5 * (1 - 0.04 * ill) + rng.gauss(0, 0.01)
        loss, val = 0.5 - 0.1 * ill + rng.gauss(0, 0.002), 0.6 + 0.5 * ill + rng.gauss(0, 0.002)
        classes = (*(metric + rng.gauss(0, 0.05) for _ in range(CLASSES - 2)), 0.0, None)
        if kind == "spared" and epoch > EPOCHS - AILING_EPOCHS:
            classes = (0.9, *(0.0 for _ in range(CLASSES - 2)), None)
        records.append(
            replace(
                RECORD,
                epoch=epoch,
                metric=metric,
                class_metric=classes,
                train_loss=loss,
                ce_loss=loss,
                dice_loss=loss,
                val_loss=val,
            )
        )
    return records


def measure(*, quick: bool) -> Result:
    """The kinds of trial, judged at their last epochs.

    Raises:
        SystemExit: when the verdict is another one, which is not what is measured.
    """
    figures, details = [], {}
    for name in ("healthy", "slightly ailing", "spared"):
        courses = [course(seed, name) for seed in range(COURSES)]
        times_ms = []
        for turn in range(QUICK_ROUNDS if quick else ROUNDS):
            records = courses[turn % COURSES]
            began = time.perf_counter()
            verdict = judge(records, SPEC, lambda: None, lambda epoch: PEERS)
            times_ms.append(1000 * (time.perf_counter() - began))
            fired = verdict.evidence is not None
            if verdict.action != "continue" or fired != (name == "spared"):
                raise SystemExit(f"the verdict on a {name} trial is {verdict}")
        figures.append(
            Figure(
                f"judging an epoch with all signals on, {EPOCHS} epochs in, {name} trial, median",
                median(times_ms),
                "ms",
                BOUND_MS,
            )
        )
        details[name] = {"worst_ms": max(times_ms), "rounds": len(times_ms)}
    return Result(figures, details)


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("judging", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
