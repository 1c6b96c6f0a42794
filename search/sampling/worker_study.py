"""The Optuna study of a worker: it resumes the store's trials, and reads past ones rarely."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import cached_property
from typing import cast

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from search.planning.plan import Params, Plan
from search.pruners.build import build_pruner
from search.pruners.median import Peers
from search.sampling.buffered_storage import BufferedStorage
from search.sampling.curve_sampler import CurveSampler
from search.sampling.freeze_thaw.engine import FreezeThaw
from search.sampling.freeze_thaw.prior import EarlierStudy
from search.sampling.history import History
from search.sampling.sampler import TrialSeededSampler, suggest_params
from search.sampling.study_curves import StudyCurves, make_engine
from storage.rows import SampledTrial


class WorkerStudy(optuna.Study):
    """An Optuna study for a worker: it resumes the store's trials, and reads past ones rarely.

    Args:
        storage: Optuna's storage.
        plan: the plan of the study.
        name: name of the study.
        count_completed: counts the complete trials.
        peers: the curves of complete trials; None where the store does not know Optuna's tables, so
            that Optuna's class has to read them.
        history: the past trials for the sampler; None in the same case.
        curves: the learning curves of all trials, for the kinds of sampler that decide by them.
        earlier: loads the studies that this one learns from.
    """

    def __init__(
        self,
        storage: RDBStorage,
        plan: Plan,
        name: str,
        count_completed: Callable[[], int],
        peers: Peers | None = None,
        history: History | None = None,
        curves: StudyCurves | None = None,
        earlier: Callable[[], Sequence[EarlierStudy]] = tuple,
    ) -> None:
        self.curves = curves
        self._plan = plan
        self._earlier = earlier
        self._buffered_storage = BufferedStorage(storage, history)
        super().__init__(
            name,
            cast(BaseStorage, self._buffered_storage),
            sampler=TrialSeededSampler(plan.spec, self._make_curve_sampler),
            pruner=build_pruner(plan.spec),
        )
        self._count_completed = count_completed
        self._engine = storage.engine
        self.peers = peers
        self._complete: tuple[int, list[FrozenTrial]] | None = None

    @cached_property
    def engine(self) -> FreezeThaw:
        """The search of the kinds of sampler that decide by learning curves."""
        return make_engine(self._plan, self._earlier())

    def _make_curve_sampler(self, seed: int) -> BaseSampler:
        assert self.curves is not None
        return CurveSampler(self.engine, self.curves.read_curves, seed)

    def resume_trial(self, trial_id: int) -> Trial:
        """A trial that exists, to be sampled from all past trials, as `ask` does with a new one."""
        self._thread_local.cached_all_trials = None
        return Trial(self, trial_id)

    def sample_params(self, trial: Trial, plan: Plan) -> tuple[Params, SampledTrial]:
        """Sample a trial without writing anything.

        Returns:
            The parameters, and what has to be written to Optuna's tables.
        """
        with self._buffered_storage.buffered() as pending:
            params = suggest_params(trial, plan)
        return params, pending.to_sampled()

    def release_connections(self) -> None:
        """Close Optuna's connections to a server, which are not needed while a trial trains."""
        if self._engine.dialect.name != "sqlite":
            self._engine.dispose()

    def read_peers_at(self, epoch: int) -> Sequence[float]:
        """Read the trials that have completed since, then return `peers_at`.

        Raises:
            StoreError: when the database fails.
        """
        if self.peers is not None:
            self.peers.refresh()
        return self.peers_at(epoch)

    def peers_at(self, epoch: int) -> Sequence[float]:
        """The metrics of the complete trials at one epoch, where they have one."""
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
        """Read trials as Optuna does, but cache complete ones that need no copy.

        A pruner asks for them after every epoch. Optuna then reads every open trial of the study,
        with all its epochs, to see which have ended. Complete trials do not change, and one short
        query counts them.
        """
        if deepcopy or states != (TrialState.COMPLETE,):
            return super().get_trials(deepcopy, states)
        completed = self._count_completed()
        if self._complete is None or self._complete[0] != completed:
            self._complete = (completed, super().get_trials(deepcopy=False, states=states))
        return self._complete[1]
