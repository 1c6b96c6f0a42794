"""One trial's side in Optuna: what it is told of the epochs and of the end, each of it at most once."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from search.plan import Plan
from search.pruners.peers import reason
from spaces.parameters import Scalar
from spaces.records import Diagnosis, EpochRecord, Evidence
from storage.optuna_tables import KILLED
from storage.rows import FinalState


class OptunaTrial:
    """A trial of Optuna's, new or taken up again.

    A worker may have died between telling Optuna the end and telling the store. Then the next worker finds a trial
    that is finished there and not here: it trains the lost epochs again, comes to the same end, and tells Optuna nothing.
    """

    def __init__(self, study: optuna.Study, trial: optuna.Trial) -> None:
        self.study, self.trial = study, trial
        self.finished = trial._cached_frozen_trial.state.is_finished()  # noqa: SLF001 - as it was read a moment ago

    @property
    def id(self) -> int:
        """Optuna's own id, not the number."""
        return int(self.trial._trial_id)  # noqa: SLF001

    @property
    def params(self) -> dict[str, Scalar]:
        """What was sampled, by dotted path."""
        return self.trial.params

    def report(self, record: EpochRecord) -> None:
        """Tell the epoch's metric; a broken epoch has none, and a resumed one is known already (Optuna would warn)."""
        known = self.trial._cached_frozen_trial.intermediate_values  # noqa: SLF001
        if not self.finished and record.metric == record.metric and record.epoch not in known:
            self.trial.report(record.metric, record.epoch)

    def worse_than_peers(self, plan: Plan, epoch: int) -> str | None:
        """The pruner's reason to end the trial, or None."""
        if self.finished or not self.trial.should_prune():
            return None
        return reason(self.study, self.trial, epoch, plan.spec.pruner, plan.spec.metric.direction)

    def end(self, state: FinalState, score: float | None, why: str, evidence: Evidence | None, diagnosis: Diagnosis | None) -> None:
        """Tell the end. A diverged trial is PRUNED and infeasible, so that the sampler learns to stay away."""
        if self.finished:
            return
        if evidence is not None and diagnosis is not None:
            self.trial.set_constraint("diverged", evidence.severity)
            self.trial.set_user_attr("cause", diagnosis.cause)
        if state != "complete":
            self.trial.set_user_attr(KILLED, why)
        ends = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(state, TrialState.PRUNED)
        self.study.tell(self.trial, score if state == "complete" else None, state=ends, skip_if_finished=True)
        self.finished = True
