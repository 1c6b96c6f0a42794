"""The verdict after every epoch: continue, prune, or diverged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from search.pruners.signals import find_divergence
from search.pruners.sparing import score_so_far, spare_by_course, spare_by_peers
from spaces.records import CONTINUE, SPARED, EpochRecord, Evidence, Verdict
from spaces.study import StudySpec
from spaces.thresholds import SLOW_SIGNALS

PeersAt = Callable[[int], Sequence[float] | None]
"""Epoch → the metrics of the complete trials there; None while they cannot be read."""


def judge(
    records: Sequence[EpochRecord],
    spec: StudySpec,
    worse_than_peers: Callable[[], str | None],
    peers_at: PeersAt = lambda epoch: (),
) -> Verdict:
    """Decide after an epoch whether a trial continues.

    A signal that spares the trial leaves the decision to the peer pruner; if the trial continues,
    the verdict has its evidence, as a warning.

    Args:
        records: of the trial, in order of epochs.
        spec: the study, with its thresholds and its number of epochs.
        worse_than_peers: asks the peer pruner, and returns its reason where it prunes the trial. It
            is called last: a trial that diverged ends for that, so that the sampler learns from it.
        peers_at: reads the metrics of the peers; called only where a signal fires.
    """
    evidence = find_divergence(records, spec.signals, spec.metric.direction)
    warning = CONTINUE
    if evidence is not None:
        spared = _spare_trial(evidence, records, spec, peers_at)
        if spared is None:
            return end_trial(evidence, spec.epochs)
        warning = _make_warning(evidence, spared)
    if records[-1].epoch < spec.epochs and (reason := worse_than_peers()) is not None:
        return Verdict("prune", reason)
    return warning


def _spare_trial(
    evidence: Evidence, records: Sequence[EpochRecord], spec: StudySpec, peers_at: PeersAt
) -> str | None:
    """Why the signal spares the trial; None where it ends it."""
    sparing = spec.signals.sparing
    direction = spec.metric.direction
    spared = spare_by_course(evidence.signal, records, sparing, spec.epochs, direction)
    if spared is not None:
        return spared
    best = score_so_far(records, spec.metric)
    return spare_by_peers(evidence.signal, best, peers_at(evidence.epoch), sparing, direction)


def end_trial(evidence: Evidence, epochs: int | None) -> Verdict:
    """The verdict of a signal that ends a trial: pruned where it is slow, else diverged.

    Args:
        evidence: of the signal.
        epochs: of a complete trial; None where it is not known.
    """
    graded = replace(evidence, severity=grade_severity(evidence, epochs))
    reason = f"{evidence.signal}: {evidence.statement}"
    if evidence.signal in SLOW_SIGNALS:
        return Verdict("prune", reason, graded)
    return Verdict("diverged", reason, graded)


def _make_warning(evidence: Evidence, spared: str) -> Verdict:
    """The verdict on a trial that a signal spares, with severity 0."""
    numbers = {**evidence.numbers, SPARED: spared}
    reason = f"{evidence.signal}: {evidence.statement}; spared: {spared}"
    return Verdict("continue", reason, replace(evidence, numbers=numbers, severity=0.0))


def grade_severity(evidence: Evidence, epochs: int | None) -> float:
    """The constraint value of a diverged trial: higher the harder and the earlier it diverged.

    The sum of the signal's severity, above 0 and up to 1, and of the share of the trial that was
    left.

    Args:
        evidence: of the signal that fired.
        epochs: of a complete trial; None where it is not known, and the epoch then has no effect.
    """
    left = 0.0 if epochs is None else max(0.0, 1 - evidence.epoch / epochs)
    return evidence.severity + left
