"""After every epoch: go on, prune, or diverged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from search.pruners.signals import fired
from spaces.records import CONTINUE, EpochRecord, Evidence, Verdict
from spaces.study import StudySpec


def judge(
    records: Sequence[EpochRecord], spec: StudySpec, worse_than_peers: Callable[[], str | None]
) -> Verdict:
    """The verdict on a trial.

    Args:
        records: of the trial, in order of epochs.
        spec: the study's thresholds and length.
        worse_than_peers: asks the peer pruner; the reason when it wants the trial to end. Asked last: a trial that
            diverged is killed for that, as the sampler should learn.
    """
    evidence = fired(records, spec.signals, spec.metric.direction)
    if evidence is not None:
        return Verdict(
            "diverged",
            f"{evidence.signal}: {evidence.statement}",
            replace(evidence, severity=graded(evidence, spec.epochs)),
        )
    if records[-1].epoch < spec.epochs and (reason := worse_than_peers()) is not None:
        return Verdict("prune", reason)
    return CONTINUE


def graded(evidence: Evidence, epochs: int | None) -> float:
    """How far a diverged trial lies from what is feasible: the harder and the earlier it diverged, the farther.

    The signal's own severity, above 0 and up to 1, and as much again for a trial that diverged at its start.

    Args:
        epochs: of a whole trial; None when they are not known, and the epoch then plays no part.
    """
    early = 0.0 if epochs is None else max(0.0, 1 - evidence.epoch / epochs)
    return evidence.severity + early
