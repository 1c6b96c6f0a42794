"""Has a probe find the base learning rate of a study whose base says `auto`, before any trial.

The first worker runs it, the others wait for its result, which is stored with the study.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from objectives.contract import RateProber, Trainer
from search.planning.base_rate import BASE_LR, wants_probe
from search.planning.plan import Plan
from search.planning.study_error import study_error
from search.worker.batch_halving import halve_batch
from search.worker.stop import StopNow, StopRequest
from spaces.config import TrialConfig
from spaces.config_tree import ConfigTree
from spaces.errors import OutOfMemoryError, StoreError
from spaces.rate_probe import ProbeStep, RateProbe
from spaces.records import ClassCounts
from storage.rows import StoredStudy
from storage.store import Store

logger = logging.getLogger(__name__)

PROBE_LEASE_S = 60.0
"""How long a worker may take for a step of the probe; then another one repeats the probe."""

RENEW_AFTER_S = 10.0
POLL_S = 0.5


@dataclass(frozen=True)
class ProbeSetup:
    """What a worker has loaded when it comes to the probe; see `WorkerContext`."""

    store: Store
    stored: StoredStudy
    trainer: Trainer
    prepared: Any
    counts: ClassCounts
    device: str
    stop: StopRequest


def resolve_base_lr(plan: Plan, config: TrialConfig, setup: ProbeSetup) -> Plan:
    """Return the plan with a number as base learning rate: the stored one, or found now.

    Args:
        plan: of the study.
        config: of the probe; its learning rate does not matter.
        setup: everything else.

    Raises:
        StudyError: when the training breaks at every rate.
        StoreError: when the database fails.
        StopNow: when a stop was requested before there was a result.
    """
    if not wants_probe(plan.spec) or plan.base_lr is not None:
        return plan
    probes = setup.store.rate_probes
    probe = probes.find_probe(setup.stored.id)
    while probe is None:
        if probes.claim_probe(setup.stored.id, PROBE_LEASE_S):
            probe = _run_probe(plan, config, setup)
        else:
            setup.stop.wait(POLL_S)
            _check_stop(setup.stop)
            probe = probes.find_probe(setup.stored.id)
    return replace(plan, base_lr=probe.base_lr)


def _run_probe(plan: Plan, config: TrialConfig, setup: ProbeSetup) -> RateProbe:
    """Run the probe, and store its result."""
    from objectives.training.stable_rate import find_base_lr

    probes = setup.store.rate_probes
    try:
        steps = _train_steps(plan, config, setup)
        optimizer = str(ConfigTree(config.model_dump())["optimizer.kind"])
        found = find_base_lr(steps, optimizer)
        if found is None:
            raise _unstable(plan, steps)
        probe = probes.save_probe(setup.stored.id, found)
    except BaseException:
        with suppress(StoreError):  # the lease expires anyway
            probes.release_probe(setup.stored.id)
        raise
    logger.info(
        "base learning rate %.3g, found by a probe of %.1f epochs", probe.base_lr, probe.epochs
    )
    return probe


def _train_steps(plan: Plan, config: TrialConfig, setup: ProbeSetup) -> list[ProbeStep]:
    """Train the steps of the probe; without enough memory, accumulated in smaller batches.

    Raises:
        OutOfMemoryError: when not even a batch of one fits.
    """
    while True:
        try:
            return list(_watch_steps(config, setup))
        except OutOfMemoryError:
            smaller = halve_batch(config.model_dump())
            if smaller is None:
                raise
            config = plan.objective.config.model_validate(smaller)


def _watch_steps(config: TrialConfig, setup: ProbeSetup) -> Iterator[ProbeStep]:
    """Yield the steps, and renew the lease meanwhile."""
    if not isinstance(setup.trainer, RateProber):
        raise TypeError(f"{config.objective} has no probe, although its Objective says so")
    renewed_at = time.monotonic()
    for step in setup.trainer.probe_rates(config, setup.prepared, setup.counts, setup.device):
        _check_stop(setup.stop)
        if time.monotonic() - renewed_at > RENEW_AFTER_S:
            renewed_at = time.monotonic()
            with suppress(StoreError):  # the database may be back before the lease is over
                setup.store.rate_probes.renew_probe(setup.stored.id, PROBE_LEASE_S)
        yield step


def _check_stop(stop: StopRequest) -> None:
    """End the worker if a stop was requested; it has no trial yet.

    Raises:
        StopNow: then.
    """
    if stop.is_requested:
        raise StopNow


def _unstable(plan: Plan, steps: list[ProbeStep]) -> Exception:
    return study_error(
        plan.spec,
        ("base", *BASE_LR.split(".")),
        "the training breaks at every learning rate that the probe tried",
        found=f"the smallest rate tried: {steps[0].lr:.3g}, with a training loss of "
        f"{steps[0].loss:.3g}",
        next_step=f"check data, loss and model, or set a number as {BASE_LR}",
    )
