"""The past trials of a study for its sampler: all are read once, then only new and open ones."""

from __future__ import annotations

import json
from collections.abc import Callable

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace, _SearchSpaceGroup
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from storage.repositories.sampler_history import PastTrial
from storage.tables.optuna_tables import CONSTRAINTS

SAMPLED_STATES = {
    "COMPLETE": TrialState.COMPLETE,
    "PRUNED": TrialState.PRUNED,
    "RUNNING": TrialState.RUNNING,
}
OPEN_STATES = ("RUNNING", "WAITING")

ReadTrials = Callable[[int, list[int]], list[PastTrial]]
"""Reads the trials after one of Optuna's ids, and those of some ids."""


class SampledTrial(FrozenTrial):
    """A trial with only what a sampler reads: no times, no user attributes, one report."""

    def __init__(self, past: PastTrial, distributions: dict[str, BaseDistribution]) -> None:
        super().__init__(
            number=past.number,
            state=SAMPLED_STATES[past.state],
            value=past.value,
            datetime_start=None,
            datetime_complete=None,
            params={
                name: distributions[text].to_external_repr(value)
                for name, value, text in past.params
            },
            distributions={name: distributions[text] for name, _, text in past.params},
            user_attrs={},
            system_attrs={key: json.loads(text) for key, text in past.attrs.items()},
            intermediate_values={} if past.last is None else dict([past.last]),
            trial_id=past.trial_id,
        )
        self._constraints = (
            super().constraints if any(key.startswith(CONSTRAINTS) for key in past.attrs) else {}
        )

    @property
    def constraints(self) -> dict[str, float]:
        """The constraints by name, cached: a sampler reads those of every trial several times."""
        return self._constraints


class DistinctGroups(_GroupDecomposedSearchSpace):
    """Optuna's groups of jointly sampled dimensions, computed from one trial per set of dimensions.

    Each trial splits the groups until its own dimensions are a union of some of them. Another trial
    with the same dimensions changes nothing. With thousands of trials, going through all of them
    would take as long as sampling does.
    """

    def calculate(self, study: Study, use_cache: bool = False) -> _SearchSpaceGroup:
        """Compute the groups from the first trial with each set of dimensions."""
        groups = _SearchSpaceGroup()
        seen = set()
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        for trial in study._get_trials(False, states, use_cache):  # noqa: SLF001
            names = frozenset(trial.distributions)
            if names not in seen:
                seen.add(names)
                groups.add_distributions(trial.distributions)
        return groups


class History:
    """The complete, pruned and running trials of a study, ordered by number.

    Args:
        read: reads them from the store.
    """

    def __init__(self, read: ReadTrials) -> None:
        self._read = read
        self._latest = -1
        self._open: dict[int, SampledTrial | None] = {}
        self._ended: dict[int, SampledTrial] = {}
        self._distributions: dict[str, BaseDistribution] = {}

    def list_trials(self) -> list[FrozenTrial]:
        """The trials as they are now.

        Raises:
            StoreError: when the database fails.
        """
        for past in self._read(self._latest, list(self._open)):
            self._update_trial(past)
        running = [trial for trial in self._open.values() if trial is not None]
        return sorted([*self._ended.values(), *running], key=lambda trial: trial.number)

    def _update_trial(self, past: PastTrial) -> None:
        self._latest = max(self._latest, past.trial_id)
        trial = self._make_trial(past) if past.state in SAMPLED_STATES else None
        if past.state in OPEN_STATES:
            self._open[past.trial_id] = trial
            return
        self._open.pop(past.trial_id, None)
        if trial is not None:
            self._ended[past.trial_id] = trial

    def _make_trial(self, past: PastTrial) -> SampledTrial:
        for _, _, text in past.params:
            if text not in self._distributions:
                self._distributions[text] = json_to_distribution(text)
        return SampledTrial(past, self._distributions)
