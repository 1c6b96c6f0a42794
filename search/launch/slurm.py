"""Workers as a Slurm job array: Slurm finds the places, and puts a preempted worker into its queue again.

submitit writes the batch file. What the workers do they tell the store; that one cannot go on stands in a file of the run's folder,
and whether a job is still alive is Slurm's to say.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from search.launch import slurm_queue as queue
from search.launch.local import PYTHON, STORE_VARIABLE, thread_variables
from search.launch.pool import AT_ONCE, POLITELY, Team, failed
from search.launch.slurm_task import ADDRESS, INTERRUPTED, STOP_MARK, SlurmTask, end_file
from spaces.errors import LauncherError, SearchError, WorkerRestartRequired
from storage.location import StoreLocation

POLL_S = 5.0
"""How often Slurm is asked: its controller has others to answer."""

UNHEARD_S = 600.0
"""How long it may leave that unanswered."""

RESTARTS, RESTARTS_S = 5, 600.0
"""So many new jobs for one worker in so many seconds, in which the study did not get on, are not the nodes' fault any more."""


@dataclass(frozen=True)
class Array:
    """The jobs that are asked for.

    Args:
        parameters: of submitit; `additional_parameters` are other options of `sbatch`.
    """

    workers: int
    device: str
    threads: int
    parameters: Mapping[str, Any]


@dataclass
class SlurmWorker:
    """One place in the array, and the job that fills it."""

    task: SlurmTask
    job: str = ""
    state: str = "PENDING"
    over: bool = False
    starts: list[float] = field(default_factory=list)

    def end(self) -> tuple[int, list[str]] | None:
        """Exit code and last words, None before the worker has ended by itself."""
        try:
            told = json.loads(
                end_file(self.task.folder, self.task.index).read_text(encoding="utf-8")
            )
        except FileNotFoundError:
            return None
        return int(told["code"]), [str(line) for line in told["told"]]


class SlurmWorkers(Team):
    """The workers of one `search run` on a Slurm cluster.

    Args:
        array: the jobs.
        arguments: `--study NAME --wandb MODE`, as every launcher is given them.
        location: of the store.
        logs: the study's folder, which the nodes share; a run keeps its files in `slurm/` there.
        timeout_s: after so long the workers finish their epochs and stop.
    """

    def __init__(
        self,
        array: Array,
        arguments: Sequence[str],
        location: StoreLocation,
        logs: Path,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(timeout_s)
        self.folder = logs / "slurm" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        self._array, self._location = array, location
        self._workers = [
            SlurmWorker(
                SlurmTask(
                    self.folder,
                    logs.parent,
                    Path.cwd(),
                    index,
                    given["--study"],
                    array.device,
                    array.threads,
                    given["--wandb"],
                )
            )
            for index in range(array.workers)
        ]
        self._asked = self._done = False
        self._next_look_s = 0.0
        self._heard_s = self._taken_s = time.monotonic()

    def start(self) -> None:
        """Submit the array."""
        self.folder.parent.mkdir(
            parents=True, exist_ok=True, mode=0o700
        )  # what is run lies below: nobody else may put another folder in its place
        self.folder.mkdir(mode=0o700)
        with os.fdopen(
            os.open(self.folder / ADDRESS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
            "w",
            encoding="utf-8",
        ) as file:
            file.write(self._location.url)
        self._submit(self._workers)

    def _submit(self, workers: Sequence[SlurmWorker]) -> None:
        executor = submitit.SlurmExecutor(folder=self.folder, python=shlex.join(PYTHON))
        exports = [
            f"export {name}={value}"
            for name, value in thread_variables(self._array.threads).items()
        ]
        additional = {"requeue": True, **self._array.parameters.get("additional_parameters", {})}
        defaults = {
            "job_name": f"search-{self._workers[0].task.study}",
            "time": None,
            "wckey": None,
            "stderr_to_stdout": True,
        }
        fixed = {
            "setup": exports,
            "additional_parameters": additional,
            "cpus_per_task": self._array.threads,
        }
        executor.update_parameters(**{**defaults, **self._array.parameters, **fixed})
        try:
            with queue.without(STORE_VARIABLE):
                jobs = executor.map_array(SlurmTask.__call__, [worker.task for worker in workers])
        except FailedJobError as problem:
            for worker in workers:
                worker.over = True
            raise LauncherError(
                "Slurm does not take the jobs",
                where="--slurm",
                found=str(problem.__cause__ or problem).strip().splitlines()[-1],
                next_step="see `sinfo` for the partitions, and `sbatch --help` for the options",
            ) from None
        now = time.monotonic()
        for worker, job in zip(workers, jobs, strict=True):
            worker.job, worker.state = str(job.job_id), "PENDING"
            worker.starts = [start for start in worker.starts if start > now - RESTARTS_S] + [now]

    def look(self) -> bool:
        """Note who has ended, replace jobs that Slurm lost, and say whether all have ended."""
        for worker in self._workers:
            if not worker.over and (end := worker.end()) is not None:
                worker.over = True
                self._ended(worker, *end)
        if time.monotonic() >= self._next_look_s:
            self._next_look_s = time.monotonic() + POLL_S
            self._ask_slurm()
        return all(worker.over for worker in self._workers)

    def gone(self) -> bool:
        """Whether all have ended; once a stop is asked for, no job is submitted."""
        return self.look() if self._asked else all(worker.over for worker in self._workers)

    def _ended(self, worker: SlurmWorker, code: int, told: list[str]) -> None:
        if code == 0:
            self._done = True
        elif code == WorkerRestartRequired.exit_code and not (self._asked or self._done):
            end_file(worker.task.folder, worker.task.index).unlink(
                missing_ok=True
            )  # as if its node had been lost: the memory of its device is
            worker.state = "SPENT"
            self._replace([worker])
        elif code != INTERRUPTED and not self._asked:
            self._fail(failed(code, told, str(self._log(worker))))

    def _ask_slurm(self) -> None:
        """The states of the jobs. A controller that does not answer is asked again for a while."""
        live = [worker for worker in self._workers if not worker.over and worker.job]
        refused = [worker for worker in self._workers if not worker.over and not worker.job]
        try:
            states = queue.states([worker.job for worker in live])
        except LauncherError:
            if time.monotonic() - self._heard_s > UNHEARD_S:
                raise
            return
        self._heard_s = time.monotonic()
        for worker in live:
            worker.state = states.get(worker.job, "gone")
        unneeded = [
            worker for worker in live if worker.state == "PENDING" and (self._done or self._asked)
        ]
        queue.cancel([worker.job for worker in unneeded], "--state=PENDING")
        lost = [
            worker for worker in live if worker.state not in queue.LIVE and worker.end() is None
        ]
        for worker in lost:
            worker.over = True
        if not (self._asked or self._done):
            self._replace(
                [*refused, *(worker for worker in lost if worker.state != "CANCELLED")]
            )  # that one somebody meant

    def _replace(self, lost: list[SlurmWorker]) -> None:
        for worker in lost:
            if len(worker.starts) > RESTARTS and not (self.care is not None and self.care.got_on()):
                words = (
                    self._log(worker).read_text(errors="replace").splitlines()
                    if self._log(worker).exists()
                    else []
                )
                self._fail(
                    failed(
                        None,
                        [
                            *words,
                            f"error: job {worker.job} ended as {worker.state} again and again",
                        ],
                        str(self._log(worker)),
                    )
                )
                return
        try:
            if lost:
                self._submit(lost)
                self._taken_s = time.monotonic()
        except LauncherError:  # a controller that is busy, or away for a while
            if time.monotonic() - self._taken_s > UNHEARD_S:
                raise
            for worker in lost:
                worker.job = ""
        for worker in lost:
            worker.over = False

    def _fail(self, failure: SearchError) -> None:
        if self._failure is None:
            self._failure = failure
            self.stop()

    def ask(self, times: int) -> None:
        """Pass a request to stop on: running jobs finish the epoch, or are cancelled; those that wait are cancelled."""
        self._asked = True
        with suppress(OSError):  # without the folder there is nobody to read it
            (self.folder / STOP_MARK).touch()
        jobs = [worker.job for worker in self._workers if not worker.over and worker.job]
        queue.cancel(jobs, "--state=PENDING")
        if times <= POLITELY:
            queue.cancel(jobs, "--state=RUNNING", "--signal=INT")
        else:
            queue.cancel(jobs, *([] if times == AT_ONCE else ["--signal=KILL"]))
        self._next_look_s = 0.0

    def _log(self, worker: SlurmWorker) -> Path:
        return self.folder / f"{worker.job}_0_log.out"

    def told(self) -> Iterator[str]:
        """The lines of all logs from this run."""
        for log in sorted(self.folder.glob("*_log.out")):
            yield from log.read_text(errors="replace").splitlines()

    def waiting(self) -> str:
        """Who still waits for a place."""
        waiting = sum(not worker.over and worker.state == "PENDING" for worker in self._workers)
        return f"{waiting} of {len(self._workers)} jobs wait in Slurm's queue" if waiting else ""

    def forget_logs(self) -> None:
        """Remove the files of this run."""
        for path in self.folder.glob("*"):
            path.unlink()
        for folder in (self.folder, self.folder.parent, self.folder.parent.parent):
            with suppress(OSError):  # something else is in it, or it is gone
                folder.rmdir()

    def release(self) -> None:
        """Take the store's address and submitit's own files away, unless a job may still need them; the logs stay."""
        if all(worker.over for worker in self._workers):
            for pattern in (ADDRESS, "*.pkl", "*.sh", "*.part"):
                for path in self.folder.glob(pattern):
                    path.unlink(missing_ok=True)
