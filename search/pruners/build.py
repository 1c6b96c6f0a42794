"""Optuna's pruners behind one setting, and the words and numbers of their decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner

from search.pruners.noise_margin import LenientPruner, noise_of
from spaces.config import Direction
from spaces.study import PrunerConfig, StudySpec


def build_pruner(spec: StudySpec) -> BasePruner:
    """The pruner that a study names."""
    return pruner_of(spec.pruner, spec.epochs)


def pruner_of(pruner: PrunerConfig, epochs: int) -> BasePruner:
    """The pruner of a setting, for trials of so many epochs. Steps are epochs, counted from 1."""
    if pruner.kind == "median":
        bare = MedianPruner(
            n_startup_trials=pruner.startup_trials, n_warmup_steps=pruner.warmup_epochs + 1
        )
        return LenientPruner(bare, pruner.noise) if pruner.noise else bare
    if pruner.kind == "hyperband":
        return HyperbandPruner(
            min_resource=pruner.min_epochs,
            max_resource=epochs,
            reduction_factor=pruner.reduction_factor,
        )
    return NopPruner()


def reason(
    own: Mapping[int, float],
    epoch: int,
    pruner: PrunerConfig,
    direction: Direction,
    peers: Sequence[float],
) -> str:
    """Why a trial was pruned: its best metric so far, with what its noise was worth, against the finished trials at the same epoch."""
    best, sign = (max(own.values()), 1) if direction == "maximize" else (min(own.values()), -1)
    if pruner.kind == "hyperband":
        return f"hyperband: best metric {best:.4f} by epoch {epoch}, not among the best of its rung"
    held = best + sign * pruner.noise * noise_of(own)
    margin = f" ({held:.4f} with {pruner.noise:g} × its noise)" if pruner.noise else ""
    against = (
        f" against a median of {median(peers):.4f} among {len(peers)} finished trials"
        if peers
        else ""
    )
    return f"{pruner.kind}: best metric {best:.4f} by epoch {epoch}{margin}{against}"
