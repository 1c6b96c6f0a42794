"""A thousand workers that report an epoch every 30 s, simulated by a few processes.

The schedule is an open loop: every write has its time, whether or not the one before is done, and
its latency counts from there. Between its epochs each worker extends its lease, as its thread does.
"""

from __future__ import annotations

import heapq
import multiprocessing
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, select

from benchmarks.epoch_cost import percentile
from benchmarks.history import healthy
from benchmarks.report import Figure
from benchmarks.store.past import study_with_past
from search.pruners.median import Peers, falls_short
from search.stored_study import stored_plan
from search.worker.lease import LEASE_S, RENEWALS
from spaces.records import EpochRecord
from storage.location import StoreLocation
from storage.rows import Claim, StoredStudy
from storage.store import Store
from storage.tables.models import Trial
from storage.tables.optuna_tables import OptunaTables

P99_MS = 100.0
PROCESSES, CONNECTIONS = 4, 4
"""How the fleet is simulated: each process writes over so many connections."""


@dataclass(frozen=True)
class Fleet:
    """How many workers there are, and for how long they are watched."""

    workers: int
    every_s: float
    seconds: float
    past: int


FULL, QUICK = Fleet(1_000, 30.0, 60.0, 1_000), Fleet(40, 2.0, 4.0, 10)
AHEAD_S = 5.0
"""The schedule begins so long after the processes are measured of it."""


@dataclass(order=True)
class Due:
    """A write that is due: of an epoch, or of a lease."""

    at: float
    claim: Claim = field(compare=False)
    epoch: int = field(compare=False, default=0)


def fleet_of(store: Store, stored: StoredStudy, workers: int) -> list[Claim]:
    """Trials that run, one for each worker, made in bulk."""
    config = stored_plan(stored).make_config({}, 0).model_dump(mode="json")
    columns = {
        "study_id": stored.id,
        "state": "running",
        "attempt": 1,
        "lost": 0,
        "worker": "fleet",
        "host": "fleet",
        "pid": 1,
        "reason": "",
        "error": "",
    }
    with store._database.writing() as connection:
        tables = OptunaTables()
        made = [tables.start_trial(connection, stored.optuna_study_id) for _ in range(workers)]
        rows = [
            {
                **columns,
                "number": number,
                "optuna_trial_id": trial_id,
                "config": config,
                "created_at": 0.0,
                "started_at": 0.0,
                "lease_until": 4e9,
            }
            for trial_id, number in filter(None, made)
        ]
        connection.execute(insert(Trial), rows)
        own = select(Trial.id, Trial.number, Trial.optuna_trial_id).where(
            Trial.study_id == stored.id, Trial.state == "running"
        )
        return [
            Claim(row.id, stored.id, 1, False, row.number, row.optuna_trial_id, config)
            for row in connection.execute(own)
        ]


def schedule(claims: list[Claim], fleet: Fleet, begin: float, first: int) -> Iterator[Due]:
    """Schedule the writes of some workers, spread evenly over the interval."""
    streams = [
        _writes(
            claim,
            begin + (first + PROCESSES * at) * fleet.every_s / fleet.workers,
            fleet,
            begin + fleet.seconds,
        )
        for at, claim in enumerate(claims)
    ]
    yield from heapq.merge(*streams)


def _writes(claim: Claim, at: float, fleet: Fleet, end: float) -> Iterator[Due]:
    epoch, extend_s = 0, LEASE_S / RENEWALS
    epochs_at, leases_at = at, at + extend_s
    while min(epochs_at, leases_at) < end:
        if epochs_at <= leases_at:
            epoch += 1
            yield Due(epochs_at, claim, epoch)
            epochs_at += fleet.every_s
        else:
            yield Due(leases_at, claim)
            leases_at += extend_s


def simulate(
    url: str, name: str, claims: list[Claim], fleet: Fleet, begin: float, first: int
) -> dict[str, list[float]]:
    """Milliseconds from the time at which a write was due until it was done, by kind."""
    measured: dict[str, list[float]] = {"epochs": [], "leases": [], "errors": []}
    with StoreLocation.parse(url).open(create=False) as store:
        stored = store.studies.find_study(name)
        assert stored is not None
        plan = stored_plan(stored)
        peers = Peers(store, stored.id)
        peers.refresh()
        records = [
            healthy(epoch, plan.spec.epochs, claims[0].config or {}, 0.9)
            for epoch in range(1, plan.spec.epochs + 1)
        ]
        due: queue.Queue[Due | None] = queue.Queue()

        def work() -> None:
            while (write := due.get()) is not None:
                try:
                    one(store, write, records, peers, plan.spec)
                except Exception:
                    measured["errors"].append(0.0)
                measured["epochs" if write.epoch else "leases"].append(
                    1000 * (time.time() - write.at)
                )

        threads = [threading.Thread(target=work, daemon=True) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for write in schedule(claims, fleet, begin, first):
            time.sleep(max(0.0, write.at - time.time()))
            due.put(write)
        for _ in threads:
            due.put(None)
        for thread in threads:
            thread.join(60)
    return measured


def one(store: Store, write: Due, records: list[EpochRecord], peers: Peers, spec: Any) -> None:
    """Store an epoch and judge it, or extend a lease."""
    if not write.epoch:
        store.leases.renew_lease(write.claim, LEASE_S)
        return
    store.epochs.append_epoch(write.claim, records[write.epoch - 1], LEASE_S)
    new = store.peer_curves.complete_since(
        write.claim.study_id, peers._seen_until or 0.0, peers._known
    )
    assert not new.trial_ids
    falls_short(
        {record.epoch: record.metric for record in records[: write.epoch]},
        peers,
        spec.pruner,
        spec.metric.direction,
    )


def measure(url: str, fleet: Fleet) -> tuple[list[Figure], dict[str, Any]]:
    """The latencies, and how much more the same server takes."""
    stored = study_with_past(url, fleet.past, 30)
    with StoreLocation.parse(url).open(create=False) as store:
        claims = fleet_of(store, stored, fleet.workers)
    spawn, begin = multiprocessing.get_context("spawn"), time.time() + 3 * AHEAD_S
    with spawn.Pool(PROCESSES) as pool:
        shares = [
            (url, stored.name, claims[first::PROCESSES], fleet, begin, first)
            for first in range(PROCESSES)
        ]
        answers = [pool.apply_async(simulate, share) for share in shares]
        measured = [answer.get(10 * fleet.seconds + 120) for answer in answers]
    epochs, leases, errors = (
        [each for found in measured for each in found[kind]]
        for kind in ("epochs", "leases", "errors")
    )
    where = f"{fleet.workers:,} workers, an epoch every {fleet.every_s:.0f} s on PostgreSQL"
    figures = [
        Figure(f"{where}, p99 from the time it was due", percentile(epochs, 0.99), "ms", P99_MS),
        Figure(f"{where}, median", percentile(epochs, 0.5), "ms"),
        Figure(f"{where}, extending a lease, p99", percentile(leases, 0.99), "ms"),
        Figure(f"{where}, errors", len(errors), "", 0),
    ]
    return figures, {
        where: {"epochs": len(epochs), "extensions": len(leases), "worst_ms": max(epochs)}
    }
