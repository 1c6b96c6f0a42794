"""Suggests remedies of a study's own trials in place of sampled configurations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from search.diagnosis.stored_diagnosis import diagnose_complete, find_ending, list_class_names
from search.planning.plan import Plan
from search.planning.remedied_config import make_remedy_trial
from spaces.errors import StoreError
from spaces.records import Diagnosis
from storage.repositories.peer_curves import OVERLAP_S
from storage.rows import EnqueuedTrial, Finding, StoredTrial, SuggestedRemedies, TrialState
from storage.store import Store

logger = logging.getLogger(__name__)

DIAGNOSED_STATES: tuple[TrialState, ...] = ("complete", "pruned", "diverged")


@dataclass(frozen=True, slots=True)
class Candidate:
    """The first remedy of a trial.

    Attributes:
        confidence: how sure the cause is.
        number: of the trial.
        enqueued: the trial that tries the remedy.
    """

    confidence: float
    number: int
    enqueued: EnqueuedTrial


@dataclass
class RemedySuggester:
    """Finds the remedies that a study may try next, from what its trials have shown so far.

    Every ended trial with a clear cause whose first remedy is in the search space suggests it; the
    surest cause comes first, and of equally sure ones the lowest number. Each trial is read once,
    after it has ended. Whether a remedy has been tried is decided when a trial is claimed, under
    the lock on the study, so that no two workers try the same one.

    Attributes:
        store: an open store.
        study_id: of the study in the store.
        plan: of the study.
    """

    store: Store
    study_id: int
    plan: Plan
    _known: set[int] = field(default_factory=set)
    _seen_until: float | None = None
    _candidates: list[Candidate] = field(default_factory=list)
    _is_exhausted: bool = False

    def suggest_remedies(self) -> SuggestedRemedies | None:
        """The remedies of all ended trials, the first choice first; None where none is left.

        None as well while a trial is paused or a configuration is enqueued, which come first, and
        where the store does not know the version of Optuna's tables.

        Raises:
            StoreError: when the database fails.
        """
        most = self.plan.spec.sampler.remedies
        if most == 0 or self._is_exhausted or not self.store.remedies.may_try_new(self.study_id):
            return None
        self._read_ended()
        if not self._candidates:
            return None
        tried = self.store.remedies.list_tried(self.study_id)
        self._is_exhausted = sum(each.by_sampler for each in tried) >= most
        if self._is_exhausted:
            return None
        # An unknown choice, of version 0.1.0, may have been the first.
        first = {each.of for each in tried if each.choice in (None, 1)}
        self._candidates = [each for each in self._candidates if each.number not in first]
        found = sorted(self._candidates, key=lambda each: (-each.confidence, each.number))
        return SuggestedRemedies([each.enqueued for each in found], most) if found else None

    def _read_ended(self) -> None:
        """Read the trials that have ended since the last call, and keep those with a remedy."""
        since = None if self._seen_until is None else self._seen_until - OVERLAP_S
        ended = self.store.trials.list_ended(self.study_id, DIAGNOSED_STATES, since)
        new = [trial for trial in ended if trial.id not in self._known]
        if not new:
            return
        findings = self.store.findings.study_evidence(self.study_id, since)
        for trial in new:
            candidate = self._find_candidate(trial, findings.get(trial.id, ()))
            if candidate is not None:
                self._candidates.append(candidate)
            self._known.add(trial.id)
        latest = max(trial.finished_at or 0.0 for trial in new)
        self._seen_until = max(latest, self._seen_until or 0.0)

    def _find_candidate(self, trial: StoredTrial, found: Sequence[Finding]) -> Candidate | None:
        """The first remedy of a trial; None as well where its diagnosis fails."""
        try:
            diagnosis = self._diagnose(trial, found)
            if diagnosis is None or not diagnosis.is_clear or not diagnosis.remedies:
                return None
            enqueued = make_remedy_trial(self.plan, trial, 1, diagnosis, by_sampler=True)
        except StoreError:
            raise
        except Exception:
            logger.exception("trial %s: its diagnosis failed; no remedy is tried", trial.number)
            return None
        if enqueued is None:
            return None
        return Candidate(diagnosis.confidence, trial.number or 0, enqueued)

    def _diagnose(self, trial: StoredTrial, found: Sequence[Finding]) -> Diagnosis | None:
        if trial.state != "complete":
            ending = find_ending(trial, found)
            return None if ending is None else ending[1]
        records = self.store.epochs.trial_records(trial.id)
        names = list_class_names(trial.used or {}, records)
        direction = self.plan.spec.metric.direction
        return diagnose_complete(records, trial.config or {}, direction, names)
