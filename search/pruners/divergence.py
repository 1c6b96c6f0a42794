"""The divergence signals as a pruner of Optuna's, for anybody's own script over any storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial

from search.judge import graded
from search.signals import fired
from spaces.config import Direction
from spaces.epoch_rows import make_record
from spaces.loader import check
from spaces.records import EpochRecord, Evidence
from spaces.signals import SignalsConfig

KILLED = "killed"
"""User attribute of a trial that diverged: which signal fired, and on what numbers."""

EpochLog = Callable[[int], Sequence[EpochRecord]]
"""The recorded epochs of a trial, by Optuna's id of it."""


class DivergencePruner(BasePruner):
    """Ends trials that diverge, says why, and has the sampler learn from it; all others are left to the wrapped pruner.

    A trial that diverges is PRUNED, with a constraint above 0 under the name `diverged`: TPE learns that its region is
    infeasible, where a plainly pruned trial would be ranked by its last step. The reason stands in the user attribute
    `killed`. What a signal needs and nobody recorded, it does not judge.

    Args:
        wrapped: asked about trials that do not diverge; None: nobody is.
        signals: thresholds by name, as under `signals:` in a study's YAML; what is left out has its default.
        epochs: of a whole trial: the earlier in it a trial diverged, the more severe. None: the epoch plays no part.
        epoch_log: where else epochs are recorded, such as `store_log(url)`; asked for trials that `log` was told nothing of.

    Raises:
        StudyError: for an unknown signal or threshold, or one out of range.

    >>> pruner = DivergencePruner(optuna.pruners.MedianPruner(), {"gradient_explosion": {"max_norm": 100.0}}, epochs=30)
    >>> study = optuna.create_study(pruner=pruner)
    """

    def __init__(
        self,
        wrapped: BasePruner | None = None,
        signals: SignalsConfig | Mapping[str, Any] | None = None,
        *,
        epochs: int | None = None,
        epoch_log: EpochLog | None = None,
    ) -> None:
        self.wrapped = NopPruner() if wrapped is None else wrapped
        self.signals = signals if isinstance(signals, SignalsConfig) else check(SignalsConfig, dict(signals or {}), "DivergencePruner, signals")
        self.epochs, self._epoch_log = epochs, epoch_log
        self._told: dict[int, list[EpochRecord]] = {}
        self._killed: set[int] = set()

    def log(self, trial: Trial, epoch: int, *, loss: float, metric: float, **figures: Any) -> None:
        """Report an epoch's metric to Optuna, and remember all of it for the signals.

        Args:
            trial: the one at hand.
            epoch: counted from 1; the step of Optuna's report.
            loss: the training loss.
            metric: what the study is judged by.
            figures: whatever else an epoch recorded, by the names of `EpochRecord`: val_loss, grad_norm_max, class_metric, …

        Raises:
            InputError: for a figure that no epoch has, or of another type.
        """
        record = make_record({"epoch": epoch, "loss": loss, "metric": metric, **figures}, f"trial {trial.number}, epoch {epoch}")
        self._told.setdefault(trial._trial_id, []).append(record)  # noqa: SLF001
        if metric == metric:
            trial.report(metric, epoch)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end; Optuna asks through `trial.should_prune()`."""
        if trial._trial_id in self._killed or KILLED in trial.user_attrs:  # noqa: SLF001 - asked again: a constraint is set once
            return True
        evidence = self.evidence(study, trial)
        if evidence is None:
            return self.wrapped.prune(study, trial)
        live = Trial(study, trial._trial_id)  # noqa: SLF001
        live.set_constraint("diverged", graded(evidence, self.epochs))
        live.set_user_attr(KILLED, f"{evidence.signal}: {evidence.statement}")
        self._killed.add(trial._trial_id)  # noqa: SLF001
        return True

    def evidence(self, study: optuna.Study, trial: FrozenTrial) -> Evidence | None:
        """What fires on the trial as it stands, with the numbers; None when nothing does."""
        direction: Direction = "minimize" if study.direction == StudyDirection.MINIMIZE else "maximize"
        return fired(self.records(trial), self.signals, direction)

    def records(self, trial: FrozenTrial) -> Sequence[EpochRecord]:
        """The epochs that are known: logged here, else in the epoch log, else what was reported to Optuna."""
        trial_id = trial._trial_id  # noqa: SLF001
        if trial_id in self._told:
            return self._told[trial_id]
        if self._epoch_log is not None and (found := self._epoch_log(trial_id)):
            return found
        # Reports tell the metric alone: a loss that stands still fires nothing.
        reported = enumerate((value for _, value in sorted(trial.intermediate_values.items())), 1)
        return [make_record({"epoch": epoch, "loss": 0.0, "metric": value}) for epoch, value in reported]


def store_log(url: str) -> EpochLog:
    """The epochs that workers of `search` recorded in the store at `url`, beside Optuna's trials in the same database.

    Raises:
        StoreError: when there is no store.
    """
    from storage.store import open_store

    store = open_store(url, create=False)
    return store.records_of_optuna
