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
from types import FrameType

from search.launch.devices import Slot
from spaces.errors import InputError, SearchError, WorkerSpentError

STORE_VARIABLE = "SEARCH_STORE"
"""The store's address travels in the environment: a password must not show in a list of processes."""

MAX_RESTARTS = 3
POLITE_S = 10.0
"""How long a worker has to end after it was told to stop at once."""


@dataclass
class WorkerProcess:
    """One worker and its log."""

    slot: Slot
    command: list[str]
    environment: dict[str, str]
    log: Path
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    began_at: int | None = None
    """Size of the log when this run began: it is kept from run to run."""

    def start(self) -> None:
        """Start it, in a process group of its own: Ctrl-C reaches the supervisor, which passes it on in order."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as file:
            self.began_at = file.tell() if self.began_at is None else self.began_at
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True
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

    def last_words(self, lines: int = 12) -> str:
        """The end of its log: from the last error on where there is one."""
        text = self.told()
        starts = [index for index, line in enumerate(text) if line.startswith("error: ")]
        if starts:
            return "\n".join(text[starts[-1] :])
        if any(line.startswith("Traceback") for line in text):
            return f"a worker ended unexpectedly: {text[-1]}"  # the whole of it is in the log, which is named below
        return "\n".join(text[-lines:])


class LocalWorkers:
    """The workers of one `search run`.

    Args:
        slots: one a worker.
        arguments: what every `search worker` is given besides its slot.
        url: the store's address.
        logs: folder for one log a worker.
        timeout_s: after so long the workers finish their epochs and stop.
    """

    def __init__(self, slots: Sequence[Slot], arguments: Sequence[str], url: str, logs: Path, timeout_s: float | None = None) -> None:
        self.workers = [
            WorkerProcess(slot, self._command(slot, arguments), self._environment(slot, url), logs / f"worker-{index}.log")
            for index, slot in enumerate(slots)
        ]
        self.stops = 0
        self.expired = False
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.failure: WorkerProcess | None = None

    @staticmethod
    def _command(slot: Slot, arguments: Sequence[str]) -> list[str]:
        own = ["--device", slot.device, "--threads", str(slot.threads), "--parent", str(os.getpid())]
        return [sys.executable, "-m", "search.cli", "worker", *arguments, *own]

    @staticmethod
    def _environment(slot: Slot, url: str) -> dict[str, str]:
        # Libraries read these when they are imported, long before torch can be told.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(slot.threads))
        return os.environ | threads | {STORE_VARIABLE: url, "PYTHONUNBUFFERED": "1"}

    def start(self) -> None:
        """Start all of them."""
        for worker in self.workers:
            worker.start()

    def finished(self) -> bool:
        """Whether all have ended. Replaces a worker that died, and stops the others when one met bad input."""
        if self._deadline is not None and not self.expired and time.monotonic() >= self._deadline:
            self.expired = True
            self._send(signal.SIGINT)
        for worker in self.workers:
            code = worker.exit_code
            if code in (None, 0) or self.stops or self.expired:
                continue
            if code is not None and (code < 0 or code == WorkerSpentError.exit_code) and worker.restarts < MAX_RESTARTS:
                worker.restarts += 1
                worker.start()
            elif self.failure is None:
                self.failure = worker
                self.stop()
        return all(worker.exit_code is not None for worker in self.workers)

    def stop(self) -> None:
        """First call: every worker finishes its epoch. Second: at once. Third: without mercy."""
        self.stops += 1
        self._send(signal.SIGINT if self.stops < 3 else signal.SIGKILL)

    def _send(self, number: int) -> None:
        for worker in self.workers:
            worker.send(number)

    def warnings(self) -> list[str]:
        """What the workers warned of in this run, each warning once."""
        lines = (line for worker in self.workers for line in worker.told() if line.startswith("warning: "))
        return list(dict.fromkeys(line.removeprefix("warning: ") for line in lines))

    def note(self) -> str:
        """What a person who asked for a stop is waiting for."""
        if not self.stops or self.failure is not None:
            return ""
        return "stopping after the epochs at hand; Ctrl-C again stops at once" if self.stops == 1 else "stopping at once"

    def check(self) -> None:
        """Say what ended the workers, if it was not the end of the work.

        Raises:
            SearchError: with the failed worker's own words and exit code.
        """
        if self.failure is not None:
            words = self.failure.last_words().removeprefix("error: ")
            if self.failure.exit_code == InputError.exit_code:
                raise InputError(words)  # which says all that there is to say
            raise SearchError(f"{words}\n  log:     {self.failure.log}")

    def forget_logs(self) -> None:
        """Remove the logs of this run, and their folders where nothing else is in them; earlier runs keep theirs."""
        for worker in self.workers:
            worker.forget_log()
        for folder in {folder: None for worker in self.workers for folder in (worker.log.parent, worker.log.parent.parent)}:
            with suppress(OSError):  # something else is in it, or it is gone
                folder.rmdir()

    @contextmanager
    def running(self) -> Iterator[LocalWorkers]:
        """Start the workers, turn Ctrl-C and SIGTERM into `stop`, and leave none behind."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.start()
            yield self
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self) -> None:
        """However the block ended, no worker survives it."""
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
            if self.finished_all():
                return
            for worker in self.workers:
                worker.send(number)
            deadline = time.monotonic() + POLITE_S
            while not self.finished_all() and time.monotonic() < deadline:
                time.sleep(0.05)

    def finished_all(self) -> bool:
        """Whether every process has ended."""
        return all(worker.process is None or worker.process.poll() is not None for worker in self.workers)
