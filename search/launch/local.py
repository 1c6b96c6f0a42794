"""Workers on this machine: one process a slot, watched, replaced when one dies, and stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from search.launch.devices import Slot
from search.launch.pool import WITHOUT_MERCY, Team, explained, failed
from search.worker.identity import worker_name
from spaces.errors import WorkerRestartRequired
from storage.location import StoreLocation

STORE_VARIABLE = "SEARCH_STORE"
"""The store's address travels in the environment: a password must not show in a list of processes."""

INTERRUPTED = 130
"""Exit code of a worker that was told to stop; where nobody asked its team for that, somebody took this one alone away."""

MAX_DEATHS = 6
"""Deaths of workers in one place, one after the other, in the course of which the study did not get on: then it is given up."""

BACKOFF_S, MAX_BACKOFF_S = 1.0, 30.0
"""How long the place of a worker stays empty after its second death of that kind, twice as long after the next, and so on."""


PYTHON = (sys.executable, "-P")
"""Starts a process of ours. Without `-P`, `python -m` puts the working directory first on `sys.path`, where a user's own
`search.py`, `storage.py` or `objectives.py` would be imported in place of our packages."""


def worker_command(arguments: Sequence[str]) -> list[str]:
    """The command of one worker process, with these options of `search worker`."""
    return [*PYTHON, "-m", "search.cli", "worker", *arguments]


def thread_variables(threads: int) -> dict[str, str]:
    """Libraries read these when they are imported, long before torch can be told."""
    return dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
    )


@dataclass
class WorkerProcess:
    """One worker and its log."""

    slot: Slot
    command: list[str]
    environment: dict[str, str]
    log: Path
    folder: Path | None = None
    """Where it runs; None: where its parent does."""
    deaths: int = 0
    start_at: float | None = None
    """When it is to be started again, by the monotonic clock; None when it is not."""
    process: subprocess.Popen[bytes] | None = None
    began_at: int | None = None
    """Size of the log when this run began: it is kept from run to run."""

    def start(self) -> None:
        """Start it, in a process group of its own: Ctrl-C reaches the supervisor, which passes it on in order."""
        self.start_at = None
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as file:
            self.began_at = file.tell() if self.began_at is None else self.began_at
            with _interruptible():
                self.process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=self.environment,
                    cwd=self.folder,
                    start_new_session=True,
                )

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return None if self.process is None else self.process.poll()

    def send(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def told(self) -> list[str]:
        """The lines of its log from this run."""
        with self.log.open("rb") as file:
            file.seek(self.began_at or 0)
            return file.read().decode(errors="replace").splitlines()

    def forget_log(self) -> None:
        """Remove what it told in this run."""
        if self.began_at == 0:
            self.log.unlink(missing_ok=True)
        elif self.began_at is not None:
            os.truncate(self.log, self.began_at)


@contextmanager
def _interruptible() -> Iterator[None]:
    """What is started in here listens to SIGINT also where this process, as those of Ray, keeps it from itself and so from its children."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LocalWorkers(Team):
    """The workers of one `search run`.

    Args:
        slots: one a worker.
        arguments: what every `search worker` is given besides its slot.
        location: of the store.
        logs: folder for one log a worker.
        timeout_s: after so long the workers finish their epochs and stop.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        arguments: Sequence[str],
        location: StoreLocation,
        logs: Path,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(timeout_s)
        self.workers = [
            WorkerProcess(
                slot,
                self._command(slot, arguments),
                self._environment(slot, location),
                logs / f"worker-{index}.log",
            )
            for index, slot in enumerate(slots)
        ]
        self.failure: WorkerProcess | None = None

    @staticmethod
    def _command(slot: Slot, arguments: Sequence[str]) -> list[str]:
        own = [
            "--device",
            slot.device,
            "--threads",
            str(slot.threads),
            "--parent",
            str(os.getpid()),
        ]
        return worker_command([*arguments, *own])

    @staticmethod
    def _environment(slot: Slot, location: StoreLocation) -> dict[str, str]:
        return (
            os.environ
            | thread_variables(slot.threads)
            | {STORE_VARIABLE: location.url, "PYTHONUNBUFFERED": "1"}
        )

    def start(self) -> None:
        """Start all of them."""
        for worker in self.workers:
            worker.start()

    def look(self) -> bool:
        """Replace a worker that died, stop the others when one met bad input, and say whether all have ended."""
        for worker in self.workers:
            if worker.start_at is not None and (self.stops or self.expired):
                worker.start_at = None  # nobody waits for it any more
            elif worker.start_at is not None and time.monotonic() >= worker.start_at:
                worker.start()
            elif (
                worker.start_at is None
                and worker.exit_code not in (None, 0)
                and not (self.stops or self.expired)
            ):
                self._replace(worker)
        return self.gone() and all(worker.start_at is None for worker in self.workers)

    def _replace(self, worker: WorkerProcess) -> None:
        """A process that died makes room for a fresh one, later and later as long as the study does not get on; one that cannot go on ends all."""
        code = worker.exit_code or 0
        got_on = False
        if self.care is not None and worker.process is not None:
            self.care.died(worker_name(worker.process.pid), code, worker.told())
            got_on = self.care.got_on()
        worker.deaths = 1 if got_on else worker.deaths + 1
        if (
            code < 0
            or code in (WorkerRestartRequired.exit_code, INTERRUPTED)
            or not explained(worker.told())
        ) and worker.deaths <= MAX_DEATHS:
            worker.start_at = time.monotonic() + (
                0.0
                if worker.deaths == 1
                else min(MAX_BACKOFF_S, BACKOFF_S * 2 ** (worker.deaths - 2))
            )
        elif self.failure is None:
            self.failure = worker
            self.stop()

    def release(self) -> None:
        """What a worker that was killed for a stop held goes back at once."""
        for worker in self.workers:
            if self.care is not None and worker.process is not None and (worker.exit_code or 0) < 0:
                self.care.stopped(worker_name(worker.process.pid))

    def ask(self, times: int) -> None:
        """Pass a request to stop on to every worker."""
        for worker in self.workers:
            worker.send(signal.SIGKILL if times >= WITHOUT_MERCY else signal.SIGINT)

    def hurry(self) -> None:
        """SIGTERM is theirs, too."""
        for worker in self.workers:
            worker.send(signal.SIGTERM)

    def told(self) -> Iterator[str]:
        """The lines of all logs from this run."""
        return (line for worker in self.workers for line in worker.told())

    def note(self) -> str:
        """What a person who asked for a stop is waiting for."""
        return "" if self.failure is not None else super().note()

    def check(self) -> None:
        """Say what ended the workers, if it was not the end of the work.

        Raises:
            SearchError: with the failed worker's own words and exit code.
        """
        if self.failure is not None:
            raise failed(self.failure.exit_code, self.failure.told(), str(self.failure.log))

    def forget_logs(self) -> None:
        """Remove the logs of this run, and their folders where nothing else is in them; earlier runs keep theirs."""
        for worker in self.workers:
            worker.forget_log()
        for folder in {
            folder: None
            for worker in self.workers
            for folder in (worker.log.parent, worker.log.parent.parent)
        }:
            with suppress(OSError):  # something else is in it, or it is gone
                folder.rmdir()

    def gone(self) -> bool:
        """Whether every process has ended."""
        return all(
            worker.process is None or worker.process.poll() is not None for worker in self.workers
        )
