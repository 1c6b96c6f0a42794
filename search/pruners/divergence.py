"""The divergence signals as a pruner for any Optuna script, over any storage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from search.pruners.signals import find_divergence
from search.pruners.sparing import score_so_far, spare_by_course, spare_by_peers
from search.pruners.verdict import end_trial
from spaces.config import Direction, MetricConfig
from spaces.errors import ConfigError, RecordsError, nearest
from spaces.loader import check
from spaces.record_json import make_record
from spaces.records import EpochRecord, Evidence
from spaces.thresholds import SignalsConfig

KILLED = "killed"
"""User attribute of a trial that a signal ended: the signal, and its numbers."""

Key = tuple[str, int]
"""Name of a study, which is unique in a storage and random in memory, and number of a trial."""

FIGURES = tuple(
    item.name
    for item in fields(EpochRecord)
    if item.name not in ("epoch", "metric", "used", "test")
)

EpochLog = Callable[[int], Sequence[EpochRecord]]
"""Optuna's id of a trial → its recorded epochs."""


class DivergencePruner(BasePruner):
    """Prunes trials that diverge or learn nothing, and asks a wrapped pruner about all others.

    A trial that diverges is PRUNED, with a constraint above 0 under the name `diverged`: TPE learns
    that its region is infeasible, where it would rank a plainly pruned trial by its last step. A
    trial that is slow (`not_learning`) gets no constraint. The user attribute `killed` has the
    reason. A trial that is almost over, still improving, or among the best of the study's complete
    trials at that epoch is spared (`sparing` in the signals); the wrapped pruner decides about it.
    A signal does not judge where the numbers that it needs were not recorded.

    Args:
        wrapped: the pruner for trials that do not diverge; None: they are never pruned.
        signals: thresholds by signal, as under `signals:` in a study's YAML, defaults left out.
        epochs: of a complete trial: the earlier a trial diverges, the higher the constraint, and
            one that is almost over is spared. None: neither applies.
        epoch_log: another source of epochs, such as `store_log(url)`, for trials of which `log`
            recorded nothing.

    Raises:
        StudyError: for an unknown signal or threshold, or one out of range.
        ConfigError: for a pruner, epochs or signals of the wrong type.

    >>> explosion = {"gradient_explosion": {"max_norm": 100.0}}
    >>> pruner = DivergencePruner(optuna.pruners.MedianPruner(), explosion, epochs=30)
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
                "that is not a pruner",
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
                allowed="an integer of at least 1, or None",
                next_step="pass the number of epochs of a complete trial",
            )
        self.wrapped = NopPruner() if wrapped is None else wrapped
        self.signals = _checked_signals(signals)
        self.epochs = epochs
        self._epoch_log = epoch_log
        # By study and trial, as every study in memory counts its trials from 0.
        self._logged: dict[Key, list[EpochRecord]] = {}
        self._killed: set[Key] = set()

    def log(
        self, trial: Trial, epoch: int, *, loss: float, metric: float | None, **figures: Any
    ) -> None:
        """Report the metric of an epoch to Optuna, and keep its numbers for the signals.

        Args:
            trial: the current trial.
            epoch: counted from 1; the step of Optuna's report.
            loss: the training loss.
            metric: the study's metric; None where the epoch was not validated.
            figures: other fields of `EpochRecord` by name: val_loss, grad_norm_max, class_metric, …

        Raises:
            InputError: for a name that no record has, or a value of the wrong type.
        """
        place = f"trial {trial.number}, epoch {epoch}"
        for name in figures:
            if name not in FIGURES:
                raise RecordsError(
                    f"unknown figure {name!r}{nearest(name, FIGURES)}",
                    where=place,
                    found=name,
                    allowed=", ".join(FIGURES),
                    next_step="use one of these names",
                )
        values = {"epoch": epoch, "loss": loss, "metric": metric, **figures}
        plain = {name: _to_python(value) for name, value in values.items()}
        logged = self._logged.setdefault((trial.study.study_name, trial.number), [])
        logged.append(make_record(plain, place))
        if plain["metric"] is not None and math.isfinite(plain["metric"]):
            trial.report(plain["metric"], epoch)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end; Optuna calls it in `trial.should_prune()`."""
        key = (study.study_name, trial.number)
        if key in self._killed or KILLED in trial.user_attrs:
            return True  # a constraint can be set only once
        evidence = self.find_evidence(study, trial)
        if evidence is None or self._spare_trial(study, trial, evidence) is not None:
            return self.wrapped.prune(study, trial)
        verdict = end_trial(evidence, self.epochs)
        live = Trial(study, trial._trial_id)  # noqa: SLF001
        if verdict.action == "diverged" and verdict.evidence is not None:
            live.set_constraint("diverged", verdict.evidence.severity)
        live.set_user_attr(KILLED, verdict.reason)
        self._killed.add(key)
        return True

    def _spare_trial(
        self, study: optuna.Study, trial: FrozenTrial, evidence: Evidence
    ) -> str | None:
        """Why the signal spares the trial; None where it ends it."""
        records = self.find_records(study, trial)
        sparing = self.signals.sparing
        direction = _find_direction(study)
        spared = spare_by_course(evidence.signal, records, sparing, self.epochs, direction)
        if spared is not None:
            return spared
        best = score_so_far(records, MetricConfig(direction=direction))
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        step = trial.last_step
        peers = [
            peer.intermediate_values[step]
            for peer in complete
            if step is not None and step in peer.intermediate_values
        ]
        return spare_by_peers(evidence.signal, best, peers, sparing, direction)

    def find_evidence(self, study: optuna.Study, trial: FrozenTrial) -> Evidence | None:
        """The evidence of the signal that fires on the trial; None where none does.

        A trial in which one fires may be spared nevertheless.
        """
        return find_divergence(
            self.find_records(study, trial), self.signals, _find_direction(study)
        )

    def find_records(self, study: optuna.Study, trial: FrozenTrial) -> Sequence[EpochRecord]:
        """The trial's epochs from `log`, else from the epoch log, else from Optuna's reports."""
        if logged := self._logged.get((study.study_name, trial.number)):
            return logged
        trial_id = trial._trial_id  # noqa: SLF001
        if self._epoch_log is not None and (found := self._epoch_log(trial_id)):
            return found
        # Reports have the metric only; a constant loss fires no signal.
        reports = [value for _, value in sorted(trial.intermediate_values.items())]
        return [
            make_record({"epoch": epoch, "loss": 0.0, "metric": value})
            for epoch, value in enumerate(reports, 1)
        ]


def _find_direction(study: optuna.Study) -> Direction:
    return "minimize" if study.direction == StudyDirection.MINIMIZE else "maximize"


def _checked_signals(signals: SignalsConfig | Mapping[str, Any] | None) -> SignalsConfig:
    """The thresholds, with the defaults where none are given."""
    if isinstance(signals, SignalsConfig):
        return signals
    if not isinstance(signals, Mapping | None):
        raise ConfigError(
            "thresholds are given by signal",
            where="DivergencePruner, signals",
            found=repr(signals)[:80],
            allowed="a mapping such as {'loss_rising': {'epochs': 6}}",
            next_step="see docs/studies.md for the names",
        )
    return check(SignalsConfig, dict(signals or {}), "DivergencePruner, signals")


def _to_python(value: Any) -> Any:
    """A value with numbers of NumPy, in lists too, as numbers of Python."""
    if isinstance(value, list | tuple):
        return [_to_python(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def store_log(url: str) -> EpochLog:
    """The epochs that workers of `search` recorded, next to Optuna's trials in the same database.

    Args:
        url: of the store.

    Raises:
        StoreError: when there is no store.
    """
    from storage.location import StoreLocation

    store = StoreLocation.parse(url).open(create=False)
    return store.epochs.optuna_trial_records
