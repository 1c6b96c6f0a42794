"""After every epoch: go on, prune, or diverged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from search.signals import fired
from spaces.records import GO_ON, EpochRecord, Verdict
from spaces.study import StudySpec


def judge(records: Sequence[EpochRecord], spec: StudySpec, worse_than_peers: Callable[[], str | None]) -> Verdict:
    """The verdict on a trial.

    Args:
        records: of the trial, in order of epochs.
        spec: the study's thresholds and length.
        worse_than_peers: asks the peer pruner; the reason when it wants the trial to end. Asked last: a trial that
            diverged is killed for that, as the sampler should learn.
    """
    evidence = fired(records, spec.signals, spec.metric.direction)
    if evidence is not None:
        # The earlier a trial diverged, the farther it lies from what is feasible: 1 at the end, up to 2 at the start.
        severity = evidence.severity + (1 - evidence.epoch / spec.epochs)
        return Verdict("diverged", f"{evidence.signal}: {evidence.statement}", replace(evidence, severity=severity))
    if records[-1].epoch < spec.epochs and (reason := worse_than_peers()) is not None:
        return Verdict("prune", reason)
    return GO_ON
