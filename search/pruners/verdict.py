"""The verdict after every epoch: continue, prune, or diverged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from search.pruners.signals import find_divergence
from spaces.records import CONTINUE, EpochRecord, Evidence, Verdict
from spaces.study import StudySpec


def judge(
    records: Sequence[EpochRecord], spec: StudySpec, worse_than_peers: Callable[[], str | None]
) -> Verdict:
    """Decide after an epoch whether a trial continues.

    Args:
        records: of the trial, in order of epochs.
        spec: the study, with its thresholds and its number of epochs.
        worse_than_peers: asks the peer pruner, and returns its reason where it prunes the trial. It
            is called last: a trial that diverged ends for that, so that the sampler learns from it.
    """
    evidence = find_divergence(records, spec.signals, spec.metric.direction)
    if evidence is not None:
        graded = replace(evidence, severity=grade_severity(evidence, spec.epochs))
        return Verdict("diverged", f"{evidence.signal}: {evidence.statement}", graded)
    if records[-1].epoch < spec.epochs and (reason := worse_than_peers()) is not None:
        return Verdict("prune", reason)
    return CONTINUE


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
