"""Optuna's storage for a worker, which can buffer the writes of one trial."""

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
class PendingWrites:
    """Buffered writes of one trial.

    Attributes:
        history: past trials as of the first read; None before that.
    """

    params: list[SampledParam] = field(default_factory=list)
    system_attrs: dict[str, str] = field(default_factory=dict)
    history: list[FrozenTrial] | None = None

    def to_sampled(self) -> SampledTrial:
        """The writes as the store takes them."""
        return SampledTrial(tuple(self.params), dict(self.system_attrs))


class BufferedStorage:
    """Optuna's storage with its cache; all methods but three are Optuna's.

    A sampler reads the history several times and writes each parameter separately, each time in a
    transaction. Within `buffered` the history is read once, and nothing is written.

    Args:
        storage: Optuna's storage.
        history: reads past trials faster, without failed and waiting ones; None reads them as
            Optuna does.
    """

    def __init__(self, storage: RDBStorage, history: History | None = None) -> None:
        self._history = history
        self._storage: BaseStorage = get_storage(storage)
        self._pending: PendingWrites | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @contextmanager
    def buffered(self) -> Iterator[PendingWrites]:
        """A block in which one trial is sampled; the caller then writes what was buffered."""
        pending = PendingWrites()
        self._pending = pending
        try:
            yield pending
        finally:
            self._pending = None

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Set a parameter, or buffer it."""
        if self._pending is None:
            self._storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        else:
            self._pending.params.append(
                SampledParam(param_name, param_value_internal, distribution_to_json(distribution))
            )

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute, or buffer it."""
        if self._pending is None:
            self._storage.set_trial_system_attr(trial_id, key, value)
        else:
            self._pending.system_attrs[key] = json.dumps(value)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Read all trials; the history does not change while a trial is sampled."""
        if self._pending is None or deepcopy:
            return self._storage.get_all_trials(study_id, deepcopy, states)
        if self._pending.history is None:
            self._pending.history = self._read_history(study_id)
        return [trial for trial in self._pending.history if states is None or trial.state in states]

    def _read_history(self, study_id: int) -> list[FrozenTrial]:
        if self._history is None:
            return self._storage.get_all_trials(study_id, deepcopy=False)
        return self._history.list_trials()
