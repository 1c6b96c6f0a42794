"""Optuna's side of one trial: reports its epochs and its end to Optuna, each at most once."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from search.planning.plan import Plan
from search.pruners.build import explain_pruning
from search.pruners.median import falls_short
from search.sampling.worker_study import WorkerStudy
from spaces.parameters import Scalar
from spaces.records import EpochRecord
from storage.rows import OptunaEnd, Outcome
from storage.tables.optuna_tables import KILLED


class OptunaTrial:
    """A trial of Optuna's, new or resumed.

    Where the store knows Optuna's tables it writes them, in the same transaction as its own row,
    and this class only keeps the reported metrics in memory. Otherwise Optuna's class writes, in
    another transaction, and a worker may die between the two. The next worker then finds a trial
    that has ended in Optuna's tables and not in ours: it trains the lost epochs again, comes to the
    same end, and reports nothing to Optuna.

    Args:
        study: Optuna's study.
        trial: Optuna's trial.
        is_written_by_store: whether the store writes Optuna's tables.
    """

    def __init__(
        self, study: WorkerStudy, trial: optuna.Trial, *, is_written_by_store: bool
    ) -> None:
        self.study = study
        self.trial = trial
        self.is_written_by_store = is_written_by_store
        frozen = trial._cached_frozen_trial  # noqa: SLF001 - read a moment ago
        self.is_finished = frozen.state.is_finished()

    @property
    def id(self) -> int:
        """Optuna's id of the trial, not its number."""
        return int(self.trial._trial_id)  # noqa: SLF001

    @property
    def params(self) -> dict[str, Scalar]:
        """The sampled values by dotted path."""
        return self.trial.params

    @property
    def reported(self) -> dict[int, float]:
        """Metrics by epoch, as the pruner sees them."""
        return self.trial._cached_frozen_trial.intermediate_values  # noqa: SLF001

    def report_epoch(self, record: EpochRecord) -> None:
        """Report an epoch's metric, unless it is NaN.

        Reports of an earlier attempt for this epoch and later ones are dropped.
        """
        if self.is_finished:
            return
        for later in [epoch for epoch in self.reported if epoch >= record.epoch]:
            del self.reported[later]
        if record.metric != record.metric:
            return
        if not self.is_written_by_store:
            self.trial.storage.set_trial_intermediate_value(self.id, record.epoch, record.metric)
        self.reported[record.epoch] = record.metric

    def worse_than_peers(self, plan: Plan, epoch: int) -> str | None:
        """The pruner's reason to end the trial, or None."""
        if self.is_finished or not self._should_prune(plan):
            return None
        return explain_pruning(
            self.reported,
            epoch,
            plan.spec.pruner,
            plan.spec.metric.direction,
            self.study.peers_at(epoch),
        )

    def _should_prune(self, plan: Plan) -> bool:
        pruner = plan.spec.pruner
        if pruner.kind != "median" or self.study.peers is None:
            return self.trial.should_prune()
        if pruner.warmup_epochs < max(self.reported, default=0):
            self.study.peers.refresh()
        return falls_short(self.reported, self.study.peers, pruner, plan.spec.metric.direction)

    def finish_trial(self, end: OptunaEnd) -> None:
        """Write the trial's end to Optuna's tables, unless the store does."""
        if self.is_finished or self.is_written_by_store:
            return
        # An earlier try may have written it, and its answer was lost.
        self.is_finished = self.trial.storage.get_trial(self.id).state.is_finished()
        if self.is_finished:
            return
        for name, value in end.constraints.items():
            self.trial.set_constraint(name, value)
        for key, value in end.user_attrs.items():
            self.trial.set_user_attr(key, value)
        self.study.tell(self.trial, end.value, state=TrialState[end.state], skip_if_finished=True)
        self.is_finished = True


def optuna_end(outcome: Outcome) -> OptunaEnd:
    """The end of a trial in Optuna's tables.

    A diverged trial is PRUNED and infeasible, so that the sampler learns to stay away; one that was
    pruned as slow, or by its peers, stays feasible.
    """
    constraints: dict[str, float] = {}
    attributes: dict[str, str] = {}
    if outcome.evidence is not None and outcome.diagnosis is not None:
        attributes["cause"] = outcome.diagnosis.withhold_unclear().cause
        if outcome.state == "diverged":
            constraints["diverged"] = float(outcome.evidence.severity)
    if outcome.state == "complete":
        return OptunaEnd("COMPLETE", outcome.score, constraints, attributes)
    attributes[KILLED] = outcome.reason
    if outcome.state == "failed":
        return OptunaEnd("FAIL", None, constraints, attributes)
    return OptunaEnd("PRUNED", None, constraints, attributes)
