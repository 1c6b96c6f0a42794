"""What it costs to judge one epoch with every signal on, 300 epochs into a trial."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace
from statistics import median

from benchmarks import report
from benchmarks.history import RECORD
from benchmarks.report import Figure, Result
from search.pruners.signals import find_divergence
from spaces.records import EpochRecord
from spaces.thresholds import SignalsConfig

EPOCHS, CLASSES, BOUND_MS = 300, 19, 1.0
"""As many classes as Cityscapes has."""

COURSES, ROUNDS, QUICK_ROUNDS = 10, 200, 5
AILING_EPOCHS = 20


def course(seed: int, *, ailing: bool) -> list[EpochRecord]:
    """A noisy trial, healthy or slightly ailing; the latter takes longer to judge."""
    rng, records = random.Random(seed), []
    for epoch in range(1, EPOCHS + 1):
        ill = max(0.0, 1 - (EPOCHS - epoch) / AILING_EPOCHS) if ailing else 0.0
        metric = 0.5 * (1 - 0.04 * ill) + rng.gauss(0, 0.01)
        loss, val = 0.5 - 0.1 * ill + rng.gauss(0, 0.002), 0.6 + 0.5 * ill + rng.gauss(0, 0.002)
        classes = (*(metric + rng.gauss(0, 0.05) for _ in range(CLASSES - 2)), 0.0, None)
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
    """Both kinds of trial, judged at their last epochs.

    Raises:
        SystemExit: when a signal fires, because another verdict is not what is measured.
    """
    config, figures, details = SignalsConfig(), [], {}
    for name, ailing in (("healthy", False), ("slightly ailing", True)):
        courses = [course(seed, ailing=ailing) for seed in range(COURSES)]
        times_ms = []
        for turn in range(QUICK_ROUNDS if quick else ROUNDS):
            records = courses[turn % COURSES]
            began = time.perf_counter()
            found = find_divergence(records, config, "maximize")
            times_ms.append(1000 * (time.perf_counter() - began))
            if found is not None:
                raise SystemExit(f"{found.signal} fired on a {name} trial")
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
