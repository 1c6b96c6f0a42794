"""Optuna's storage as a worker uses it: what a sampler decides for one trial can be held back, to be written all at once."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState

from search.sampling.history import History
from storage.rows import SampledParam, SampledTrial


@dataclass
class Held:
    """What was held back, and the history as it was when it was first looked at."""

    params: list[SampledParam] = field(default_factory=list)
    system_attrs: dict[str, str] = field(default_factory=dict)
    history: list[FrozenTrial] | None = None

    def sampled(self) -> SampledTrial:
        """As the store takes it."""
        return SampledTrial(tuple(self.params), dict(self.system_attrs))


class HoldingStorage:
    """Optuna's own storage with the cache that it puts before every database; all but three methods are those.

    A sampler reads the history several times and writes every parameter on its own, each time in a transaction. Within
    `holding` the history is read once, and nothing is written.

    Args:
        history: reads the history faster, without failed and waiting trials; None for Optuna's own way.
    """

    def __init__(self, storage: RDBStorage, history: History | None = None) -> None:
        self._history = history
        self._storage: BaseStorage = get_storage(storage)
        self._held: Held | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """One trial is sampled in this block; whoever opened it has to write what was held back."""
        self._held = held = Held()
        try:
            yield held
        finally:
            self._held = None

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """As Optuna's, or held back."""
        if self._held is None:
            self._storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        else:
            self._held.params.append(
                SampledParam(param_name, param_value_internal, distribution_to_json(distribution))
            )

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's, or held back."""
        if self._held is None:
            self._storage.set_trial_system_attr(trial_id, key, value)
        else:
            self._held.system_attrs[key] = json.dumps(value)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As Optuna's, from a history that stands still while a trial is sampled."""
        if self._held is None or deepcopy:
            return self._storage.get_all_trials(study_id, deepcopy, states)
        if self._held.history is None:
            own = self._history
            self._held.history = (
                self._storage.get_all_trials(study_id, deepcopy=False)
                if own is None
                else own.trials()
            )
        return [trial for trial in self._held.history if states is None or trial.state in states]
