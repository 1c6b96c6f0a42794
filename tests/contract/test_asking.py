"""How workers get their trials: reproducibly, and each trial exactly once.

Its functions run in spawned processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.planning.plan import Plan
from search.sampling.connection import open_trials
from search.sampling.optuna_trial import OptunaTrial
from search.sampling.sampler import PRESET
from search.session import Session, open_session
from search.worker.attempt import Attempt
from search.worker.context import WorkerContext, open_worker_study
from search.worker.ending import Ending, write_outcome
from search.worker.epoch_writer import EpochWriter
from search.worker.registration import register_trial
from search.worker.stop import StopRequest
from search.worker.tracker import NoTracker
from spaces.loader import load_study
from spaces.records import ClassCounts, Diagnosis, Evidence
from spaces.study import StudySpec
from storage.files.study_files import StudyFiles
from storage.location import StoreLocation
from storage.rows import Claim, Outcome
from tests.conftest import RECORD
from tests.contract.test_store import let_lapse
from tests.waiting import PATIENCE_S, until

PROCESSES, BUDGET = 4, 24
Given = tuple[int, str | None, dict[str, Any]]
"""Number, preset and configuration of a trial."""

_start: Barrier  # of a spawned process


def spec(**changes: Any) -> StudySpec:
    """A shipped study with conditional dimensions."""
    return load_study(
        "combined",
        {"trials": BUDGET, "sampler.kind": "tpe", "sampler.startup_trials": 5, **changes},
    )


def context_of(session: Session, url: str) -> WorkerContext:
    """A worker's context without data and trainer: nothing is trained here."""
    store, stored, plan = session.store, session.stored, session.plan
    study = open_worker_study(StoreLocation.parse(url), store, stored, plan)
    nothing = cast(Any, None)
    return WorkerContext(
        store,
        stored,
        StudyFiles(Path("unused")),
        study,
        plan,
        nothing,
        nothing,
        ClassCounts(("a",), (1,)),
        "cpu",
        StopRequest(),
        NoTracker(),
    )


def ask(context: WorkerContext) -> tuple[Claim, OptunaTrial] | None:
    """Claim and register the next trial, as a worker does; None when the budget is exhausted."""
    claim = context.store.leases.claim_trial(context.stored.id, BUDGET, "a", 600)
    return None if claim is None else register_trial(context, claim)


def end(context: WorkerContext, claim: Claim, trial: OptunaTrial) -> Ending:
    """End a trial depending on its configuration, so that the sampler can learn from it."""
    assert claim.config is not None
    rate, number = claim.config["optimizer"]["lr_multiple"], claim.number or 0
    state: Any = ("complete", "pruned", "complete", "diverged", "failed")[number % 5]
    evidence = (
        Evidence("metric_falling", 1, None, "it fell", {}, severity=1.0)
        if state == "diverged"
        else None
    )
    diagnosis = Diagnosis("rate_too_high", (), ()) if evidence else None
    attempt = Attempt(
        context,
        claim,
        trial,
        cast(Any, None),
        [],
        EpochWriter(context.store, claim, trial, context.stop, 600),
    )
    for epoch in range(1, number % 3 + 1):
        record = replace(RECORD, epoch=epoch, metric=-abs(rate - epoch))
        context.store.epochs.append_epoch(claim, record, 600)
        trial.report_epoch(record)
    reached = None if state == "failed" else -abs(rate - 1)
    write_outcome(attempt, Outcome(state, reached, "why", evidence=evidence, diagnosis=diagnosis))
    return cast(Ending, state)


def describe(claim: Claim) -> Given:
    """Number, configuration and preset of a trial."""
    assert claim.number is not None
    assert claim.config is not None
    return claim.number, claim.preset, dict(claim.config)


def asked_alone(url: str) -> tuple[list[Given], list[FrozenTrial]]:
    """Run all trials of the study one by one; return them, and Optuna's trials."""
    session, given = open_session(spec(), StoreLocation.parse(url)), []
    with session.store:
        context = context_of(session, url)
        while (found := ask(context)) is not None:
            given.append(describe(found[0]))
            end(context, *found)
        return given, context.study.get_trials()


class TestSameTrials:
    def test_either_way(
        self, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The store and Optuna's class produce exactly the same trials, presets first."""
        given, kept = asked_alone(sqlite_url)
        monkeypatch.setattr("storage.tables.optuna_tables.SCHEMA", "v9.9.9.a")
        given_by_class, kept_by_class = asked_alone(f"sqlite:///{tmp_path / 'other.db'}")

        assert given == given_by_class
        assert [preset for _, preset, _ in given[:5]] == [*spec().presets, None]
        for one, other in zip(kept, kept_by_class, strict=True):
            assert (one.params, one.distributions, one.state, one.values) == (
                other.params,
                other.distributions,
                other.state,
                other.values,
            )
            assert (one.user_attrs, one.system_attrs) == (other.user_attrs, other.system_attrs)
            assert one.intermediate_values == other.intermediate_values

    @pytest.mark.parametrize("schema", ["v3.2.0.a", "v9.9.9.a"])
    def test_died_asking(
        self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, schema: str
    ) -> None:
        """The trial of a worker that died while sampling is resumed with the same preset."""
        monkeypatch.setattr("storage.tables.optuna_tables.SCHEMA", schema)
        session = open_session(spec(), StoreLocation.parse(sqlite_url))
        with session.store as store:
            context = context_of(session, sqlite_url)
            with monkeypatch.context() as patched:
                patched.setattr(
                    Plan, "make_config", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
                )
                with pytest.raises(KeyboardInterrupt):
                    ask(context)
            (line,) = store.trials.list_progress(session.stored.id)
            let_lapse(store, Claim(line.trial_id, session.stored.id, line.attempt))
            found = ask(context)
            assert found is not None
            assert (found[0].number, found[0].attempt, found[0].preset) == (0, 2, spec().presets[0])
            assert [trial.state for trial in context.study.get_trials()][:2] == [
                TrialState.RUNNING,
                TrialState.WAITING,
            ]


CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'one_worker'"


class TestConnections:
    def test_while_training(self, postgresql_url: str, postgres_admin: psycopg.Connection) -> None:
        """A worker keeps one connection to a server during training."""
        url = f"{postgresql_url}&application_name=one_worker"
        session = open_session(spec(), StoreLocation.parse(url))
        with session.store:
            context = context_of(session, url)
            for _ in range(2):
                found = ask(context)
                assert found is not None
                context.store.epochs.append_epoch(found[0], RECORD, 600)
                # A server takes a moment to see that a connection was closed.
                until(
                    lambda: postgres_admin.execute(CONNECTIONS).fetchone() == (1,),
                    "the worker has one connection",
                )


def join(barrier: Barrier) -> None:
    """Initialize a process."""
    global _start
    _start = barrier


@pytest.fixture(scope="module")
def crew() -> Iterator[ProcessPoolExecutor]:
    """Processes that share only a barrier."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        PROCESSES, spawn, initializer=join, initargs=(spawn.Barrier(PROCESSES),)
    ) as pool:
        yield pool


def compete(url: str) -> list[Given]:
    """Start the study at the same time as the others, and claim until nothing is left."""
    _start.wait(PATIENCE_S)
    session, given = open_session(spec(), StoreLocation.parse(url)), []
    with session.store:
        context = context_of(session, url)
        while (found := ask(context)) is not None:
            given.append(describe(found[0]))
            end(context, *found)
    return given


class TestProcesses:
    def test_exact(self, store_url: str, crew: ProcessPoolExecutor) -> None:
        """Processes that start a study at once create it once, and use its budget exactly."""
        answers = [crew.submit(compete, store_url) for _ in range(PROCESSES)]
        given = sorted(
            (each for answer in answers for each in answer.result(timeout=PATIENCE_S)),
            key=lambda each: each[0],
        )

        assert [number for number, _, _ in given] == list(range(BUDGET))
        assert [preset for _, preset, _ in given] == [
            *spec().presets,
            *[None] * (BUDGET - len(spec().presets)),
        ]
        trials = open_trials(StoreLocation.parse(store_url))
        (study,) = trials.get_all_studies()
        kept = trials.get_all_trials(study._study_id)
        trials.engine.dispose()
        assert [trial.number for trial in kept] == list(range(BUDGET))
        assert [trial.user_attrs.get(PRESET) for trial in kept] == [
            preset for _, preset, _ in given
        ]
        for trial, (_, _, config) in zip(kept, given, strict=True):
            for path, value in trial.params.items():
                section, name = path.split(".")
                assert config[section][name] == value
