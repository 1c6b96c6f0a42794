"""Workers on a Ray cluster: one actor per slot, each with one `search worker` as its child process.

Ray places the actors, and creates one again on another node when its node dies. A worker's results
are in the store only, so that a lost node costs the current epochs and nothing else.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from search.launch.device_slots import Slot
from search.launch.local_workers import REPLACEABLE, STORE_VARIABLE, WorkerProcess, thread_variables
from search.launch.reaper import TrialReaper
from search.launch.worker_pool import StopLevel, WorkerEnd, WorkerPool
from search.worker.events import WorkerEvent, events_path
from search.worker.options import WorkerOptions
from spaces.errors import SearchError
from spaces.exit_codes import ExitCode
from storage.files.study_files import ROOT_VARIABLE
from storage.location import StoreLocation

MAX_LOG_LINES = 100
"""Lines of the end of a worker's log that its node returns."""

MAX_RESTARTS = 5
RESTARTS_S = 600.0
"""A worker that was started more than this many times within this time, while the study made no
progress, is not started again."""

PASSED_ON = ("SEARCH_", "WANDB_")
"""Prefixes of the environment variables that the supervisor passes on to a node."""


@dataclass(frozen=True)
class Share:
    """What one worker needs of a node."""

    slot: Slot
    gpus: float


@dataclass(frozen=True)
class StartRequest:
    """What a node starts.

    It is passed to the actor directly, because Ray shows environment variables to all users.
    """

    options: WorkerOptions
    variables: dict[str, str] = field(repr=False)
    log: Path = Path()
    folder: Path = Path()


@dataclass(frozen=True)
class RemoteEnd:
    """How a worker on a node ended.

    Attributes:
        worker: its name in the store.
        end: its exit code, events and log; the log's place contains the node's name.
    """

    worker: str
    end: WorkerEnd


class WorkerActor:
    """The Ray actor that runs one worker on a node; its methods run in several threads."""

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None
        self._level: StopLevel | None = None

    def get_host(self) -> str:
        """The node's name; it answers as soon as the actor is placed."""
        return socket.gethostname()

    def run_worker(self, request: StartRequest) -> RemoteEnd:
        """Run the worker to its end.

        If it still runs, because only the connection was lost, no second one is started.
        """
        if self._worker is None or self._worker.exit_code is not None:
            self._start_worker(request)
        worker = self._worker
        assert worker is not None
        assert worker.process is not None
        worker.process.wait()
        end = worker.describe_end()
        place = f"{socket.gethostname()}:{end.log}"
        tail = tuple(end.log_tail)[-MAX_LOG_LINES:]
        return RemoteEnd(worker.name, replace(end, log_tail=tail, log=place))

    def _start_worker(self, request: StartRequest) -> None:
        self._worker = WorkerProcess(
            request.options,
            os.environ | request.variables,
            _writable_log(request.log),
            request.folder if request.folder.is_dir() else None,
        )
        self._worker.start_process()
        if self._level is not None:  # requested before there was a process
            self._worker.send_signal(signal.SIGINT)

    def request_stop(self, level: StopLevel) -> None:
        """Ask the worker to stop."""
        self._level = level
        if self._worker is not None:
            number = signal.SIGKILL if level == StopLevel.KILL else signal.SIGINT
            self._worker.send_signal(number)


def _writable_log(log: Path) -> Path:
    """The log's path, or one in a temporary folder if the node cannot create the study's folder."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="search-")) / log.name
    return log


@dataclass
class RayWorker:
    """One actor and its pending answers.

    Attributes:
        placed: becomes ready when the actor has a place.
        ended: becomes ready when the worker ends; None before it has a place.
        is_over: whether the actor was dismissed.
        starts: times of its latest starts, by the monotonic clock.
    """

    request: StartRequest
    actor: Any
    placed: Any = None
    ended: Any = None
    is_over: bool = False
    starts: list[float] = field(default_factory=list)

    def await_place(self) -> None:
        """Wait for a place."""
        self.ended = None
        self.placed = self.actor.get_host.remote()

    def start_run(self) -> None:
        """Run the worker in its place."""
        now = time.monotonic()
        self.starts = [*(start for start in self.starts if start > now - RESTARTS_S), now]
        self.ended = self.actor.run_worker.remote(self.request)

    def dismiss_actor(self) -> None:
        """Release its place."""
        self.is_over = True
        ray.kill(self.actor, no_restart=True)


class RayWorkers(WorkerPool):
    """The workers of one `search run` on a cluster that this process has joined.

    Args:
        shares: one per worker.
        options: of every worker, apart from its share.
        location: of the store.
        logs: folder for the workers' logs, on their nodes. Checkpoints are in it too, and are found
            by other nodes where the folder is shared.
        reaper: releases the trials of dead workers.
        timeout_s: the workers finish their epochs and stop after this time.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        options: WorkerOptions,
        location: StoreLocation,
        logs: Path,
        reaper: TrialReaper | None = None,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(reaper, timeout_s)
        own = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        own |= {
            STORE_VARIABLE: location.url,
            ROOT_VARIABLE: str(logs.parent),
            "PYTHONUNBUFFERED": "1",
        }
        self._shares = shares
        self._requests = [
            StartRequest(
                replace(options, device=share.slot.device, threads=share.slot.threads),
                own | thread_variables(share.slot.threads),
                logs / f"worker-{index}.log",
                Path.cwd(),
            )
            for index, share in enumerate(shares)
        ]
        self._workers: list[RayWorker] = []
        self._ends: list[WorkerEnd] = []
        self._is_stopping = False
        self._is_done = False
        self._earlier_files = set(logs.glob("worker-*"))

    def start_workers(self) -> None:
        """Ask the cluster for a place per worker."""
        for share, request in zip(self._shares, self._requests, strict=True):
            actor = ray.remote(WorkerActor).options(
                num_cpus=share.slot.threads, num_gpus=share.gpus, max_restarts=-1, max_concurrency=4
            )
            worker = RayWorker(request, actor.remote())
            worker.await_place()
            self._workers.append(worker)

    def poll(self) -> bool:
        """Start workers that have a place, replace lost ones; whether all have exited."""
        for worker in self._workers:
            if not worker.is_over:
                self._poll_worker(worker)
        return all(worker.is_over for worker in self._workers)

    def all_exited(self) -> bool:
        """Whether all have exited; after a request to stop none is started."""
        if self._is_stopping:
            return self.poll()
        return all(worker.is_over for worker in self._workers)

    def _poll_worker(self, worker: RayWorker) -> None:
        is_running = worker.ended is not None
        if self._is_done and not is_running:
            worker.dismiss_actor()  # nothing is left to do for it
            return
        awaited = worker.ended if is_running else worker.placed
        if not ray.wait([awaited], timeout=0)[0]:
            return
        try:
            answer = ray.get(awaited)
        except ActorUnavailableError as loss:  # Ray is finding it another place
            if is_running:
                self._restart_worker(worker, str(loss))
            else:
                worker.await_place()
        except RayActorError as loss:
            if is_running:
                self._restart_worker(worker, str(loss))
            else:
                self._fail_placement(worker, str(loss))
        except RayError as problem:
            self._record_failure(
                worker, SearchError(f"a worker could not be started on its node: {problem}")
            )
        else:
            if is_running:
                self._handle_end(worker, answer)
            else:
                worker.start_run()

    def _handle_end(self, worker: RayWorker, remote: RemoteEnd) -> None:
        end = remote.end
        code = end.exit_code or 0
        self._ends.append(end)
        if code == ExitCode.DONE:
            self._is_done = True  # nothing is left to do, so the others need not start either
            worker.dismiss_actor()
            return
        if self._reaper is not None and code != ExitCode.INTERRUPTED:
            self._reaper.report_death(remote.worker, code, end.log_tail)
        if code < 0 or code in REPLACEABLE:
            self._restart_worker(worker, end.to_error().args[0])
        else:
            self._record_failure(worker, end.to_error())

    def _restart_worker(self, worker: RayWorker, reason: str) -> None:
        """Start a lost worker again, or one that its node stopped, unless all are to stop."""
        if self._is_stopping or self._is_done:
            worker.dismiss_actor()
        elif len(worker.starts) > MAX_RESTARTS and not self._made_progress():
            self._record_failure(
                worker, SearchError(f"a worker ended again and again on the cluster: {reason}")
            )
        else:
            worker.await_place()

    def _fail_placement(self, worker: RayWorker, reason: str) -> None:
        if self._is_stopping or self._is_done:
            worker.dismiss_actor()
            return
        self._record_failure(
            worker, SearchError(f"a worker could not be placed on the cluster: {reason}")
        )

    def _made_progress(self) -> bool:
        return self._reaper is not None and self._reaper.made_progress()

    def _record_failure(self, worker: RayWorker, failure: SearchError) -> None:
        worker.dismiss_actor()
        if self._is_stopping or self._failure is not None:
            return
        self._failure = failure
        self.raise_stop_level()

    def request_stop(self, level: StopLevel) -> None:
        """Ask every worker to stop; those without a place are dismissed."""
        self._is_stopping = True
        for worker in self._workers:
            if worker.is_over:
                continue
            if worker.ended is None:
                worker.dismiss_actor()
            else:
                worker.actor.request_stop.remote(level)

    def read_events(self) -> list[WorkerEvent]:
        """The events that the nodes have returned."""
        events = []
        for end in self._ends:
            events += end.events
        return events

    def describe_waiting(self) -> str:
        """How many workers wait for a place."""
        waiting = sum(not worker.is_over and worker.ended is None for worker in self._workers)
        if not waiting:
            return ""
        return f"{waiting} of {len(self._workers)} workers wait for a place in the cluster"

    def remove_logs(self) -> None:
        """Remove this run's new logs, as far as this machine has them."""
        for request in self._requests:
            for file in {request.log, events_path(request.log)} - self._earlier_files:
                file.unlink(missing_ok=True)

    def release_resources(self) -> None:
        """Leave the cluster; one that was started for this run ends."""
        for worker in self._workers:
            if not worker.is_over:
                worker.dismiss_actor()
        ray.shutdown()
