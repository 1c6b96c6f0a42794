"""How long a warm worker leaves its device idle between two trials.

The worker's own loop runs in this process, on a study of one-epoch trials over few scenes. A gap
begins when the last write of a trial to the store is done, and ends when the optimizer of the next
trial is about to take its first step; the first batch's forward and backward pass lies within.
Building the model is measured by itself, since any tuner has to do it.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from benchmarks import report
from benchmarks.report import Figure, Result
from benchmarks.stopwatch import Stopwatch, Target
from search.session import open_session
from search.worker.context import make_context
from search.worker.loop import train_trials
from search.worker.options import WorkerOptions
from search.worker.stop import StopRequest
from spaces.loader import load_study
from storage.location import StoreLocation

BOUND_MS = 100.0
TRIALS, QUICK_TRIALS = 31, 4
DEADLINE_S = 300.0

FEW_SCENES = {"base.data.train_scenes": 16, "base.data.val_scenes": 8, "base.data.test_scenes": 8}
"""Two batches an epoch: the gap is measured, not the training."""

BUILD, FIRST_BATCH = "building the model", "until the first batch"


def measure(*, quick: bool) -> Result:
    """Run the worker's loop over one-epoch trials."""
    watch = Stopwatch()
    trials = QUICK_TRIALS if quick else TRIALS
    spec = load_study("focal_gamma", {"epochs": 1, "trials": trials, **FEW_SCENES})
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as folder:
        url = f"sqlite:///{Path(folder) / 'search.db'}"
        session = open_session(spec, StoreLocation.parse(url))
        with session.store as store:
            bench = make_context(
                StoreLocation.parse(url),
                WorkerOptions(spec.name),
                store,
                session.stored,
                StopRequest(DEADLINE_S),
            )
            last_write = mock.patch.object(
                store.leases, "finish_trial", _then(store.leases.finish_trial, watch.start)
            )
            with (
                last_write,
                _first_step(watch),
                _first_batch(watch),
                watch.watching(*_parts(bench)),
            ):
                train_trials(bench, session.stored)
    return make_result(watch)


def make_result(watch: Stopwatch) -> Result:
    """The gaps, and what they are made of.

    Raises:
        SystemExit: when there was no gap.
    """
    if not watch.laps_ms:
        raise SystemExit(f"no second trial began within {DEADLINE_S:.0f} s")
    builds_ms = watch.parts_ms[BUILD]
    own_ms = [gap - build for gap, build in zip(watch.laps_ms, builds_ms, strict=True)]
    to_batch_ms = [
        gap - build for gap, build in zip(watch.parts_ms[FIRST_BATCH], builds_ms, strict=True)
    ]
    rows = [(path, f"{time_ms:.2f}") for path, time_ms in watch.medians_ms().items()]
    print(
        report.table(
            ("call within the gap", "median, ms"),
            [*rows, ("the whole gap", f"{median(watch.laps_ms):.2f}")],
        ),
        end="\n\n",
        flush=True,
    )
    figures = [
        Figure(
            "last write → first optimizer step, without building the model, median",
            median(own_ms),
            "ms",
            BOUND_MS,
        ),
        Figure("the same, worst gap", max(own_ms), "ms"),
        Figure(
            "last write → first batch, without building the model, median",
            median(to_batch_ms),
            "ms",
        ),
        Figure("building the model, median", median(builds_ms), "ms"),
        Figure("gaps measured", len(own_ms)),
    ]
    return Result(
        figures,
        {"gaps_ms": own_ms, "building_ms": builds_ms, "median_ms_by_call": watch.medians_ms()},
    )


def _then(function: Callable[..., Any], after: Callable[[], None]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        found = function(*args, **options)
        after()
        return found

    return call


@contextmanager
def _first_step(watch: Stopwatch) -> Iterator[None]:
    """End the lap when an optimizer is about to step; later steps of the trial have no effect."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    hook = register_optimizer_step_pre_hook(lambda *_: watch.stop())
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _first_batch(watch: Stopwatch) -> Iterator[None]:
    """Marks the moment at which a training gets its first batch."""
    from objectives.data.loading import Batches

    epoch = Batches.epoch

    def batches(self: Batches, number: int, skip: int = 0) -> Iterator[Any]:
        for batch in epoch(self, number, skip):
            watch.mark(FIRST_BATCH)
            yield batch

    with mock.patch.object(Batches, "epoch", batches):
        yield


def _parts(bench: Any) -> Iterator[Target]:
    """The calls that a gap is made of."""
    import objectives.segmentation.train as segmentation
    from objectives.training import loop
    from search.worker import trial

    yield gc, "collect", "collecting garbage"
    yield type(bench.store.leases), "claim_trial", "store.claim"
    yield trial, "register_trial", "ask, suggest and bind"
    yield type(bench.study), "resume_trial", "opening Optuna's trial"
    yield type(bench.study), "sample_params", "sampling"
    yield type(bench.store.leases), "bind_trial", "store.bind"
    yield segmentation, "build_model", BUILD
    yield loop, "build_criterion", "building the loss"
    yield loop, "build_optimizer", "building the optimizer"


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("warm_worker", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
