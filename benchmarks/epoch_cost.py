"""What an epoch costs to store and to judge, with 1,000 finished trials of 30 epochs.

The loop of `search.worker.trial` is given a trainer that yields healthy records at once: the time
until it is asked for the next record is the epoch's cost. Beside it, on a database of its own with
the same past: plain Optuna, `report` and `should_prune` with the median pruner, on `RDBStorage` as
it comes. Trials of the two take turns.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import optuna
from optuna.storages import RDBStorage

from benchmarks import report
from benchmarks.databases import postgresql, sqlite
from benchmarks.history import CLASSES, fill, fill_ours, healthy, sample
from benchmarks.report import Figure, Result
from benchmarks.stopwatch import Stopwatch
from objectives.contract import Checkpoints
from search.planning.plan import Plan, make_plan
from search.pruners import verdict
from search.sampling.optuna_trial import OptunaTrial
from search.sampling.sampler import to_distribution
from search.session import open_session
from search.worker import trial
from search.worker.context import WorkerContext, make_context
from search.worker.lease import LEASE_S
from search.worker.options import WorkerOptions
from search.worker.stop import StopRequest
from search.worker.trial import run_trial
from spaces.config import TrialConfig
from spaces.loader import load_study
from spaces.records import ClassCounts, EpochRecord
from storage.location import StoreLocation
from storage.rows import StoredStudy
from storage.store import Store

BOUND_MS = 10.0
DEADLINE_S = 300.0
"""For the measured trials on one database; what is done by then counts."""

TOP = 0.9
"""The final metric of a measured trial: above every former trial, so that it is never pruned."""

Databases = Callable[[tuple[str, ...]], AbstractContextManager[tuple[dict[str, str], str]]]


@dataclass(frozen=True)
class Size:
    """How much there is, and how much is measured."""

    trials: int
    epochs: int
    measured: int


FULL, QUICK = Size(1000, 30, 20), Size(30, 8, 2)


class ScriptedTrainer:
    """Yields healthy records at once, and times how long it waits until the next one is wanted."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def fingerprint(self, config: Any) -> str:
        """There are no data."""
        return ""

    def count_classes(self, config: Any) -> ClassCounts:
        """Any will do."""
        return ClassCounts(CLASSES, (1000, 100, 80, 60, 40, 20, 10))

    def prepare(self, config: Any, device: str) -> None:
        """There are no data."""

    def train(
        self,
        config: TrialConfig,
        prepared: Any,
        counts: ClassCounts,
        device: str,
        checkpoints: Checkpoints,
    ) -> Iterator[EpochRecord]:
        """One record an epoch."""
        dumped = config.model_dump(mode="json")
        for epoch in range(1, config.epochs + 1):
            record = healthy(epoch, config.epochs, dumped, TOP)
            self.watch.start()
            yield record
            self.watch.stop()


class PlainOptuna:
    """A study with the same past, used as Optuna's manual shows."""

    def __init__(self, url: str, plan: Plan, size: Size) -> None:
        self.plan, self.epochs, self._rng = plan, size.epochs, random.Random(1)
        self.times_ms: list[float] = []
        storage = RDBStorage(StoreLocation.parse(url).optuna_url)
        fill(storage, self._study(storage), plan, size.trials, size.epochs)
        self.study = self._study(
            RDBStorage(StoreLocation.parse(url).optuna_url)
        )  # as a new process finds it

    def _study(self, storage: RDBStorage) -> optuna.Study:
        sampler, pruner = (
            optuna.samplers.RandomSampler(seed=0),
            optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=4),
        )
        return optuna.create_study(
            storage=storage,
            study_name="plain",
            direction="maximize",
            load_if_exists=True,
            sampler=sampler,
            pruner=pruner,
        )

    def trial(self) -> None:
        """One trial that is never pruned."""
        params = sample(self.plan, self._rng)
        trial = self.study.ask(
            {path: to_distribution(self.plan.spec.space[path]) for path in params}
        )
        for epoch in range(1, self.epochs + 1):
            began = time.perf_counter()
            trial.report(TOP * epoch / self.epochs, epoch)
            trial.should_prune()
            self.times_ms.append(1000 * (time.perf_counter() - began))
        self.study.tell(trial, TOP)


def measure(*, quick: bool) -> Result:
    """Both databases, one after the other."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    size = QUICK if quick else FULL
    figures, details, facts = [], {}, {}
    for name, databases in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
        found, measured, version = on_database(name, databases, size)
        figures += found
        details[name] = measured
        facts[name.lower()] = version
    return Result(figures, details, facts)


def on_database(
    name: str, databases: Databases, size: Size
) -> tuple[list[Figure], dict[str, Any], str]:
    """The figures on one kind of database, where the time went, and its version."""
    with databases(("ours", "plain")) as (urls, version):
        plan = make_plan(
            load_study(
                "combined",
                {
                    "epochs": size.epochs,
                    "trials": 10 * size.trials,
                    "presets": [],
                    "sampler.kind": "random",
                },
            )
        )
        stored = make_ours(urls["ours"], plan, size)
        plain, watch = PlainOptuna(urls["plain"], plan, size), Stopwatch()
        with StoreLocation.parse(urls["ours"]).open(create=False) as store:
            bench = warm_bench(urls["ours"], store, stored, watch)
            deadline = time.monotonic() + DEADLINE_S
            with watch.watching(*parts(bench)):
                for number in range(size.measured + 1):
                    one_trial(bench, stored)
                    plain.trial()
                    if (
                        number == 0
                    ):  # the first trial of a process reads the whole past; a worker does so once
                        watch.forget()
                        plain.times_ms.clear()
                    if time.monotonic() > deadline:
                        break
    details = {"epochs_measured": len(watch.laps_ms), "median_ms_by_call": watch.medians_ms()}
    print_parts(name, watch, plain)
    return compare(name, watch.laps_ms, plain.times_ms), details, version


def make_ours(url: str, plan: Plan, size: Size) -> StoredStudy:
    """A study of ours with a past."""
    session = open_session(plan.spec, StoreLocation.parse(url))
    with session.store as store:
        storage = RDBStorage(StoreLocation.parse(url).optuna_url)
        study = optuna.load_study(study_name=plan.spec.name, storage=storage)
        fill_ours(
            store,
            session.stored,
            plan,
            fill(storage, study, plan, size.trials, size.epochs),
            size.epochs,
        )
    return session.stored


def warm_bench(url: str, store: Store, stored: StoredStudy, watch: Stopwatch) -> WorkerContext:
    """What a worker has before its first trial, with a trainer that trains nothing."""
    bench = make_context(
        StoreLocation.parse(url), WorkerOptions(stored.name), store, stored, StopRequest()
    )
    trainer = ScriptedTrainer(watch)
    return replace(bench, trainer=trainer, counts=trainer.count_classes(None))


def one_trial(bench: WorkerContext, stored: StoredStudy) -> None:
    """Claim a trial and run it as a worker does.

    Raises:
        SystemExit: when it does not run to its end.
    """
    claim = bench.store.leases.claim_trial(
        stored.id, budget=10**6, worker="benchmark", lease_s=LEASE_S
    )
    ending = run_trial(bench, claim) if claim else "not to be had"
    if ending != "complete":
        raise SystemExit(f"a healthy trial was {ending}")


def parts(bench: WorkerContext) -> Iterator[tuple[object, str, str]]:
    """The calls that an epoch is made of."""
    yield trial, "check_used", "check_used"
    yield type(bench.store.epochs), "append_epoch", "store.append"
    yield trial, "judge", "judge"
    yield verdict, "fired", "signals"
    yield OptunaTrial, "worse_than_peers", "peer pruner"
    yield type(bench.store.peer_curves), "complete_since", "curves that are new"
    storage = bench.study._storage
    yield storage, "get_trial", "Optuna reads the trial"
    yield storage, "set_trial_intermediate_value", "Optuna writes the value"
    yield storage, "get_all_trials", "Optuna reads the study's open trials"


def compare(name: str, ours_ms: list[float], plain_ms: list[float]) -> list[Figure]:
    """Median and 99th percentile of the two."""
    peer = "plain Optuna, report + should_prune"
    return [
        Figure(
            f"an epoch on {name}, median",
            median(ours_ms),
            "ms",
            BOUND_MS,
            peer=peer,
            peer_found=median(plain_ms),
        ),
        Figure(
            f"an epoch on {name}, p99",
            percentile(ours_ms, 0.99),
            "ms",
            peer=peer,
            peer_found=percentile(plain_ms, 0.99),
        ),
    ]


def percentile(values: list[float], share: float) -> float:
    """The smallest value that is not below so large a share of all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def print_parts(name: str, watch: Stopwatch, plain: PlainOptuna) -> None:
    """Where the time of an epoch goes."""
    rows = [(path, f"{time_ms:.2f}") for path, time_ms in watch.medians_ms().items()]
    rows += [
        ("the whole epoch", f"{median(watch.laps_ms):.2f}"),
        ("plain Optuna", f"{median(plain.times_ms):.2f}"),
    ]
    print(report.table((f"{name}: call", "median, ms"), rows), end="\n\n", flush=True)


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("epoch_cost", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
