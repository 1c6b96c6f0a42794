"""A campaign from its start to its end: a study, its workers, and the faults that strike them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.campaign import Kind, Scale, StoreKind
from benchmarks.chaos.crew import Crew
from benchmarks.chaos.faults import Fault, Tormentor, gap_factor, schedule
from benchmarks.chaos.proxy import proxy
from benchmarks.chaos.server import Server, server
from benchmarks.chaos.store_reader import StoreReader
from benchmarks.chaos.watch import Watch
from search.launch.reaper import TrialReaper
from search.session import open_session
from storage.location import StoreLocation

STEP_S = 0.1
"""How often the store is looked at."""

PRINT_EVERY_S = 15.0
"""How often something is printed."""

RETRY_S = 0.1
"""Seconds until another fault is tried after one that found no worker to hit."""

REFERENCE_WORKERS = 2


@dataclass(frozen=True)
class Place:
    """A store: the workers' way to it, the direct one, and what can be done to it."""

    url: str
    direct: str
    server: Server | None = None
    lose_an_answer: Callable[[], bool] | None = None
    version: str = ""


@contextmanager
def place(kind: StoreKind, folder: Path) -> Iterator[Place]:
    """A fresh store."""
    if kind == "sqlite":
        url = f"sqlite:///{folder / 'search.db'}"
        yield Place(url, url)
        return
    with server() as database, proxy(database.url, folder) as between:
        yield Place(
            between.url,
            f"{database.url}&application_name=watch",
            database,
            between.lose_an_answer,
            database.version(),
        )


@dataclass
class Campaign:
    """One study, with or without faults.

    Args:
        epochs: how many the study has, which the pace of the faults follows.
        faults: what is still to come.
    """

    scale: Scale
    crew: Crew
    watch: Watch
    tormentor: Tormentor | None = None
    epochs: int = 0
    faults: deque[Fault] = field(default_factory=deque)
    took_s: float = 0.0
    _last: float = 0.0
    _retry: float = 0.0

    def run(self) -> None:
        """Until every trial has ended, and the workers have seen it.

        Raises:
            SystemExit: when that takes too long.
        """
        began = printed_s = time.monotonic()
        while self.crew.members or not self._over():
            now_s = time.monotonic()
            if now_s - began > self.scale.limit_s:
                raise SystemExit(
                    f"the campaign did not end within {self.scale.limit_s:.0f} s: "
                    f"{self._describe_progress()}"
                )
            if self.watch.look() and self.tormentor is not None:
                self._torment(self.tormentor)
            self.crew.thaw(time.time())
            self.crew.tend(refill=not self._over())
            if now_s - printed_s > PRINT_EVERY_S:
                printed_s = now_s
                print(f"{now_s - began:5.0f} s: {self._describe_progress()}", flush=True)
            time.sleep(STEP_S)
        self.took_s = time.monotonic() - began

    def _over(self) -> bool:
        return self.watch.ended() >= self.scale.trials

    def _torment(self, tormentor: Tormentor) -> None:
        tormentor.guard_the_planted()
        if not self.faults or not self.watch.taken_at:
            return
        struck, done = (
            1 - len(self.faults) / self.scale.faults,
            self.watch.epochs_written() / self.epochs,
        )
        fault = self.faults[0]
        if (
            time.monotonic() < self._last + fault.gap_s * gap_factor(struck, done)
            or time.monotonic() < self._retry
        ):
            return
        if tormentor.strike(fault):
            self.faults.popleft()
            self._last = time.monotonic()
        else:
            self.faults.rotate(-1)
            self._retry = time.monotonic() + RETRY_S

    def _describe_progress(self) -> str:
        struck = (
            ""
            if self.tormentor is None
            else f"{sum(self.tormentor.struck.values())} faults, {len(self.faults)} to come, "
        )
        ended = f"{self.watch.ended()} of {self.scale.trials} trials ended"
        workers = f"{struck}{self.crew.started} workers started"
        return f"{ended}, {workers}, load {os.getloadavg()[0]:.1f}"


def undisturbed(scale: Scale, seed: int, folder: Path) -> str:
    """The study without a fault, on SQLite. Returns the address of its store."""
    folder.mkdir()
    with (
        place("sqlite", folder) as where,
        started(where, scale, seed, folder, REFERENCE_WORKERS) as campaign,
    ):
        campaign.run()
        return where.url


def disturbed(
    where: Place, scale: Scale, mix: Mapping[Kind, float], seed: int, folder: Path, epochs: int
) -> Campaign:
    """The study under faults of these kinds."""
    with started(where, scale, seed, folder, scale.workers) as campaign:
        campaign.epochs = epochs
        campaign.faults = deque(schedule(scale, mix, seed))
        campaign.tormentor = Tormentor(
            campaign.crew,
            campaign.watch,
            random.Random(seed + 1),
            where.server,
            where.lose_an_answer,
        )
        campaign.run()
        return campaign


@contextmanager
def busy_cores(wanted: bool) -> Iterator[None]:
    """Keep every core busy during the block if asked to, as on a machine that does other work."""
    burn = [sys.executable, "-c", "while True: pass"]
    burning = [subprocess.Popen(burn) for _ in os.sched_getaffinity(0)] if wanted else []
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


@contextmanager
def started(
    where: Place, scale: Scale, seed: int, folder: Path, workers: int
) -> Iterator[Campaign]:
    """A study with its first workers; none is left at the end of the block."""
    spec = scale.study(seed)
    session = open_session(
        spec, StoreLocation.parse(where.url)
    )  # as `search run` makes it, before it starts a worker
    reader = StoreReader(where.direct)
    try:
        with Crew(
            workers, spec.name, where.url, folder, TrialReaper(session.store, session.stored.id)
        ).running() as crew:
            yield Campaign(scale, crew, Watch(reader))
    finally:
        reader.close()
        session.store.close()
