"""The state that a worker caches between trials: imports, device, data and class counts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from objectives.contract import Trainer
from search.planning.plan import Plan
from search.pruners.median import Peers
from search.sampling.connection import open_trials
from search.sampling.earlier_studies import load_earlier_studies
from search.sampling.history import History
from search.sampling.study_curves import StudyCurves
from search.sampling.worker_study import WorkerStudy
from search.stored_study import stored_plan
from search.worker.checkpoints import CHECKPOINT_EVERY_S, checkpoint_every_s
from search.worker.options import WorkerOptions
from search.worker.promotion import Promotions
from search.worker.rate_probe import ProbeSetup, resolve_base_lr
from search.worker.remedy_suggestions import RemedySuggester
from search.worker.stop import StopRequest
from search.worker.tracker import Tracker, make_tracker
from spaces.config import TrialConfig
from spaces.errors import StoreError
from spaces.records import ClassCounts
from storage.files.study_files import StudyFiles
from storage.location import StoreLocation
from storage.rows import StoredStudy
from storage.store import Store


def make_context(
    location: StoreLocation,
    options: WorkerOptions,
    store: Store,
    stored: StoredStudy,
    stop: StopRequest,
) -> WorkerContext:
    """Prepare everything that a worker needs once: imports, device, data, class counts."""
    from objectives.training.device import use_device  # torch: only workers pay for its import

    checkpoint_s = checkpoint_every_s()
    use_device(options.device, options.threads)
    plan = stored_plan(stored)
    trainer = plan.objective.load()
    config = plan.first_config()
    prepared = trainer.prepare(config, options.device)
    counts = find_class_counts(store, trainer, config)
    setup = ProbeSetup(store, stored, trainer, prepared, counts, options.device, stop)
    plan = resolve_base_lr(plan, plan.first_config(), setup)
    files = location.files()
    try:
        study = open_worker_study(location, store, stored, plan)
    except KeyError:
        raise StoreError(
            "the study's trials are no longer in the database",
            where=store.where,
            found="the store was deleted or replaced while the study ran",
            next_step="run the same command again; it starts the study from the beginning",
        ) from None
    return WorkerContext(
        store=store,
        stored=stored,
        files=files,
        study=study,
        plan=plan,
        trainer=trainer,
        prepared=prepared,
        counts=counts,
        device=options.device,
        stop=stop,
        tracker=make_tracker(options.wandb, stored.name, Path(os.environ.get("WANDB_DIR", "."))),
        checkpoint_s=checkpoint_s,
        data_key=plan.objective.data_key(config),
    )


def open_worker_study(
    location: StoreLocation, store: Store, stored: StoredStudy, plan: Plan
) -> WorkerStudy:
    """Open the Optuna study of a stored study.

    It reads past trials through the store where the store knows Optuna's tables.

    Raises:
        KeyError: when Optuna has no such study.
    """
    peers = None
    history = None
    if store.knows_optuna():
        peers = Peers(store, stored.id)
        history = History(partial(store.sampler_history.past_trials, stored.optuna_study_id))
    return WorkerStudy(
        open_trials(location),
        plan,
        stored.name,
        lambda: store.trials.count_completed(stored.id),
        peers,
        history,
        StudyCurves(store, stored.id, plan),
        partial(load_earlier_studies, store, plan.spec.sampler.learn_from, plan.spec.metric),
    )


@dataclass
class WorkerContext:
    """State that a worker caches between trials.

    Attributes:
        data_key: of the loaded data (`Objective.data_key`); None when the objective has only one
            data set.
    """

    store: Store
    stored: StoredStudy
    files: StudyFiles
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

    @cached_property
    def remedies(self) -> RemedySuggester:
        """Suggests remedies where the study's sampler may try some."""
        return RemedySuggester(self.store, self.stored.id, self.plan)

    @cached_property
    def promotions(self) -> Promotions:
        """Chooses what is trained next."""
        curves = StudyCurves(self.store, self.stored.id, self.plan)
        return Promotions(self.store, self.stored, self.plan, self.files, self.study, curves)

    def load_data(self, config: TrialConfig) -> None:
        """Load the data of a configuration, unless they are still loaded from the last trial."""
        key = self.plan.objective.data_key(config)
        if self.data_key is None or key == self.data_key:
            return
        # Free the memory of the old data first. If the new data cannot be loaded, none are.
        self.prepared = None
        self.data_key = ""
        self.prepared = self.trainer.prepare(config, self.device)
        self.counts = find_class_counts(self.store, self.trainer, config)
        self.data_key = key


def find_class_counts(store: Store, trainer: Trainer, config: TrialConfig) -> ClassCounts:
    """The class counts of a data set: from the store, or counted now and stored."""
    key = trainer.fingerprint(config)
    counts = store.class_counts.find_counts(key)
    if counts is None:
        counts = trainer.count_classes(config)
        store.class_counts.save_counts(key, counts)
    return counts
