"""Many processes on one study, without training: our worker against plain Optuna."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from typing import Any

import optuna

from benchmarks.epoch_cost import ScriptedTrainer
from benchmarks.history import healthy
from benchmarks.report import Figure
from benchmarks.stopwatch import Stopwatch
from benchmarks.store.past import idle_bench
from objectives.contract import Checkpoints
from search.planning.plan import Plan, make_plan
from search.pruners.build import build_pruner
from search.sampling.sampler import suggest_params
from search.session import open_session
from search.worker.lease import LEASE_S
from search.worker.trial import run_trial
from spaces.config import TrialConfig
from spaces.loader import load_study
from spaces.records import ClassCounts, EpochRecord
from spaces.study import StudySpec
from storage.location import StoreLocation

TIMES_PLAIN = 5.0
NAME = "crowd"
START_S = 300.0
"""So long all processes may take to import and open."""

_start: Barrier  # of a spawned process


@dataclass(frozen=True)
class CrowdResult:
    """What one process did within the time."""

    trials: int = 0
    epochs: int = 0
    worst_ms: float = 0.0
    errors: tuple[str, ...] = ()


def spec(epochs: int) -> StudySpec:
    """TPE and the median pruner."""
    return load_study("combined", {"epochs": epochs, "trials": 10**6, "presets": [], "name": NAME})


def top(seed: int) -> float:
    """What a trial's metric rises to."""
    return random.Random(seed).uniform(0.2, 0.4)


class UnevenTrainer(ScriptedTrainer):
    """Trials that rise to different heights, so that about half of them are pruned."""

    def __init__(self) -> None:
        super().__init__(Stopwatch())
        self.epochs, self.worst_s = 0, 0.0

    def train(
        self,
        config: TrialConfig,
        prepared: Any,
        counts: ClassCounts,
        device: str,
        checkpoints: Checkpoints,
    ) -> Iterator[EpochRecord]:
        """One record an epoch."""
        dumped, reached = config.model_dump(mode="json"), top(config.seed)
        for epoch in range(1, config.epochs + 1):
            record, began = healthy(epoch, config.epochs, dumped, reached), time.perf_counter()
            yield record
            self.epochs, self.worst_s = (
                self.epochs + 1,
                max(self.worst_s, time.perf_counter() - began),
            )


def ours(url: str, epochs: int, seconds: float, _number: int) -> CrowdResult:
    """A worker's loop: claim, bind, store and judge every epoch, finish."""
    errors: list[str] = []
    trainer, trials = UnevenTrainer(), 0
    with StoreLocation.parse(url).open(create=False) as store:
        stored = store.studies.find_study(NAME)
        assert stored is not None
        bench = replace(idle_bench(url, store, stored, Stopwatch()), trainer=trainer)
        _start.wait(START_S)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                claim = store.leases.claim_trial(
                    stored.id, budget=10**6, worker="crowd", lease_s=LEASE_S
                )
                assert claim is not None
                run_trial(bench, claim)
            except Exception as problem:
                errors.append(f"{type(problem).__name__}: {problem}"[:300])
                continue
            trials += time.monotonic() < end
    return CrowdResult(trials, trainer.epochs, 1000 * trainer.worst_s, tuple(errors))


def plain(url: str, epochs: int, seconds: float, number: int) -> CrowdResult:
    """Run the ask-and-tell loop of Optuna's manual."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    errors: list[str] = []
    plan, trials, reported, worst_s = make_plan(spec(epochs)), 0, 0, 0.0
    study = plain_study(url, plan, number)
    _start.wait(START_S)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            trial = study.ask()
            suggest_params(trial, plan)
            state, reached = None, top(trial.number)
            for epoch in range(1, epochs + 1):
                began = time.perf_counter()
                trial.report(reached * epoch / epochs, epoch)
                pruned = trial.should_prune() and epoch < epochs
                reported, worst_s = reported + 1, max(worst_s, time.perf_counter() - began)
                if pruned:
                    state = optuna.trial.TrialState.PRUNED
                    break
            study.tell(trial, None if state else reached, state=state)
        except Exception as problem:
            errors.append(f"{type(problem).__name__}: {problem}"[:300])
            continue
        trials += time.monotonic() < end
    return CrowdResult(trials, reported, 1000 * worst_s, tuple(errors))


def plain_study(url: str, plan: Plan, seed: int) -> optuna.Study:
    """With the same pruner, and the same sampler, as Optuna makes them."""
    sampler_of = plan.spec.sampler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=sampler_of.startup_trials,
            n_ei_candidates=sampler_of.candidates,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )
    return optuna.create_study(
        storage=StoreLocation.parse(url).optuna_url,
        study_name=NAME,
        direction=plan.spec.metric.direction,
        load_if_exists=True,
        sampler=sampler,
        pruner=build_pruner(plan.spec),
    )


def _join(barrier: Barrier) -> None:
    global _start
    _start = barrier


def crowd(
    one: Callable[[str, int, float, int], CrowdResult],
    url: str,
    processes: int,
    epochs: int,
    seconds: float,
) -> list[CrowdResult]:
    """What every process of a crowd results; they begin together, when all of them are ready."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(processes, _join, (spawn.Barrier(processes),)) as pool:
        answers = [
            pool.apply_async(one, (url, epochs, seconds, number)) for number in range(processes)
        ]
        return [answer.get(START_S + 10 * seconds) for answer in answers]


def against_plain(
    urls: dict[str, str], database: str, processes: int, epochs: int, seconds: float
) -> tuple[list[Figure], dict[str, Any]]:
    """Ours and plain Optuna, one after the other on the same server."""
    open_session(spec(epochs), StoreLocation.parse(urls["ours"])).store.close()
    with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
        plain_study(urls["plain"], make_plan(spec(epochs)), 0)
    results = {
        "ours": crowd(ours, urls["ours"], processes, epochs, seconds),
        "plain": crowd(plain, urls["plain"], processes, epochs, seconds),
    }
    rate = {name: sum(each.trials for each in found) / seconds for name, found in results.items()}
    where, peer = f"{processes} processes on {database}", "plain Optuna"
    figures = [
        Figure(
            f"{where}, trials a second",
            rate["ours"],
            "",
            TIMES_PLAIN * rate["plain"],
            at_least=True,
            peer=peer,
            peer_found=rate["plain"],
        ),
        Figure(
            f"{where}, errors",
            errors(results["ours"]),
            "",
            0,
            peer=peer,
            peer_found=errors(results["plain"]),
        ),
    ]
    return figures, {where: {name: summary(found) for name, found in results.items()}}


def alone(
    url: str, database: str, processes: int, epochs: int, seconds: float
) -> tuple[list[Figure], dict[str, Any]]:
    """Ours without a peer."""
    open_session(spec(epochs), StoreLocation.parse(url)).store.close()
    results, where = (
        crowd(ours, url, processes, epochs, seconds),
        f"{processes} processes on {database}",
    )
    figures = [
        Figure(f"{where}, trials a second", sum(each.trials for each in results) / seconds),
        Figure(
            f'{where}, "database is locked"',
            sum("locked" in error for each in results for error in each.errors),
            "",
            0,
        ),
        Figure(f"{where}, errors of any kind", errors(results), "", 0),
    ]
    return figures, {where: summary(results)}


def errors(results: list[CrowdResult]) -> int:
    """Of all processes."""
    return sum(len(each.errors) for each in results)


def summary(results: list[CrowdResult]) -> dict[str, Any]:
    """In numbers, with a few errors in words."""
    words = sorted({error for each in results for error in each.errors})
    return {
        "trials": sum(each.trials for each in results),
        "epochs": sum(each.epochs for each in results),
        "worst_epoch_ms": max(each.worst_ms for each in results),
        "errors": errors(results),
        "errors_in_words": words[:5],
    }
