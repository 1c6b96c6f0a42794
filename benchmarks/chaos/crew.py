"""The workers of a campaign: `search worker` processes, replaced while the study runs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.campaign import CHECKPOINT_S
from benchmarks.commands import ONE_THREAD, environment, script
from search.launch.reaper import TrialReaper
from search.worker.checkpoints import EVERY_VARIABLE
from search.worker.identity import worker_name
from spaces.exit_codes import ExitCode
from storage.files.checkpoints import StoredCheckpoints
from storage.files.study_files import ROOT_VARIABLE, StudyFiles

EXPECTED: dict[str, tuple[int, ...]] = {
    "kill": (-signal.SIGKILL,),
    "terminate": (ExitCode.INTERRUPTED, -signal.SIGTERM, 128 + signal.SIGTERM),
    "": (),
}
"""Exit codes of a worker by what was done to it.

A worker that is terminated while it imports dies of the signal itself.
"""


@dataclass
class Member:
    """One worker."""

    process: subprocess.Popen[bytes]
    log: Path
    meant: str = ""
    supervised: bool = False
    ended_by_us_at: float | None = None
    frozen_at: float = 0.0
    frozen_until: float | None = None
    thaw_when: Callable[[float], bool] | None = None
    stood_still: list[tuple[float, float]] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Of the process, which is also what it writes into the store."""
        return self.process.pid

    @property
    def at_large(self) -> bool:
        """Whether it runs and nothing was done to it."""
        return self.process.poll() is None and not self.meant and self.frozen_until is None

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)


@dataclass(frozen=True)
class Exit:
    """How a worker ended."""

    code: int
    meant: str
    took_s: float
    log: Path

    @property
    def expected(self) -> bool:
        """Whether it ended as one does to which that was done."""
        return self.code in EXPECTED[self.meant]


@dataclass
class Crew:
    """Workers on one study.

    Args:
        size: how many at a time.
        study: its name in the store.
        url: the store's address, which travels in the environment.
        folder: for logs and checkpoints.
        reaper: releases the trials of dead workers, as in the supervisor of `search run`.
    """

    size: int
    study: str
    url: str
    folder: Path
    reaper: TrialReaper
    members: list[Member] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    started: int = 0

    @property
    def files(self) -> StudyFiles:
        """Where the workers keep the states of their trials."""
        return StudyFiles(self.folder / "files")

    def last_state_at(self, number: int) -> float | None:
        """When the checkpoint was written from which a trial would resume now; None without one."""
        states = StoredCheckpoints(
            self.files, self.files.trial_stem(self.study, number)
        ).list_newest_first()
        return states[0].path.stat().st_mtime if states else None

    def start(self) -> None:
        """One more worker."""
        log = self.folder / f"worker-{self.started:04d}.log"
        own = ONE_THREAD | {
            "SEARCH_STORE": self.url,
            ROOT_VARIABLE: str(self.files.root),
            EVERY_VARIABLE: f"{CHECKPOINT_S:g}",
            "PYTHONUNBUFFERED": "1",
        }
        command = [
            script("search"),
            "worker",
            "--study",
            self.study,
            "--threads",
            "1",
            "--parent",
            str(os.getpid()),
        ]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(**own),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.started += 1
        self.members.append(Member(process, log))

    def tend(self, *, refill: bool) -> None:
        """Note who ended, and let others take their places."""
        for member in [member for member in self.members if member.process.poll() is not None]:
            self.members.remove(member)
            if member.supervised:
                self.reaper.report_death(
                    worker_name(member.pid),
                    member.process.returncode,
                    member.log.read_text(errors="replace").splitlines(),
                )
            took_s = 0.0 if member.ended_by_us_at is None else time.time() - member.ended_by_us_at
            self.exits.append(Exit(member.process.returncode, member.meant, took_s, member.log))
        self.reaper.reap_trials()
        while refill and len(self.members) < self.size:
            self.start()

    def thaw(self, now_s: float) -> None:
        """Continue the frozen workers whose time is over."""
        for member in self.members:
            if member.frozen_until is None:
                continue
            if now_s >= member.frozen_until or (
                member.thaw_when is not None and member.thaw_when(now_s)
            ):
                member.send(signal.SIGCONT)
                member.frozen_until = member.thaw_when = None
                member.stood_still.append((member.frozen_at, time.time()))

    def lines(self, needle: str) -> list[str]:
        """Lines of all logs that hold it."""
        return [
            line
            for log in sorted(self.folder.glob("worker-*.log"))
            for line in log.read_text(errors="replace").splitlines()
            if needle in line
        ]

    @contextmanager
    def running(self) -> Iterator[Crew]:
        """All of them; at the end of the block none is left."""
        try:
            self.tend(refill=True)
            yield self
        finally:
            for member in self.members:
                member.process.kill()
                member.process.wait()
