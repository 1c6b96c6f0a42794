"""Workers on this machine: one process per slot, replaced when it dies, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from search.launch.device_slots import Slot
from search.launch.reaper import TrialReaper
from search.launch.worker_pool import StopLevel, WorkerEnd, WorkerPool
from search.worker.events import WorkerEvent, events_path, read_events
from search.worker.identity import worker_name
from search.worker.options import WorkerOptions
from spaces.exit_codes import ExitCode
from storage.location import StoreLocation

STORE_VARIABLE = "SEARCH_STORE"
"""Environment variable for the store's address: a list of processes must not show a password."""

MAX_DEATHS = 6
"""A slot is abandoned after more deaths in a row during which the study made no progress."""

BACKOFF_S = 1.0
MAX_BACKOFF_S = 30.0
"""Wait after the second death of that kind; it doubles with each further one, up to the maximum."""

REPLACEABLE = (ExitCode.RESTART, ExitCode.INTERRUPTED)
"""Exit codes of workers that are replaced. One that was interrupted, although the pool was not
asked to stop, was stopped from outside."""

PYTHON = (sys.executable, "-P")
"""Starts a process of ours. Without `-P`, `python -m` puts the working directory first on
`sys.path`, where a user's own `search.py`, `storage.py` or `objectives.py` would be imported
instead of our packages."""


def worker_command(options: WorkerOptions) -> list[str]:
    """The command of a worker process."""
    return [*PYTHON, "-m", "search.cli", "worker", *options.to_arguments()]


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables for numerical libraries, which read them when they are imported."""
    return dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
    )


@dataclass
class WorkerProcess:
    """One worker process, its log and its events.

    Args:
        options: of the worker; its parent is this process, its events are next to the log.
        environment: of the process.
        log: file for what it prints.
        folder: working directory; None for that of this process.

    Attributes:
        deaths: in a row, without progress of the study.
        start_at: when it is started again, by the monotonic clock; None when it is not.
    """

    options: WorkerOptions
    environment: dict[str, str]
    log: Path
    folder: Path | None = None
    command: list[str] = field(init=False)
    events: Path = field(init=False)
    deaths: int = 0
    start_at: float | None = None
    process: subprocess.Popen[bytes] | None = None
    _run_began_at: dict[Path, int] = field(default_factory=dict)
    """Sizes of log and events when this run began: both are kept from run to run."""

    _process_began_at: dict[Path, int] = field(default_factory=dict)
    """Their sizes when the current process was started."""

    def __post_init__(self) -> None:
        self.events = events_path(self.log)
        self.options = replace(self.options, parent=os.getpid(), events=self.events)
        self.command = worker_command(self.options)

    def start_process(self) -> None:
        """Start it in its own process group, so that Ctrl-C reaches the supervisor only."""
        self.start_at = None
        self.log.parent.mkdir(parents=True, exist_ok=True)
        for file in (self.log, self.events):
            size = file.stat().st_size if file.exists() else 0
            self._run_began_at.setdefault(file, size)
            self._process_began_at[file] = size
        with self.log.open("ab") as output, _blocked_interrupts():
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return None if self.process is None else self.process.poll()

    @property
    def name(self) -> str:
        """Its name in the store."""
        assert self.process is not None
        return worker_name(self.process.pid)

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def read_events(self) -> list[WorkerEvent]:
        """Its events from this run, of all its processes."""
        return read_events(self.events, self._run_began_at.get(self.events, 0))

    def describe_end(self) -> WorkerEnd:
        """How the current process ended."""
        events = read_events(self.events, self._process_began_at.get(self.events, 0))
        return WorkerEnd(self.exit_code, events, self.read_log(), str(self.log))

    def read_log(self) -> list[str]:
        """The lines of its log from the current process."""
        with self.log.open("rb") as file:
            file.seek(self._process_began_at.get(self.log, 0))
            return file.read().decode(errors="replace").splitlines()

    def remove_log(self) -> None:
        """Remove its log and events of this run."""
        for file, size in self._run_began_at.items():
            if size == 0:
                file.unlink(missing_ok=True)
            else:
                os.truncate(file, size)


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Processes that are started in this block receive SIGINT when they unblock it.

    A SIGINT that comes while a worker imports its modules would end it with a traceback, or get
    lost where an import catches every exception. `StopRequest.handle_signals` unblocks it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LocalWorkers(WorkerPool):
    """The workers of one `search run` on this machine.

    Args:
        slots: one per worker.
        options: of every worker, apart from its slot.
        location: of the store.
        logs: folder for the workers' logs.
        reaper: releases the trials of dead workers.
        timeout_s: the workers finish their epochs and stop after this time.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        options: WorkerOptions,
        location: StoreLocation,
        logs: Path,
        reaper: TrialReaper | None = None,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(reaper, timeout_s)
        self.workers = [
            WorkerProcess(
                replace(options, device=slot.device, threads=slot.threads),
                _make_environment(slot, location),
                logs / f"worker-{index}.log",
            )
            for index, slot in enumerate(slots)
        ]

    def start_workers(self) -> None:
        """Start all workers."""
        for worker in self.workers:
            worker.start_process()

    def poll(self) -> bool:
        """Replace dead workers, stop all when one cannot continue; whether all have exited."""
        for worker in self.workers:
            is_stopping = self.stops > 0 or self.is_expired
            if worker.start_at is not None and is_stopping:
                worker.start_at = None
            elif worker.start_at is not None and time.monotonic() >= worker.start_at:
                worker.start_process()
            elif worker.start_at is None and worker.exit_code not in (None, 0) and not is_stopping:
                self._replace_worker(worker)
        return self.all_exited() and all(worker.start_at is None for worker in self.workers)

    def _replace_worker(self, worker: WorkerProcess) -> None:
        """Schedule a new process for one that died, or end the run when it cannot continue.

        As long as the study makes no progress, each wait is longer than the one before.
        """
        end = worker.describe_end()
        code = end.exit_code or 0
        has_progress = False
        if self._reaper is not None:
            self._reaper.report_death(worker.name, code, end.log_tail)
            has_progress = self._reaper.made_progress()
        worker.deaths = 1 if has_progress else worker.deaths + 1
        is_replaceable = code < 0 or code in REPLACEABLE or not end.is_explained
        if is_replaceable and worker.deaths <= MAX_DEATHS:
            worker.start_at = time.monotonic() + _backoff_s(worker.deaths)
        elif self._failure is None:
            self._failure = end.to_error()
            self.raise_stop_level()

    def release_resources(self) -> None:
        """Release the trials of workers that were killed for a stop."""
        for worker in self.workers:
            if self._reaper is not None and (worker.exit_code or 0) < 0:
                self._reaper.release_killed(worker.name)

    def request_stop(self, level: StopLevel) -> None:
        """Ask every worker to stop."""
        number = signal.SIGKILL if level == StopLevel.KILL else signal.SIGINT
        for worker in self.workers:
            worker.send_signal(number)

    def stop_after_step(self) -> None:
        """Send SIGTERM to every worker."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)

    def read_events(self) -> list[WorkerEvent]:
        """The events of all workers from this run."""
        events = []
        for worker in self.workers:
            events += worker.read_events()
        return events

    def remove_logs(self) -> None:
        """Remove the logs of this run, and empty folders; those of earlier runs stay."""
        for worker in self.workers:
            worker.remove_log()
        folders = {worker.log.parent for worker in self.workers}
        for folder in [*folders, *{folder.parent for folder in folders}]:
            with suppress(OSError):  # it is not empty, or gone
                folder.rmdir()

    def all_exited(self) -> bool:
        """Whether every process has exited."""
        return all(
            worker.process is None or worker.process.poll() is not None for worker in self.workers
        )


def _backoff_s(deaths: int) -> float:
    """Seconds until a worker is started again after so many deaths in a row."""
    if deaths == 1:
        return 0.0
    return min(MAX_BACKOFF_S, BACKOFF_S * 2.0 ** (deaths - 2))


def _make_environment(slot: Slot, location: StoreLocation) -> dict[str, str]:
    own = {STORE_VARIABLE: location.url, "PYTHONUNBUFFERED": "1"}
    return os.environ | thread_variables(slot.threads) | own
