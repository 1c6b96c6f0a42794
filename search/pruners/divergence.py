"""The divergence signals as a pruner of Optuna's, for anybody's own script over any storage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial

from search.pruners.signals import fired
from search.pruners.verdict import graded
from spaces.config import Direction
from spaces.errors import ConfigError, RecordsError, nearest
from spaces.loader import check
from spaces.record_json import make_record
from spaces.records import EpochRecord, Evidence
from spaces.thresholds import SignalsConfig

KILLED = "killed"
"""User attribute of a trial that diverged: which signal fired, and on what numbers."""

Key = tuple[str, int]
"""Name of a study, which is unique in a storage and random in memory, and the number of a trial."""

FIGURES = tuple(
    item.name
    for item in fields(EpochRecord)
    if item.name not in ("epoch", "metric", "used", "test")
)

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
        ConfigError: for a pruner, epochs or signals of another kind.

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
        if not isinstance(wrapped, BasePruner | None):
            raise ConfigError(
                "that is no pruner",
                where="DivergencePruner, wrapped",
                found=repr(wrapped)[:80],
                allowed="a pruner of Optuna's, or None",
                next_step="such as optuna.pruners.MedianPruner()",
            )
        if epochs is not None and (not isinstance(epochs, int) or epochs < 1):
            raise ConfigError(
                "a trial has at least one epoch",
                where="DivergencePruner, epochs",
                found=repr(epochs)[:80],
                allowed="a whole number from 1 on, or None",
                next_step="give the epochs of a whole trial",
            )
        if not isinstance(signals, SignalsConfig | Mapping | None):
            raise ConfigError(
                "thresholds are given by signal",
                where="DivergencePruner, signals",
                found=repr(signals)[:80],
                allowed="a mapping such as {'loss_rising': {'epochs': 6}}",
                next_step="see docs/studies.md for the names",
            )
        self.wrapped = NopPruner() if wrapped is None else wrapped
        self.signals = (
            signals
            if isinstance(signals, SignalsConfig)
            else check(SignalsConfig, dict(signals or {}), "DivergencePruner, signals")
        )
        self.epochs, self._epoch_log = epochs, epoch_log
        # By study and trial: storages in memory count their trials from 0, each of them.
        self._told: dict[Key, list[EpochRecord]] = {}
        self._killed: set[Key] = set()

    def log(
        self, trial: Trial, epoch: int, *, loss: float, metric: float | None, **figures: Any
    ) -> None:
        """Report an epoch's metric to Optuna, and remember all of it for the signals.

        Args:
            trial: the one at hand.
            epoch: counted from 1; the step of Optuna's report.
            loss: the training loss.
            metric: what the study is judged by; None where the epoch was not validated.
            figures: whatever else an epoch recorded, by the names of `EpochRecord`: val_loss, grad_norm_max, class_metric, …

        Raises:
            InputError: for a figure that no epoch has, or of another type.
        """
        place = f"trial {trial.number}, epoch {epoch}"
        for name in figures:
            if name not in FIGURES:
                raise RecordsError(
                    f"unknown figure {name!r}{nearest(name, FIGURES)}",
                    where=place,
                    found=name,
                    allowed=", ".join(FIGURES),
                    next_step="name one of these",
                )
        plain = {
            name: _plain(value)
            for name, value in {"epoch": epoch, "loss": loss, "metric": metric, **figures}.items()
        }
        self._told.setdefault((trial.study.study_name, trial.number), []).append(
            make_record(plain, place)
        )
        if plain["metric"] is not None and math.isfinite(plain["metric"]):
            trial.report(plain["metric"], epoch)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end; Optuna asks through `trial.should_prune()`."""
        if (
            study.study_name,
            trial.number,
        ) in self._killed or KILLED in trial.user_attrs:  # asked again: a constraint is set once
            return True
        evidence = self.evidence(study, trial)
        if evidence is None:
            return self.wrapped.prune(study, trial)
        live = Trial(study, trial._trial_id)  # noqa: SLF001
        live.set_constraint("diverged", graded(evidence, self.epochs))
        live.set_user_attr(KILLED, f"{evidence.signal}: {evidence.statement}")
        self._killed.add((study.study_name, trial.number))
        return True

    def evidence(self, study: optuna.Study, trial: FrozenTrial) -> Evidence | None:
        """What fires on the trial as it stands, with the numbers; None when nothing does."""
        direction: Direction = (
            "minimize" if study.direction == StudyDirection.MINIMIZE else "maximize"
        )
        return fired(self.records(study, trial), self.signals, direction)

    def records(self, study: optuna.Study, trial: FrozenTrial) -> Sequence[EpochRecord]:
        """The epochs that are known: logged here, else in the epoch log, else what was reported to Optuna."""
        if told := self._told.get((study.study_name, trial.number)):
            return told
        if self._epoch_log is not None and (found := self._epoch_log(trial._trial_id)):  # noqa: SLF001
            return found
        # Reports tell the metric alone: a loss that stands still fires nothing.
        reported = enumerate((value for _, value in sorted(trial.intermediate_values.items())), 1)
        return [
            make_record({"epoch": epoch, "loss": 0.0, "metric": value}) for epoch, value in reported
        ]


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's own, in lists, too."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def store_log(url: str) -> EpochLog:
    """The epochs that workers of `search` recorded in the store at `url`, beside Optuna's trials in the same database.

    Raises:
        StoreError: when there is no store.
    """
    from storage.location import StoreLocation

    store = StoreLocation.parse(url).open(create=False)
    return store.epochs.optuna_trial_records
