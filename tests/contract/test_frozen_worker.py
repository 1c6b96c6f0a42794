"""A worker that is suspended beyond its lease changes nothing once another one owns its trial.

Two attempts at one trial run in two threads of this process. No test sleeps: one thread stops at a
named point, the other one claims the trial, and the first continues at a named moment of the other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from search.session import open_session
from search.worker import checkpoints as trial_checkpoints
from search.worker import loop
from search.worker.context import WorkerContext, make_context
from search.worker.identity import worker_name
from search.worker.options import WorkerOptions
from search.worker.promotion import StudyBudget
from search.worker.stop import StopRequest
from search.worker.trial import run_trial
from spaces.errors import LeaseLostError
from spaces.study import StudySpec
from storage.files.best_weights import BestWeights
from storage.files.checkpoints import StoredCheckpoints
from storage.files.study_files import StudyFiles
from storage.location import StoreLocation
from storage.repositories.epochs import EpochRepository
from storage.rows import Claim, Death
from storage.store import Store
from tests.contract import gated_objective
from tests.contract.gated_objective import Gates, install
from tests.waiting import PATIENCE_S

EPOCHS = 5
STUDY: dict[str, Any] = {
    "name": "frozen",
    "objective": "tests.contract.gated_objective:train",
    "metric": {"name": "gain"},
    "epochs": EPOCHS,
    "trials": 1,
    "space": {"rate": {"kind": "float", "low": 0.1, "high": 0.2}},
    "sampler": {"kind": "random"},
    "pruner": {"kind": "none"},
    "presets": [],
}

POINTS = (
    "epoch {k} begins",
    "state {k} is due",
    "state {k} is written",
    "state {k} is in place",
    "states before {n} are removed",
    "epoch {k} is to be recorded",
)
"""Where a worker is suspended in epoch k, at its n-th checkpoint.

A checkpoint is written, put in place, and noted, in this order.
"""

MOMENTS = (
    "the epochs are read",
    "the states are listed",
    "the training begins",
    "an epoch was recorded",
    "a state was written",
    "the trial has ended",
)
"""When it is resumed: before the other worker chooses a checkpoint, and around its epochs."""

FREEZES = {
    "before any state": (1, 1, 1),
    "after two states": (3, 3, 1),
    "after three epochs without a state": (4, 1, 4),
}
"""Epoch k of the suspension, n of the checkpoint there, and the epoch of the first checkpoint."""


def gated(
    function: Callable[..., Any], point: Callable[..., str], *, after: bool = False
) -> Callable[..., Any]:
    """Make a method pause at a point before, or after, its work."""

    def call(*given: Any, **named: Any) -> Any:
        if not after:
            gated_objective.gates.reach(point(*given, **named))
        made = function(*given, **named)
        if after:
            gated_objective.gates.reach(point(*given, **named))
        return made

    return call


@pytest.fixture(autouse=True)
def points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The points outside the objective. A checkpoint is written after every epoch."""
    monkeypatch.setattr(trial_checkpoints, "WRITING_SHARE", float("inf"))
    monkeypatch.setattr(
        StudyFiles,
        "write_json",
        gated(
            StudyFiles.write_json,
            lambda _, path, value: f"state {value.get('epoch')} is in place",
        ),
    )
    monkeypatch.setattr(
        StoredCheckpoints,
        "_remove_older",
        gated(
            StoredCheckpoints._remove_older,
            lambda _, newest: f"states before {newest[1]} are removed",
        ),
    )
    monkeypatch.setattr(
        StoredCheckpoints,
        "list_newest_first",
        gated(StoredCheckpoints.list_newest_first, lambda _: "the states are listed"),
    )
    monkeypatch.setattr(
        StoredCheckpoints,
        "save_checkpoint",
        gated(StoredCheckpoints.save_checkpoint, lambda *_: "a state was written", after=True),
    )
    monkeypatch.setattr(
        EpochRepository,
        "trial_records",
        gated(EpochRepository.trial_records, lambda *_: "the epochs are read"),
    )
    monkeypatch.setattr(
        EpochRepository,
        "append_epoch",
        gated(EpochRepository.append_epoch, lambda *_: "an epoch was recorded", after=True),
    )


@dataclass
class Worker:
    """One worker's context, and how its trial ended."""

    context: WorkerContext
    ended: object = None

    def run(self, claim: Claim) -> None:
        """Train the claimed trial."""
        try:
            self.ended = run_trial(self.context, claim)
        except LeaseLostError as lost:
            self.ended = lost


@pytest.fixture
def workers(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Worker, Worker]]:
    """The worker that is suspended, and the one that claims its trials, with one store each."""
    monkeypatch.setenv("SEARCH_FILES", str(tmp_path / "files"))
    monkeypatch.chdir(Path(__file__).parents[2])
    spec = StudySpec.model_validate(STUDY)
    location = StoreLocation.parse(store_url)
    session = open_session(spec, location)
    with session.store, location.open() as first, location.open() as second:
        options = WorkerOptions(spec.name)
        yield tuple(
            Worker(
                replace(
                    make_context(location, options, store, session.stored, StopRequest()),
                    checkpoint_s=1e-9,
                )
            )
            for store in (first, second)
        )  # type: ignore[misc]


def claimed(store: Store, study_id: int, worker: str, budget: int) -> Claim:
    """Claim a trial for this worker."""
    claim = store.leases.claim_trial(study_id, budget, worker, PATIENCE_S)
    assert claim is not None
    return claim


def take_over(frozen: Worker, other: Worker, gates: Gates, budget: int) -> int:
    """Suspend a worker, have the other one finish the trial, and resume the first meanwhile.

    Returns the trial's id.
    """
    store, study_id = other.context.store, other.context.stored.id
    claim = claimed(store, study_id, "frozen", budget)
    gates.worker = threading.Thread(target=frozen.run, args=(claim,), daemon=True)
    resume_at, gates.thaw_at = gates.thaw_at, None
    gates.worker.start()
    assert gates.frozen.wait(PATIENCE_S)
    gates.thaw_at = resume_at
    store.reaping.reap_trials(
        study_id, Death("frozen")
    )  # has the effect of the lease's expiry, at a moment that the test chooses
    again = claimed(store, study_id, "other", budget)
    assert again.trial_id == claim.trial_id
    other.run(again)
    gates.reach("the trial has ended")
    assert gates.thaw_at is None, "the moment came"
    return claim.trial_id


def files_left(context: WorkerContext) -> list[str]:
    """The names of all files of trials."""
    return sorted(path.name for path in (context.files.root / context.stored.name).glob("*trial-*"))


@pytest.mark.parametrize("frozen_in", FREEZES)
def test_every_order(
    workers: tuple[Worker, Worker], frozen_in: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The trial completes with the epochs of an undisturbed one; the first worker's write fails.

    A worker that is resumed before it writes a checkpoint writes none.
    """
    frozen, other = workers
    epoch, count, first = FREEZES[frozen_in]
    numbers = iter(range(1, 1000))
    for point in (each.format(k=epoch, n=count) for each in POINTS):
        for moment in MOMENTS:
            budget = next(numbers)
            frozen.ended = other.ended = None
            gates = install(Gates(point, moment, first))
            trial_id = take_over(frozen, other, gates, budget)
            label, store = f"suspended where {point}, resumed where {moment}", other.context.store
            (trial,) = [
                each
                for each in store.trials.list_trials(other.context.stored.id)
                if each.id == trial_id
            ]
            records = store.epochs.trial_records(trial_id)

            assert other.ended == "complete", label
            assert "starts again" not in caplog.text, label
            assert isinstance(frozen.ended, LeaseLostError), label
            writes_none = point in (f"epoch {epoch} begins", f"state {epoch} is due")
            assert (f"state {epoch} is written" in gates.reached) != writes_none, label
            assert (trial.state, trial.attempt, trial.error) == ("complete", 2, ""), label
            assert [record.epoch for record in records] == list(range(1, EPOCHS + 1)), label
            assert [record.metric for record in records] == [
                pytest.approx(records[0].metric + 0.01 * k) for k in range(EPOCHS)
            ], label
            left = files_left(other.context)
            if (
                moment == MOMENTS[-1]
            ):  # its late files are orphans, which `search store vacuum` finds
                assert all(
                    name.lstrip(".").startswith(f"trial-{trial.number:05d}.1.") for name in left
                ), label
                StoredCheckpoints(
                    other.context.files, other.context.files.trial_stem("frozen", trial.number or 0)
                ).remove_up_to(1)
            else:
                assert left == [], label


def test_late_removal(workers: tuple[Worker, Worker]) -> None:
    """A worker that released a trial late removes no checkpoint of the next attempt."""
    frozen, other = workers
    store, study_id = other.context.store, other.context.stored.id
    install(Gates())
    states = StoredCheckpoints(frozen.context.files, frozen.context.files.trial_stem("frozen", 0))
    owner = states.save_checkpoint(1, lambda draft: draft.write_text("1") and None, {"epoch": 1})
    adopted = states.adopt_checkpoint(owner, 2)
    states.remove_up_to(1)
    assert adopted is not None
    assert [state.order for state in states.list_newest_first()] == [(2, 0)]
    assert adopted.is_intact()
    states.remove_up_to(2)
    assert states.list_newest_first() == []
    assert store.trials.list_trials(study_id) == []


def test_refused_epoch(
    workers: tuple[Worker, Worker],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A trial whose stored epochs vanish resumes from what store and files agree on."""
    _, worker = workers
    store, study_id = worker.context.store, worker.context.stored.id
    install(Gates())
    append, lost = EpochRepository.append_epoch, iter([True])

    def losing(self: Any, claim: Claim, record: Any, lease_s: float) -> None:
        if record.epoch == 4 and next(lost, False):
            self.forget_epochs_after(claim, 2)
        append(self, claim, record, lease_s)

    monkeypatch.setattr(EpochRepository, "append_epoch", losing)
    worker.run(claimed(store, study_id, "other", 1))

    (trial,) = store.trials.list_trials(study_id)
    assert (worker.ended, trial.state, trial.attempt) == ("complete", "complete", 1)
    assert [record.epoch for record in store.epochs.trial_records(trial.id)] == list(
        range(1, EPOCHS + 1)
    )
    assert "epoch 4 is out of order; the next one is 3; restarting from the last" in caplog.text


def test_suspended_often(workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial whose worker is suspended and responds again five times is not failed for that."""
    _, worker = workers
    context, store, stored = worker.context, worker.context.store, worker.context.stored
    suspensions = iter(range(5))
    install(Gates())

    def lose_and_return(context: WorkerContext, claim: Claim) -> object:
        if next(suspensions, None) is None:
            return run_trial(context, claim)
        store.reaping.reap_trials(stored.id, Death(worker_name(os.getpid())))
        raise LeaseLostError("another worker may own it")

    monkeypatch.setattr(loop, "run_trial", lose_and_return)
    monkeypatch.setattr(loop, "read_budget", lambda *_: StudyBudget(1, None))
    loop.train_trials(context, stored)

    (trial,) = store.trials.list_trials(stored.id)
    assert (trial.state, trial.attempt) == ("complete", 6)
    assert [line.lost for line in store.trials.list_progress(stored.id)] == [0]


def test_best_of_a_later_study(tmp_path: Path) -> None:
    """A worker of a deleted study does not replace the best weights of a new one of its name."""
    files = StudyFiles(tmp_path)
    install(Gates())
    state = StoredCheckpoints(files, files.trial_stem("demo", 0)).save_checkpoint(
        1, lambda draft: draft.write_text("x") and None, {"epoch": 1}
    )
    later, earlier = BestWeights(files, "demo", 2.0), BestWeights(files, "demo", 1.0)
    assert later.save_if_better(0, 0.1, "maximize", state)
    assert not earlier.save_if_better(1, 0.9, "maximize", state)
    best = later.find_best()
    assert best is not None
    assert (best.trial, best.score) == (0, 0.1)
