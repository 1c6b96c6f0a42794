"""What one worker pays for a long past: an epoch, asking for the next trial, and joining."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.epoch_cost import ScriptedTrainer, Size, make_ours, one_trial, parts, percentile
from benchmarks.report import Figure
from benchmarks.stopwatch import Stopwatch
from search.planning.plan import make_plan
from search.stored_study import stored_plan
from search.worker.context import WorkerContext, open_worker_study
from search.worker.lease import LEASE_S
from search.worker.registration import register_trial
from search.worker.stop import StopRequest
from search.worker.tracker import NoTracker
from search.worker.trial import run_trial
from spaces.loader import load_study
from storage.files.study_files import StudyFiles
from storage.location import StoreLocation
from storage.rows import StoredStudy
from storage.store import Store

EPOCH_MS, EPOCH_P99_MS, GROWTH = 10.0, 40.0, 1.5
ASK_MS, JOIN_S = 300.0, 2.0
JOIN_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Long:
    """How long the pasts are, and how much is measured on each."""

    trials: Sequence[int]
    epochs: int
    measured: int
    asked: int


FULL, QUICK = Long((10, 1_000, 10_000), 30, 20, 20), Long((10, 40), 8, 2, 2)


def study_with_past(url: str, trials: int, epochs: int) -> StoredStudy:
    """A study, for TPE and the median pruner, in which so many trials are complete."""
    plan = make_plan(load_study("combined", {"epochs": epochs, "trials": 10**6, "presets": []}))
    return make_ours(url, plan, Size(trials, epochs, 0))


def idle_bench(url: str, store: Store, stored: StoredStudy, watch: Stopwatch) -> WorkerContext:
    """What a worker has before its first trial, but for data, a device and torch."""
    plan, trainer = stored_plan(stored), ScriptedTrainer(watch)
    return WorkerContext(
        store=store,
        stored=stored,
        files=StudyFiles(Path("unused")),
        study=open_worker_study(StoreLocation.parse(url), store, stored, plan),
        plan=plan,
        trainer=trainer,
        prepared=None,
        counts=trainer.count_classes(None),
        device="cpu",
        stop=StopRequest(),
        tracker=NoTracker(),
    )


def epochs_and_asking(
    database: str, urls: Sequence[str], size: Long
) -> tuple[list[Figure], dict[str, Any]]:
    """Measure epochs at every length of past, and asking and joining at the longest."""
    figures, details, medians = [], {}, []
    for url, trials in zip(urls, size.trials, strict=True):
        stored = study_with_past(url, trials, size.epochs)
        with StoreLocation.parse(url).open(create=False) as store:
            watch = Stopwatch()
            bench = idle_bench(url, store, stored, watch)
            one_trial(
                bench, stored
            )  # the first trial of a process reads the whole past; a worker does so once
            watch.forget()
            with watch.watching(*parts(bench)):
                for _ in range(size.measured):
                    one_trial(bench, stored)
            medians.append(median(watch.laps_ms))
            where = f"{trials:,} trials on {database}"
            figures.append(
                Figure(
                    f"storing and judging an epoch, {where}, median", medians[-1], "ms", EPOCH_MS
                )
            )
            figures.append(
                Figure(
                    f"the same, {where}, p99", percentile(watch.laps_ms, 0.99), "ms", EPOCH_P99_MS
                )
            )
            details[where] = {
                "epochs_measured": len(watch.laps_ms),
                "median_ms_by_call": watch.medians_ms(),
            }
            if trials == size.trials[-1]:
                asked_ms = asking(bench, stored, size.asked)
    figures.append(
        Figure(
            f"growth of the median from {size.trials[0]:,} to {size.trials[-1]:,} trials "
            f"on {database}",
            medians[-1] / medians[0],
            "×",
            GROWTH,
        )
    )
    figures.append(
        Figure(f"asking for the next trial, {where}, median", median(asked_ms), "ms", ASK_MS)
    )
    figures.append(Figure(f"the same, {where}, worst", max(asked_ms), "ms"))
    joined = joining(urls[-1], stored.name)
    figures.append(
        Figure(
            f"joining, {where}, until the first trial begins, imports left out",
            joined["until the first trial begins"],
            "s",
            JOIN_S,
        )
    )
    return figures, {**details, f"joining {database}, s": joined}


def asking(bench: WorkerContext, stored: StoredStudy, times: int) -> list[float]:
    """Milliseconds of claiming, sampling and binding each trial; all of them stay running."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        claim = bench.store.leases.claim_trial(
            stored.id, budget=10**6, worker="benchmark", lease_s=3600
        )
        assert claim is not None
        register_trial(bench, claim)
        spent.append(1000 * (time.perf_counter() - began))
    return spent


def joining(url: str, name: str) -> dict[str, float]:
    """Seconds from opening the store to the first trial, in a process that has imported all."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(_join, (url, name)).get(JOIN_TIMEOUT_S)


def _join(url: str, name: str) -> dict[str, float]:
    import optuna.samplers._tpe.sampler  # noqa: F401 - Optuna imports it when it is first asked for

    began, seconds = time.perf_counter(), {}
    with StoreLocation.parse(url).open(create=False) as store:
        stored = store.studies.find_study(name)
        assert stored is not None
        bench = idle_bench(url, store, stored, Stopwatch())
        seconds["until the study is open"] = time.perf_counter() - began
        claim = store.leases.claim_trial(
            stored.id, budget=10**6, worker="newcomer", lease_s=LEASE_S
        )
        assert claim is not None

        def begin(*_: Any) -> Any:
            seconds["until the first trial begins"] = time.perf_counter() - began
            yield from ScriptedTrainer.train(bench.trainer, *_)  # type: ignore[arg-type]
            seconds["until it is over"] = time.perf_counter() - began

        bench.trainer.train = begin  # type: ignore[method-assign]
        run_trial(replace(bench), claim)
    return seconds
