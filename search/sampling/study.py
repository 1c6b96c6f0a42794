"""Optuna, adapted: its study, sampler and pruner, made from a plan. One of the few files that know Optuna."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from typing import cast

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from search.planning.plan import Params, Plan
from search.pruners.build import build_pruner
from search.pruners.median import Peers
from search.sampling.buffered_storage import HoldingStorage
from search.sampling.history import History
from search.sampling.sampler import PRESET, TrialSeededSampler, suggest
from storage.rows import EnqueuedTrial, SampledTrial
from storage.tables.optuna_version import MADE_BY

MARKING_TRIES, MARKING_S = 20, 2.0
"""A study is made and then marked as ours: two commits, between which another process waits for the mark."""


class WorkerStudy(optuna.Study):
    """A study as a worker needs it: it takes up trials that the store made, and reads its past no more often than needed.

    Args:
        completed: tells how many trials are complete.
        peers: the curves of complete trials, and
        history: what the sampler learns from; None where the store does not know Optuna's tables, for Optuna's class to read them.
    """

    def __init__(
        self,
        storage: RDBStorage,
        plan: Plan,
        name: str,
        completed: Callable[[], int],
        peers: Peers | None = None,
        history: History | None = None,
    ) -> None:
        self._holding = HoldingStorage(storage, history)
        super().__init__(
            name,
            cast(BaseStorage, self._holding),
            sampler=TrialSeededSampler(plan.spec),
            pruner=build_pruner(plan.spec),
        )
        self._completed, self._engine = completed, storage.engine
        self.peers = peers
        self._complete: tuple[int, list[FrozenTrial]] | None = None

    def take(self, trial_id: int) -> Trial:
        """A trial that runs already, to be sampled from all that is known by now, as `ask` does with a new one."""
        self._thread_local.cached_all_trials = None
        return Trial(self, trial_id)

    def sample(self, trial: Trial, plan: Plan) -> tuple[Params, SampledTrial]:
        """What `suggest` gives, and what Optuna's tables are to hold of it; nothing is written."""
        with self._holding.holding() as held:
            params = suggest(trial, plan)
        return params, held.sampled()

    def rest(self) -> None:
        """Close Optuna's connections to a server: while a trial trains, a worker needs the store's one alone."""
        if self._engine.dialect.name != "sqlite":
            self._engine.dispose()

    def peers_at(self, epoch: int) -> Sequence[float]:
        """The metrics of the complete trials at one epoch, of those that have one."""
        if self.peers is not None:
            return self.peers.metrics_at(epoch)
        complete = self.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [
            trial.intermediate_values[epoch]
            for trial in complete
            if epoch in trial.intermediate_values
        ]

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As Optuna's, but complete trials that need no copy are read again only when there are more of them.

        A pruner asks for them after every epoch, and Optuna then reads every open trial of the study with all its epochs
        to see which have ended. Complete trials do not change, and the store knows by one short query how many there are.
        """
        if deepcopy or states != (TrialState.COMPLETE,):
            return super().get_trials(deepcopy, states)
        completed = self._completed()
        if self._complete is None or self._complete[0] != completed:
            self._complete = (completed, super().get_trials(deepcopy=False, states=states))
        return self._complete[1]


def make_study(storage: RDBStorage, plan: Plan, name: str) -> optuna.Study:
    """The Optuna study called `name`, made when it is not there, and marked as ours."""
    study = optuna.create_study(
        storage=storage, study_name=name, direction=plan.spec.metric.direction, load_if_exists=True
    )
    study.set_user_attr(MADE_BY, True)
    return study


def is_anothers(trials: RDBStorage, name: str) -> bool:
    """Whether an Optuna study of that name was not made by us. One that another process is making at this moment has no mark yet."""
    for _ in range(MARKING_TRIES):
        held = {study.study_name: study.user_attrs for study in trials.get_all_studies()}
        if name not in held or MADE_BY in held[name]:
            return False
        time.sleep(MARKING_S / MARKING_TRIES)
    return True


def waiting_presets(study: optuna.Study, plan: Plan) -> list[EnqueuedTrial]:
    """The presets, to be tried first; without those that a start before this one, cut short, has enqueued."""
    held = {trial.user_attrs.get(PRESET) for trial in study.get_trials(deepcopy=False)}
    return [
        EnqueuedTrial(plan.preset_params(name), {PRESET: name})
        for name in plan.spec.presets
        if name not in held
    ]


def enqueue(study: optuna.Study, waiting: Sequence[EnqueuedTrial]) -> None:
    """Have them tried first, by Optuna's own hand."""
    for each in waiting:
        study.enqueue_trial(dict(each.params), user_attrs=dict(each.user_attrs))
