"""Optuna's pruners from a study's configuration, and the reason of a pruned trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner

from search.pruners.noise_margin import LenientPruner, noise_of_reports
from spaces.config import Direction
from spaces.study import PrunerConfig, StudySpec


def build_pruner(spec: StudySpec) -> BasePruner:
    """Build the pruner of a study."""
    return pruner_from_config(spec.pruner, spec.epochs)


def pruner_from_config(pruner: PrunerConfig, epochs: int) -> BasePruner:
    """Build the pruner of a configuration.

    Args:
        pruner: the configuration.
        epochs: of a complete trial; a step of Optuna's is an epoch, counted from 1.
    """
    if pruner.kind == "median":
        median_pruner = MedianPruner(
            n_startup_trials=pruner.startup_trials, n_warmup_steps=pruner.warmup_epochs + 1
        )
        return LenientPruner(median_pruner, pruner.noise) if pruner.noise else median_pruner
    if pruner.kind == "hyperband":
        return HyperbandPruner(
            min_resource=pruner.min_epochs,
            max_resource=epochs,
            reduction_factor=pruner.reduction_factor,
        )
    return NopPruner()


def explain_pruning(
    metrics: Mapping[int, float],
    epoch: int,
    pruner: PrunerConfig,
    direction: Direction,
    peers: Sequence[float],
) -> str:
    """Explain why a trial was pruned: its best metric against those of its peers, with its margin.

    Args:
        metrics: of the trial, by epoch.
        epoch: at which it was pruned.
        pruner: configuration of the pruner.
        direction: of the metric.
        peers: metrics of the finished trials at the same epoch; may be empty.
    """
    best = max(metrics.values()) if direction == "maximize" else min(metrics.values())
    text = f"{pruner.kind}: best metric {best:.4f} by epoch {epoch}"
    if pruner.kind == "hyperband":
        return f"{text}, not among the best of its rung"
    if pruner.noise:
        sign = 1 if direction == "maximize" else -1
        improved = best + sign * pruner.noise * noise_of_reports(metrics)
        text += f" ({improved:.4f} with {pruner.noise:g} × its noise)"
    if peers:
        text += f" against a median of {median(peers):.4f} among {len(peers)} finished trials"
    return text
