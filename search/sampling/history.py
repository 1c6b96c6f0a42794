"""The past of a study for its sampler: read in bulk once, and then only what is new or has not ended."""

from __future__ import annotations

import json
from collections.abc import Callable

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace, _SearchSpaceGroup
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from storage.repositories.sampler_history import PastTrial
from storage.tables.optuna import CONSTRAINTS

LOOKED_AT = {
    "COMPLETE": TrialState.COMPLETE,
    "PRUNED": TrialState.PRUNED,
    "RUNNING": TrialState.RUNNING,
}
OPEN = ("RUNNING", "WAITING")

Read = Callable[[int, list[int]], list[PastTrial]]
"""Reads the trials later than an id of Optuna's, and those of some ids."""


class SampledTrial(FrozenTrial):
    """A trial with what a sampler looks at: without times and user attributes, and with no more than the last report of a pruned one."""

    def __init__(self, past: PastTrial, distributions: dict[str, BaseDistribution]) -> None:
        super().__init__(
            number=past.number,
            state=LOOKED_AT[past.state],
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
        """By name. A sampler asks for those of every trial several times, and they do not change."""
        return self._constraints


class DistinctGroups(_GroupDecomposedSearchSpace):
    """Optuna's groups of dimensions that are sampled together, made from one trial for every set of dimensions.

    Each trial refines the groups until its own dimensions are a union of some of them. They stay so, and another trial with
    the same dimensions changes nothing; with thousands of trials, asking all of them takes as long as sampling does.
    """

    def calculate(self, study: Study, use_cache: bool = False) -> _SearchSpaceGroup:
        """The groups, from the first trial with each set of dimensions, by number."""
        groups, seen = _SearchSpaceGroup(), set()
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        for trial in study._get_trials(False, states, use_cache):  # noqa: SLF001
            names = frozenset(trial.distributions)
            if names not in seen:
                seen.add(names)
                groups.add_distributions(trial.distributions)
        return groups


class History:
    """The complete, pruned and running trials of a study, by their number.

    Args:
        read: reads them from the store.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._latest = -1
        self._open: dict[int, SampledTrial | None] = {}
        self._ended: dict[int, SampledTrial] = {}
        self._distributions: dict[str, BaseDistribution] = {}

    def trials(self) -> list[FrozenTrial]:
        """As they are now.

        Raises:
            StoreError: when the database fails.
        """
        for past in self._read(self._latest, list(self._open)):
            self._take_up(past)
        running = [trial for trial in self._open.values() if trial is not None]
        return sorted([*self._ended.values(), *running], key=lambda trial: trial.number)

    def _take_up(self, past: PastTrial) -> None:
        self._latest = max(self._latest, past.trial_id)
        trial = self._made(past) if past.state in LOOKED_AT else None
        if past.state in OPEN:
            self._open[past.trial_id] = trial
            return
        self._open.pop(past.trial_id, None)
        if trial is not None:
            self._ended[past.trial_id] = trial

    def _made(self, past: PastTrial) -> SampledTrial:
        for _, _, text in past.params:
            if text not in self._distributions:
                self._distributions[text] = json_to_distribution(text)
        return SampledTrial(past, self._distributions)
