"""What a Slurm job does: it is the worker itself, in the first process of the job's step, so that each signal reaches it once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from search.worker.context import WorkerSettings
from search.worker.loop import work
from spaces.errors import SearchError, WorkerRestartRequired
from storage.files.study_files import ROOT_VARIABLE
from storage.location import StoreLocation

ADDRESS, STOP_MARK = "store.url", "stop"
"""Files in the folder of a run: the store's address, which only its owner can read, and that the run is to stop."""

RENEWALS_VARIABLE = "SEARCH_RENEWALS"
MAX_RENEWALS = 3
INTERRUPTED = 130


def end_file(folder: Path, index: int) -> Path:
    """Where a worker leaves word of how it ended."""
    return folder / f"ended-{index}.json"


@dataclass(frozen=True)
class SlurmTask:
    """One worker of the array. It goes to the job as a pickle that submitit makes, so it holds nothing secret.

    Args:
        folder: of this run; the nodes share it.
        files: root of the studies' files.
    """

    folder: Path
    files: Path
    working: Path
    index: int
    study: str
    device: str
    threads: int
    wandb: str

    def __call__(self) -> int:
        """Work until nothing is left, or until Slurm wants the node back, and then wait in the queue for another turn."""
        _take_timeouts_as_requests()
        os.chdir(self.working)
        os.environ[ROOT_VARIABLE] = str(self.files)
        code, words = self._work()
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
        ):  # Slurm's next one, for a job that it takes back, has nothing to stop any more
            signal.signal(number, signal.SIG_IGN)
        if code == INTERRUPTED and not (self.folder / STOP_MARK).exists() and _requeued():
            return code
        whole = end_file(self.folder, self.index)
        draft = whole.with_suffix(".part")
        draft.write_text(json.dumps({"code": code, "told": words}), encoding="utf-8")
        draft.replace(whole)
        return code

    def _work(self) -> tuple[int, list[str]]:
        from search.launch.devices import own_device

        try:
            location = StoreLocation.parse((self.folder / ADDRESS).read_text(encoding="utf-8"))
            settings = WorkerSettings(
                location,
                self.study,
                own_device(self.device),
                self.threads,
                self.wandb,  # type: ignore[arg-type]
            )
            return (INTERRUPTED if work(settings) else 0), []
        except WorkerRestartRequired as problem:
            print(f"warning: {problem}", flush=True)
            _renew()
            return problem.exit_code, f"error: {problem}".splitlines()
        except SearchError as problem:
            print(f"error: {problem}", flush=True)
            return problem.exit_code, f"error: {problem}".splitlines()
        except Exception:
            traceback.print_exc()
            return 1, traceback.format_exc().splitlines()


def _renew() -> None:
    """Begin anew in the same place with a fresh process image, a few times at most."""
    renewals = int(os.environ.get(RENEWALS_VARIABLE, "0"))
    if renewals < MAX_RENEWALS:
        os.environ[RENEWALS_VARIABLE] = str(renewals + 1)
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very command again


def _take_timeouts_as_requests() -> None:
    """Slurm's early word that the time of the job is almost over counts as a request to stop, like SIGTERM."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGUSR2, pass_on)


def _requeued() -> bool:
    """Whether this job waits in the queue again: Slurm wants its node back. One that somebody cancelled does not."""
    job, tool = os.environ.get("SLURM_JOB_ID"), shutil.which("scontrol")
    if job is None or tool is None:
        return False
    try:
        asked = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%T"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        if asked.stdout.split() != ["RUNNING"]:
            return False
        print("Slurm wants the node back; the job goes to the end of the queue", flush=True)
        subprocess.run([tool, "requeue", job], timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as problem:
        print(f"warning: the job could not be put into the queue again: {problem}", flush=True)
        return False
    return True
