"""Workers as a Slurm job array: Slurm finds the places, and queues a preempted worker again.

submitit writes the batch file. A worker's results are in the store. How it ended, if it could not
continue, is in files of the run's folder; whether a job is alive is known to Slurm.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from search.launch import slurm_queue as queue
from search.launch.local_workers import PYTHON, STORE_VARIABLE, thread_variables
from search.launch.reaper import TrialReaper
from search.launch.slurm_task import ADDRESS, STOP_MARK, SlurmTask, TaskEnd, task_events_path
from search.launch.worker_pool import StopLevel, WorkerEnd, WorkerPool
from search.worker.events import WorkerEvent, read_events
from search.worker.options import WorkerOptions
from spaces.errors import LauncherError, SearchError
from spaces.exit_codes import ExitCode
from storage.location import StoreLocation

POLL_S = 5.0
"""Seconds between two questions to Slurm, whose controller serves others as well."""

UNANSWERED_S = 600.0
"""How long Slurm may not answer, or refuse jobs, before the run ends."""

MAX_RESTARTS = 5
RESTARTS_S = 600.0
"""A worker for which more than this many jobs were submitted within this time, while the study made
no progress, gets no other job."""


@dataclass(frozen=True)
class JobArray:
    """The jobs to submit.

    Args:
        workers: how many.
        device: of each worker.
        threads: CPU threads of each worker.
        parameters: of submitit; `additional_parameters` are other options of `sbatch`.
    """

    workers: int
    device: str
    threads: int
    parameters: Mapping[str, Any]


@dataclass
class SlurmWorker:
    """One worker of the array and its current job.

    Attributes:
        job: Slurm's name of the job; empty when Slurm refused the last one.
        state: of the job.
        is_over: whether the worker has ended and gets no other job.
        starts: times of its latest jobs, by the monotonic clock.
    """

    task: SlurmTask
    job: str = ""
    state: str = "PENDING"
    is_over: bool = False
    starts: list[float] = field(default_factory=list)

    def read_end(self) -> TaskEnd | None:
        """How it ended; None before it has ended by itself."""
        return TaskEnd.read_file(self.task.folder, self.task.index)

    def read_events(self) -> list[WorkerEvent]:
        """Its events in this run."""
        return read_events(task_events_path(self.task.folder, self.task.index))

    @property
    def log(self) -> Path:
        """The log of its current job."""
        return self.task.folder / f"{self.job}_0_log.out"


class SlurmWorkers(WorkerPool):
    """The workers of one `search run` on a Slurm cluster.

    Args:
        array: the jobs.
        options: of every worker, apart from its device and threads.
        location: of the store.
        logs: the study's folder, which the nodes share; a run keeps its files in `slurm/` there.
        reaper: releases the trials of dead workers.
        timeout_s: the workers finish their epochs and stop after this time.
    """

    def __init__(
        self,
        array: JobArray,
        options: WorkerOptions,
        location: StoreLocation,
        logs: Path,
        reaper: TrialReaper | None = None,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(reaper, timeout_s)
        self.folder = logs / "slurm" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self._array = array
        self._location = location
        options = replace(options, device=array.device, threads=array.threads)
        self._workers = [
            SlurmWorker(SlurmTask(self.folder, logs.parent, Path.cwd(), index, options))
            for index in range(array.workers)
        ]
        self._is_stopping = False
        self._is_done = False
        self._next_poll_s = 0.0
        self._answered_s = time.monotonic()
        self._accepted_s = self._answered_s

    def start_workers(self) -> None:
        """Submit the array."""
        # The job runs files of these folders, so no other user may replace them.
        self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.mkdir(mode=0o700)
        descriptor = os.open(self.folder / ADDRESS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self._location.url)
        self._submit_jobs(self._workers)

    def _submit_jobs(self, workers: Sequence[SlurmWorker]) -> None:
        executor = self._make_executor()
        try:
            with queue.hidden_variables(STORE_VARIABLE):
                jobs = executor.map_array(SlurmTask.__call__, [worker.task for worker in workers])
        except FailedJobError as problem:
            for worker in workers:
                worker.is_over = True
            raise LauncherError(
                "Slurm does not accept the jobs",
                where="--slurm",
                found=str(problem.__cause__ or problem).strip().splitlines()[-1],
                next_step="see `sinfo` for the partitions, and `sbatch --help` for the options",
            ) from None
        now = time.monotonic()
        for worker, job in zip(workers, jobs, strict=True):
            worker.job = str(job.job_id)
            worker.state = "PENDING"
            worker.starts = [*(start for start in worker.starts if start > now - RESTARTS_S), now]

    def _make_executor(self) -> Any:
        array = self._array
        executor = submitit.SlurmExecutor(folder=self.folder, python=shlex.join(PYTHON))
        exports = [
            f"export {name}={value}" for name, value in thread_variables(array.threads).items()
        ]
        defaults = {
            "job_name": f"search-{self._workers[0].task.options.study}",
            "time": None,
            "wckey": None,
            "stderr_to_stdout": True,
        }
        fixed = {
            "setup": exports,
            "additional_parameters": {
                "requeue": True,
                **array.parameters.get("additional_parameters", {}),
            },
            "cpus_per_task": array.threads,
        }
        executor.update_parameters(**{**defaults, **array.parameters, **fixed})
        return executor

    def poll(self) -> bool:
        """Handle workers that ended, replace jobs that Slurm lost; whether all have exited."""
        for worker in self._workers:
            if not worker.is_over and (end := worker.read_end()) is not None:
                worker.is_over = True
                self._handle_end(worker, end)
        if time.monotonic() >= self._next_poll_s:
            self._next_poll_s = time.monotonic() + POLL_S
            self._poll_slurm()
        return all(worker.is_over for worker in self._workers)

    def all_exited(self) -> bool:
        """Whether all have exited; after a request to stop no job is submitted."""
        if self._is_stopping:
            return self.poll()
        return all(worker.is_over for worker in self._workers)

    def _handle_end(self, worker: SlurmWorker, end: TaskEnd) -> None:
        code = end.exit_code
        if code == ExitCode.DONE:
            self._is_done = True
        elif code == ExitCode.RESTART and not (self._is_stopping or self._is_done):
            # As if its node had been lost: the memory of its device is in an unknown state.
            TaskEnd.remove_file(worker.task.folder, worker.task.index)
            worker.state = "RESTART"
            self._replace_jobs([worker])
        elif code != ExitCode.INTERRUPTED and not self._is_stopping:
            self._record_failure(
                WorkerEnd(code, worker.read_events(), log=str(worker.log)).to_error()
            )

    def _poll_slurm(self) -> None:
        """Read the states of the jobs; a controller that does not answer is asked again later."""
        live = [worker for worker in self._workers if not worker.is_over and worker.job]
        refused = [worker for worker in self._workers if not worker.is_over and not worker.job]
        try:
            states = queue.list_states([worker.job for worker in live])
        except LauncherError:
            if time.monotonic() - self._answered_s > UNANSWERED_S:
                raise
            return
        self._answered_s = time.monotonic()
        for worker in live:
            worker.state = states.get(worker.job, "gone")
        if self._is_done or self._is_stopping:
            pending = [worker.job for worker in live if worker.state == "PENDING"]
            queue.cancel_jobs(pending, "--state=PENDING")
        lost = [
            worker
            for worker in live
            if worker.state not in queue.LIVE and worker.read_end() is None
        ]
        for worker in lost:
            worker.is_over = True
        if not (self._is_stopping or self._is_done):
            # A job that was cancelled is not submitted again: a user meant that.
            replaced = [worker for worker in lost if worker.state != "CANCELLED"]
            self._replace_jobs([*refused, *replaced])

    def _replace_jobs(self, lost: list[SlurmWorker]) -> None:
        """Submit new jobs for workers that lost theirs."""
        for worker in lost:
            if len(worker.starts) > MAX_RESTARTS and not self._made_progress():
                self._record_failure(
                    SearchError(
                        f"job {worker.job} ended as {worker.state} again and again\n"
                        f"  log:     {worker.log}"
                    )
                )
                return
        try:
            if lost:
                self._submit_jobs(lost)
                self._accepted_s = time.monotonic()
        except LauncherError:  # the controller is busy, or unavailable for a while
            if time.monotonic() - self._accepted_s > UNANSWERED_S:
                raise
            for worker in lost:
                worker.job = ""
        for worker in lost:
            worker.is_over = False

    def _made_progress(self) -> bool:
        return self._reaper is not None and self._reaper.made_progress()

    def _record_failure(self, failure: SearchError) -> None:
        if self._failure is None:
            self._failure = failure
            self.raise_stop_level()

    def request_stop(self, level: StopLevel) -> None:
        """Ask running jobs to stop after the epoch, or cancel them; cancel waiting jobs."""
        self._is_stopping = True
        with suppress(OSError):  # without the folder no job reads it
            (self.folder / STOP_MARK).touch()
        jobs = [worker.job for worker in self._workers if not worker.is_over and worker.job]
        queue.cancel_jobs(jobs, "--state=PENDING")
        if level == StopLevel.AFTER_EPOCH:
            queue.cancel_jobs(jobs, "--state=RUNNING", "--signal=INT")
        elif level == StopLevel.NOW:
            queue.cancel_jobs(jobs)
        else:
            queue.cancel_jobs(jobs, "--signal=KILL")
        self._next_poll_s = 0.0

    def read_events(self) -> list[WorkerEvent]:
        """The events of all workers from this run."""
        events = []
        for worker in self._workers:
            events += worker.read_events()
        return events

    def describe_waiting(self) -> str:
        """How many jobs wait in Slurm's queue."""
        waiting = sum(not worker.is_over and worker.state == "PENDING" for worker in self._workers)
        return f"{waiting} of {len(self._workers)} jobs wait in Slurm's queue" if waiting else ""

    def remove_logs(self) -> None:
        """Remove the files of this run."""
        for path in self.folder.glob("*"):
            path.unlink()
        for folder in (self.folder, self.folder.parent, self.folder.parent.parent):
            with suppress(OSError):  # it is not empty, or gone
                folder.rmdir()

    def release_resources(self) -> None:
        """Remove the store's address and submitit's files, unless a job may still need them."""
        if all(worker.is_over for worker in self._workers):
            for pattern in (ADDRESS, "*.pkl", "*.sh", "*.part"):
                for path in self.folder.glob(pattern):
                    path.unlink(missing_ok=True)
