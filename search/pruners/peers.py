"""Optuna's pruners behind one setting, and the words and numbers of their decision."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import TrialState

from search.pruners.lenient import LenientPruner
from spaces.config import Direction
from spaces.study import PrunerConfig, StudySpec


def build_pruner(spec: StudySpec) -> BasePruner:
    """The pruner that a study names."""
    return pruner_of(spec.pruner, spec.epochs)


def pruner_of(pruner: PrunerConfig, epochs: int) -> BasePruner:
    """The pruner of a setting, for trials of so many epochs. Steps are epochs, counted from 1."""
    if pruner.kind == "median":
        median = MedianPruner(n_startup_trials=pruner.startup_trials, n_warmup_steps=pruner.warmup_epochs + 1)
        return LenientPruner(median, pruner.noise) if pruner.noise else median
    if pruner.kind == "hyperband":
        return HyperbandPruner(min_resource=pruner.min_epochs, max_resource=epochs, reduction_factor=pruner.reduction_factor)
    return NopPruner()


def reason(study: optuna.Study, trial: optuna.Trial, epoch: int, kind: str, direction: Direction) -> str:
    """Why a trial was pruned: its best metric so far against the finished trials at the same epoch."""
    own = list(trial.storage.get_trial(trial._trial_id).intermediate_values.values())  # noqa: SLF001
    best = max(own) if direction == "maximize" else min(own)
    if kind == "hyperband":
        return f"hyperband: best metric {best:.4f} by epoch {epoch}, not among the best of its rung"
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    peers = sorted(t.intermediate_values[epoch] for t in finished if epoch in t.intermediate_values)
    against = f" against a median of {peers[len(peers) // 2]:.4f} among {len(peers)} finished trials" if peers else ""
    return f"{kind}: best metric {best:.4f} by epoch {epoch}{against}"
