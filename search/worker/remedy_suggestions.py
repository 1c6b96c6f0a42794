"""Suggests remedies of a study's own trials in place of sampled configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from search.diagnosis.stored_diagnosis import diagnose_complete, find_ending, list_class_names
from search.planning.plan import Plan
from search.planning.remedied_config import make_remedy_trial
from spaces.records import Diagnosis
from storage.rows import EnqueuedTrial, StoredTrial, SuggestedRemedies
from storage.store import Store

DIAGNOSED_STATES = ("complete", "pruned", "diverged")


@dataclass
class RemedySuggester:
    """Finds the remedies that a study may try next, from what its trials have shown so far.

    Every ended trial with a clear cause whose first remedy is in the search space suggests it; the
    surest cause comes first, and of equally sure ones the lowest number. Whether a remedy has been
    tried is decided when a trial is claimed, under the lock on the study, so that no two workers
    try the same one.

    Attributes:
        store: an open store.
        study_id: of the study in the store.
        plan: of the study.
    """

    store: Store
    study_id: int
    plan: Plan
    _suggested: dict[int, tuple[float, EnqueuedTrial] | None] = field(default_factory=dict)
    _is_exhausted: bool = False

    def suggest_remedies(self) -> SuggestedRemedies | None:
        """The remedies of all ended trials, the first choice first; None where none is left.

        None as well where the store does not know the version of Optuna's tables.

        Raises:
            StoreError: when the database fails.
        """
        most = self.plan.spec.sampler.remedies
        if most == 0 or self._is_exhausted or not self.store.knows_optuna():
            return None
        tried = self.store.remedies.list_tried(self.study_id)
        self._is_exhausted = sum(each.by_sampler for each in tried) >= most
        if self._is_exhausted:
            return None
        found = self._list_suggested(self.store.trials.list_trials(self.study_id))
        return SuggestedRemedies(found, most) if found else None

    def _list_suggested(self, trials: Sequence[StoredTrial]) -> list[EnqueuedTrial]:
        found = []
        for trial in trials:
            if trial.state not in DIAGNOSED_STATES:
                continue
            if trial.id not in self._suggested:
                self._suggested[trial.id] = self._suggest_remedy(trial)
            suggested = self._suggested[trial.id]
            if suggested is not None:
                found.append((-suggested[0], trial.number or 0, suggested[1]))
        return [trial for _, _, trial in sorted(found, key=lambda each: each[:2])]

    def _suggest_remedy(self, trial: StoredTrial) -> tuple[float, EnqueuedTrial] | None:
        """The first remedy of a trial, with how sure its cause is."""
        diagnosis = self._diagnose(trial)
        if diagnosis is None or not diagnosis.is_clear or not diagnosis.remedies:
            return None
        enqueued = make_remedy_trial(self.plan, trial, 1, diagnosis, by_sampler=True)
        return None if enqueued is None else (diagnosis.confidence, enqueued)

    def _diagnose(self, trial: StoredTrial) -> Diagnosis | None:
        if trial.state != "complete":
            ending = find_ending(trial, self.store.findings.trial_evidence(trial.id))
            return None if ending is None else ending[1]
        records = self.store.epochs.trial_records(trial.id)
        names = list_class_names(trial.used or {}, records)
        direction = self.plan.spec.metric.direction
        return diagnose_complete(records, trial.config or {}, direction, names)
