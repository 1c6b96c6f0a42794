"""What a Slurm job runs: the worker itself, in the first process of the job's step.

So each signal reaches the worker once.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Self

from search.worker.events import log_worker_events
from search.worker.loop import run_worker
from search.worker.options import WorkerOptions
from spaces.errors import SearchError, WorkerRestartRequired
from spaces.exit_codes import ExitCode
from storage.files.study_files import ROOT_VARIABLE
from storage.location import StoreLocation

logger = logging.getLogger(__name__)

ADDRESS = "store.url"
"""File in a run's folder with the store's address, which only its owner can read."""

STOP_MARK = "stop"
"""File in a run's folder that says that the whole run is to stop."""

RENEWALS_VARIABLE = "SEARCH_RENEWALS"
MAX_RENEWALS = 3
"""How many times a job replaces its process by a fresh one."""


@dataclass(frozen=True)
class TaskEnd:
    """How the worker of a job ended, as a file in the run's folder."""

    exit_code: int

    def write_file(self, folder: Path, index: int) -> None:
        """Write the file of worker `index`, complete or not at all."""
        file = _end_file(folder, index)
        draft = file.with_suffix(".part")
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(file)

    @classmethod
    def read_file(cls, folder: Path, index: int) -> Self | None:
        """Read the file of worker `index`; None before the worker has ended by itself."""
        try:
            text = _end_file(folder, index).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return cls(**json.loads(text))

    @staticmethod
    def remove_file(folder: Path, index: int) -> None:
        """Remove the file of worker `index`, if there is one."""
        _end_file(folder, index).unlink(missing_ok=True)


def _end_file(folder: Path, index: int) -> Path:
    return folder / f"ended-{index}.json"


def task_events_path(folder: Path, index: int) -> Path:
    """The file for the events of worker `index`."""
    return folder / f"worker-{index}.events.jsonl"


@dataclass(frozen=True)
class SlurmTask:
    """One worker of the array; submitit pickles it, so that it must not contain a secret.

    Args:
        folder: of this run, which the nodes share.
        files: root of the studies' files.
        working: working directory.
        index: number of the worker in the run.
        options: of the worker; `auto` is resolved on its node.
    """

    folder: Path
    files: Path
    working: Path
    index: int
    options: WorkerOptions

    def __call__(self) -> int:
        """Work until nothing is left; when Slurm takes the node back, requeue the job."""
        _treat_timeouts_as_termination()
        os.chdir(self.working)
        os.environ[ROOT_VARIABLE] = str(self.files)
        code = self._run_guarded()
        # Slurm sends further signals to a job that it evicts; there is nothing left to stop.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        is_evicted = code == ExitCode.INTERRUPTED and not (self.folder / STOP_MARK).exists()
        if is_evicted and self._try_requeue():
            return code
        TaskEnd(code).write_file(self.folder, self.index)
        return code

    def _run_guarded(self) -> int:
        """Run the worker, print an error, and return the exit code."""
        try:
            with log_worker_events(task_events_path(self.folder, self.index)):
                return self._run_worker()
        except WorkerRestartRequired as problem:
            print(f"warning: {problem}", flush=True)
            _renew_process()
            return problem.exit_code
        except SearchError as problem:
            print(f"error: {problem}", flush=True)
            return problem.exit_code
        except Exception:
            traceback.print_exc()
            return ExitCode.FAILED

    def _run_worker(self) -> int:
        from search.launch.device_slots import resolve_device

        location = StoreLocation.parse((self.folder / ADDRESS).read_text(encoding="utf-8"))
        options = replace(self.options, device=resolve_device(self.options.device))
        return ExitCode.INTERRUPTED if run_worker(location, options) else ExitCode.DONE

    def _try_requeue(self) -> bool:
        """Requeue this job when Slurm takes its node back, but not when a user cancelled it."""
        with log_worker_events(task_events_path(self.folder, self.index)):
            return _requeue_job()


def _renew_process() -> None:
    """Replace this process by a fresh one in the same place, a few times at most."""
    renewals = int(os.environ.get(RENEWALS_VARIABLE, "0"))
    if renewals < MAX_RENEWALS:
        os.environ[RENEWALS_VARIABLE] = str(renewals + 1)
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this command again


def _treat_timeouts_as_termination() -> None:
    """Treat the signal that Slurm sends before the job's time is over like SIGTERM."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGUSR2, pass_on)


def _requeue_job() -> bool:
    """Put a job that still runs into the queue again; False when that is not possible."""
    job = os.environ.get("SLURM_JOB_ID")
    tool = shutil.which("scontrol")
    if job is None or tool is None:
        return False
    try:
        states = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%T"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        if states.stdout.split() != ["RUNNING"]:
            return False
        logger.info("Slurm takes the node back; the job is queued again")
        subprocess.run([tool, "requeue", job], timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as problem:
        logger.warning("the job could not be queued again: %s", problem)
        return False
    return True
