"""Everything that a worker pays for once, and keeps between trials: imports, device, data, class counts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from objectives.contract import Trainer
from search.planning.plan import Plan
from search.pruners.median import Peers
from search.sampling.connection import open_trials
from search.sampling.history import History
from search.sampling.study import WorkerStudy
from search.stored_study import stored_plan
from search.worker.checkpoints import CHECKPOINT_EVERY_S, checkpoint_every_s
from search.worker.stop import StopRequest
from search.worker.tracker import Tracker, WandbMode, make_tracker
from spaces.config import TrialConfig
from spaces.errors import StoreError
from spaces.records import ClassCounts
from storage.files.study_files import CheckpointFiles
from storage.location import StoreLocation
from storage.rows import StoredStudy
from storage.store import Store


@dataclass(frozen=True)
class WorkerSettings:
    """Where a worker runs, and on what."""

    location: StoreLocation
    study: str
    device: str
    threads: int
    wandb: WandbMode = "off"
    timeout_s: float | None = None
    parent: int | None = None


def make_bench(
    settings: WorkerSettings, store: Store, stored: StoredStudy, stop: StopRequest
) -> Bench:
    """Everything that is paid once: imports, device, data, class counts."""
    from objectives.training.device import (
        use_device,
    )  # torch: a command that only looks must not pay for it

    checkpoint_s = checkpoint_every_s()
    use_device(settings.device, settings.threads)
    plan = stored_plan(stored)
    trainer = plan.objective.load()
    config = plan.first_config()
    prepared, counts = (
        trainer.prepare(config, settings.device),
        class_counts(store, trainer, config),
    )
    files = settings.location.files()
    try:
        study = open_worker_study(settings.location, store, stored, plan)
    except KeyError:
        raise StoreError(
            "the study's trials are gone from the database",
            where=store.where,
            found="the store was deleted or replaced while the study ran",
            next_step="run the same command again; it starts the study anew",
        ) from None
    return Bench(
        store=store,
        stored=stored,
        files=files,
        study=study,
        plan=plan,
        trainer=trainer,
        prepared=prepared,
        counts=counts,
        device=settings.device,
        stop=stop,
        tracker=make_tracker(settings.wandb, stored.name, Path(os.environ.get("WANDB_DIR", "."))),
        checkpoint_s=checkpoint_s,
        data_key=plan.objective.data_key(config),
    )


def open_worker_study(
    location: StoreLocation, store: Store, stored: StoredStudy, plan: Plan
) -> WorkerStudy:
    """Optuna's side of a stored study, which reads its past through the store where that knows Optuna's tables.

    Raises:
        KeyError: when Optuna knows no such study.
    """
    peers, history = None, None
    if store.knows_optuna():
        peers, history = (
            Peers(store, stored.id),
            History(partial(store.sampler_history.past_trials, stored.optuna_study_id)),
        )
    return WorkerStudy(
        open_trials(location),
        plan,
        stored.name,
        lambda: store.trials.count_completed(stored.id),
        peers,
        history,
    )


@dataclass
class Bench:
    """What a worker keeps warm between trials.

    Attributes:
        data_key: of the data that are at hand (`Objective.data_key`); None: they are all that there is.
    """

    store: Store
    stored: StoredStudy
    files: CheckpointFiles
    study: WorkerStudy
    plan: Plan
    trainer: Trainer
    prepared: Any
    counts: ClassCounts
    device: str
    stop: StopRequest
    tracker: Tracker
    checkpoint_s: float = CHECKPOINT_EVERY_S
    data_key: str | None = None

    def prepare(self, config: TrialConfig) -> None:
        """Have the data at hand that a configuration asks for: mostly they are those of the trial before."""
        key = self.plan.objective.data_key(config)
        if self.data_key is not None and key != self.data_key:
            self.prepared, self.data_key = (
                None,
                "",
            )  # the memory of the former is for these; when they cannot be had, none are at hand
            self.prepared, self.counts = (
                self.trainer.prepare(config, self.device),
                class_counts(self.store, self.trainer, config),
            )
            self.data_key = key


def class_counts(store: Store, trainer: Trainer, config: TrialConfig) -> ClassCounts:
    """The class counts of a data set: from the store, else counted now and kept there."""
    key = trainer.fingerprint(config)
    counts = store.class_counts.find_counts(key)
    if counts is None:
        counts = trainer.count_classes(config)
        store.class_counts.save_counts(key, counts)
    return counts
