"""One trial's side in Optuna: what it is told of the epochs and of the end, each of it at most once."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from search.planning.plan import Plan
from search.pruners.build import explain_pruning
from search.pruners.median import falls_short
from search.sampling.study import WorkerStudy
from spaces.parameters import Scalar
from spaces.records import Diagnosis, EpochRecord, Evidence
from storage.rows import FinalState, OptunaEnd
from storage.tables.optuna import KILLED


class OptunaTrial:
    """A trial of Optuna's, new or taken up again.

    Where the store knows Optuna's tables it tells Optuna, in the transaction of its own row; what was told is only noted here.
    Else Optuna's class does, in one of its own. A worker may die between the two. Then the next worker finds a trial that is
    finished there and not here: it trains the lost epochs again, comes to the same end, and tells Optuna nothing.

    Args:
        by_store: whether the store tells Optuna.
    """

    def __init__(self, study: WorkerStudy, trial: optuna.Trial, *, by_store: bool) -> None:
        self.study, self.trial, self.by_store = study, trial, by_store
        self.finished = trial._cached_frozen_trial.state.is_finished()  # noqa: SLF001 - as it was read a moment ago

    @property
    def id(self) -> int:
        """Optuna's own id, not the number."""
        return int(self.trial._trial_id)  # noqa: SLF001

    @property
    def params(self) -> dict[str, Scalar]:
        """What was sampled, by dotted path."""
        return self.trial.params

    @property
    def reported(self) -> dict[int, float]:
        """Metrics by epoch, as the pruner is shown them."""
        return self.trial._cached_frozen_trial.intermediate_values  # noqa: SLF001

    def report(self, record: EpochRecord) -> None:
        """Tell the epoch's metric; a broken epoch has none. Whatever an older attempt told of this epoch and later ones is forgotten."""
        if self.finished:
            return
        for later in [epoch for epoch in self.reported if epoch >= record.epoch]:
            del self.reported[later]
        if record.metric != record.metric:
            return
        if not self.by_store:
            self.trial.storage.set_trial_intermediate_value(self.id, record.epoch, record.metric)
        self.reported[record.epoch] = record.metric

    def worse_than_peers(self, plan: Plan, epoch: int) -> str | None:
        """The pruner's reason to end the trial, or None."""
        if self.finished or not self.falls_short(plan):
            return None
        return explain_pruning(
            self.reported,
            epoch,
            plan.spec.pruner,
            plan.spec.metric.direction,
            self.study.peers_at(epoch),
        )

    def falls_short(self, plan: Plan) -> bool:
        """Whether the pruner wants the trial to end."""
        pruner = plan.spec.pruner
        if pruner.kind != "median" or self.study.peers is None:
            return self.trial.should_prune()
        if pruner.warmup_epochs < max(self.reported, default=0):
            self.study.peers.refresh()
        return falls_short(self.reported, self.study.peers, pruner, plan.spec.metric.direction)

    def end(self, told: OptunaEnd) -> None:
        """Tell the end, unless the store does."""
        if self.finished or self.by_store:
            return
        self.finished = self.trial.storage.get_trial(
            self.id
        ).state.is_finished()  # by a try whose answer was lost
        if self.finished:
            return
        for name, value in told.constraints.items():
            self.trial.set_constraint(name, value)
        for key, value in told.user_attrs.items():
            self.trial.set_user_attr(key, value)
        self.study.tell(self.trial, told.value, state=TrialState[told.state], skip_if_finished=True)
        self.finished = True


def end_of(
    state: FinalState,
    score: float | None,
    why: str,
    evidence: Evidence | None,
    diagnosis: Diagnosis | None,
) -> OptunaEnd:
    """What Optuna is told of an end. A diverged trial is PRUNED and infeasible, so that the sampler learns to stay away."""
    constraints: dict[str, float] = {}
    attrs: dict[str, str] = {}
    if evidence is not None and diagnosis is not None:
        constraints["diverged"] = float(evidence.severity)
        attrs["cause"] = diagnosis.cause
    if state == "complete":
        return OptunaEnd("COMPLETE", score, constraints, attrs)
    return OptunaEnd(
        "FAIL" if state == "failed" else "PRUNED", None, constraints, attrs | {KILLED: why}
    )
