"""The real command as a process: started, watched, interrupted, and in the end gone with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.waiting import PATIENCE_S, until

__all__ = ["COMMAND", "PATIENCE_S", "Answer", "Job", "Terminal", "until"]

COMMAND = Path(sys.executable).with_name("search")
MARK = "SEARCH_TEST_JOB"
"""In the environment of a process and of all its descendants, also of those whose parent died."""

PRIVATE = ("SEARCH_", "WANDB_", "XDG_CACHE_HOME", "COLUMNS", "CUDA_VISIBLE_DEVICES")
"""What the environment of the tests' own process must not decide."""

CALM = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that spin while they wait make a training five times slower when others use the cores as well."""


@dataclass(frozen=True)
class Answer:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err


class Job:
    """A command that runs.

    Args:
        arguments: of `search`.
        folder: where it runs.
        cache: where it may keep its data sets.
        variables: set in its environment.
    """

    def __init__(
        self, arguments: tuple[str, ...], folder: Path, cache: Path, variables: dict[str, str]
    ) -> None:
        self.arguments, self._mark = arguments, uuid.uuid4().hex
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)}
        own = CALM | {MARK: self._mark, "XDG_CACHE_HOME": str(cache), "COLUMNS": "120"}
        # Files, because a process that writes into a full pipe stops; closed by `end`.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [COMMAND, *arguments],
            cwd=folder,
            env=kept | own | variables,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            preexec_fn=_in_the_foreground,
        )

    @property
    def pid(self) -> int:
        """Of the command itself."""
        return self._process.pid

    def said(self) -> Answer:
        """What it has said so far; the code is -1000 while it runs."""
        code = self._process.poll()
        return Answer(
            -1000 if code is None else code, _read(self._out.fileno()), _read(self._err.fileno())
        )

    def wait(self) -> Answer:
        """How it ended."""
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.arguments} still runs after {PATIENCE_S:g} s, and said {self.said().text}"
            ) from None
        return self.said()

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """As a cluster does that takes the machine away."""
        self._process.terminate()

    def kill(self) -> None:
        """At once, without a chance to clean up."""
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def alive(self) -> list[psutil.Process]:
        """Itself and everything that it started, as far as it still runs."""
        return list(_marked(self._mark))

    def workers(self) -> list[psutil.Process]:
        """The workers that it started, as far as they still run."""
        return [
            process
            for process in self.alive()
            if process.pid != self.pid and "worker" in process.cmdline()
        ]

    def end(self) -> None:
        """Leave nothing behind."""
        left = self.alive()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(PATIENCE_S)
        psutil.wait_procs(left, PATIENCE_S)
        self._out.close()
        self._err.close()


class Terminal:
    """Where commands are typed. `end` ends what is left of them.

    Args:
        cache: where they may keep their data sets.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._jobs: list[Job] = []

    def start(self, *arguments: str, folder: Path, **variables: str) -> Job:
        """Start `search` with these arguments, and do not wait."""
        job = Job(arguments, folder, self._cache, variables)
        self._jobs.append(job)
        return job

    def run(self, *arguments: str, folder: Path, **variables: str) -> Answer:
        """Start it and wait for its end."""
        return self.start(*arguments, folder=folder, **variables).wait()

    def end(self) -> None:
        """Leave nothing behind."""
        for job in self._jobs:
            job.end()


def _in_the_foreground() -> None:
    """A script's background job inherits that Ctrl-C is ignored, and so would whatever tests start in it; at a terminal it counts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read(handle: int) -> str:
    """A whole file, with the place at which its writer stands left alone."""
    return os.pread(handle, 10_000_000, 0).decode()


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
