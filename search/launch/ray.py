"""Workers on a Ray cluster: one actor a place, each with one `search worker` as its child.

Ray finds the place and makes the actor anew elsewhere when its node dies. What the worker does it tells the store alone,
so that a lost node costs the epochs at hand and nothing else.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from search.launch.devices import Slot
from search.launch.local import STORE_VARIABLE, WorkerProcess, thread_variables, worker_command
from search.launch.pool import WITHOUT_MERCY, Team, failed
from search.worker.identity import worker_name
from spaces.errors import SearchError, WorkerRestartRequired
from storage.files.study_files import ROOT_VARIABLE
from storage.location import StoreLocation

INTERRUPTED = 130
TOLD_LINES = 100
"""Of the end of a worker's log, which come back from its node; its warnings come all."""

RESTARTS, RESTARTS_S = 5, 600.0
"""So many new starts of one worker in so many seconds, in which the study did not get on, are not the nodes' fault any more."""

OURS = ("SEARCH_", "WANDB_")
"""Variables that a node takes over from the supervisor; all others are its own."""


@dataclass(frozen=True)
class Share:
    """What one worker needs of a node."""

    slot: Slot
    gpus: float


@dataclass(frozen=True)
class Order:
    """What a node is told to start. It goes straight to the actor, for Ray shows variables of the environment to whoever asks."""

    slot: Slot
    arguments: tuple[str, ...]
    variables: dict[str, str] = field(repr=False)
    log: Path = Path()
    folder: Path = Path()


@dataclass(frozen=True)
class End:
    """How a worker ended, and what it told."""

    code: int
    told: list[str]
    host: str
    worker: str
    log: Path

    @property
    def place(self) -> str:
        """Where its log lies."""
        return f"{self.host}:{self.log}"


class Place:
    """Keeps one worker on a node. This is what runs in an actor; its methods are called from several threads."""

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None
        self._asked = 0

    def host(self) -> str:
        """Answers as soon as there is a place."""
        return socket.gethostname()

    def run(self, order: Order) -> End:
        """Run the worker to its end; one that still runs, because only the word from it was lost, is not joined by a second."""
        if self._worker is None or self._worker.exit_code is not None:
            self._start(order)
        assert self._worker is not None
        assert self._worker.process is not None
        code = self._worker.process.wait()
        told = self._worker.told()
        warnings = [line for line in told[:-TOLD_LINES] if line.startswith("warning: ")]
        return End(
            code,
            [*warnings, *told[-TOLD_LINES:]],
            socket.gethostname(),
            worker_name(self._worker.process.pid),
            self._worker.log,
        )

    def _start(self, order: Order) -> None:
        own = [
            "--device",
            order.slot.device,
            "--threads",
            str(order.slot.threads),
            "--parent",
            str(os.getpid()),
        ]
        self._worker = WorkerProcess(
            order.slot,
            worker_command([*order.arguments, *own]),
            os.environ | order.variables,
            _writable(order.log),
            order.folder if order.folder.is_dir() else None,
        )
        self._worker.start()
        if self._asked:  # before there was anything to pass it on to
            self._worker.send(signal.SIGINT)

    def ask(self, times: int) -> None:
        """Pass a request to stop on."""
        self._asked = times
        if self._worker is not None:
            self._worker.send(signal.SIGKILL if times >= WITHOUT_MERCY else signal.SIGINT)


def _writable(log: Path) -> Path:
    """The log's path, or one in the node's own temporary folder where the study's folder cannot be made."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="search-")) / log.name
    return log


@dataclass
class RayWorker:
    """One actor, and what is awaited of it: first a place, then the worker's end."""

    order: Order
    actor: Any
    placed: Any
    ended: Any = None
    over: bool = False
    starts: list[float] = field(default_factory=list)

    def place(self) -> None:
        """Wait for a place."""
        self.ended = None
        self.placed = self.actor.host.remote()

    def begin(self) -> None:
        """Run the worker in its place."""
        self.starts = [start for start in self.starts if start > time.monotonic() - RESTARTS_S] + [
            time.monotonic()
        ]
        self.ended = self.actor.run.remote(self.order)

    def dismiss(self) -> None:
        """Give its place back."""
        self.over = True
        ray.kill(self.actor, no_restart=True)


class RayWorkers(Team):
    """The workers of one `search run` on a cluster that this process has joined.

    Args:
        shares: one a worker.
        arguments: what every `search worker` is given besides its place.
        location: of the store.
        logs: folder for one log a worker, on its node; checkpoints lie there, too, and are found again where it is shared.
        timeout_s: after so long the workers finish their epochs and stop.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        arguments: Sequence[str],
        location: StoreLocation,
        logs: Path,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(timeout_s)
        self._shares, self._logs = shares, logs
        own = {name: value for name, value in os.environ.items() if name.startswith(OURS)}
        own |= {
            STORE_VARIABLE: location.url,
            ROOT_VARIABLE: str(logs.parent),
            "PYTHONUNBUFFERED": "1",
        }
        self._orders = [
            Order(
                share.slot,
                tuple(arguments),
                own | thread_variables(share.slot.threads),
                logs / f"worker-{index}.log",
                Path.cwd(),
            )
            for index, share in enumerate(shares)
        ]
        self._workers: list[RayWorker] = []
        self._ends: list[End] = []
        self._asked = self._done = False
        self._earlier = set(logs.glob("*.log"))

    def start(self) -> None:
        """Ask the cluster for a place a worker."""
        for share, order in zip(self._shares, self._orders, strict=True):
            made = ray.remote(Place).options(
                num_cpus=share.slot.threads, num_gpus=share.gpus, max_restarts=-1, max_concurrency=4
            )
            worker = RayWorker(order, made.remote(), None)
            worker.place()
            self._workers.append(worker)

    def look(self) -> bool:
        """Begin where there is a place, begin anew where a node or a worker died, and say whether all have ended."""
        for worker in self._workers:
            if not worker.over:
                self._look_at(worker)
        return all(worker.over for worker in self._workers)

    def gone(self) -> bool:
        """Whether all have ended; once a stop is asked for, none begins."""
        return self.look() if self._asked else all(worker.over for worker in self._workers)

    def _look_at(self, worker: RayWorker) -> None:
        awaited = worker.placed if worker.ended is None else worker.ended
        if self._done and worker.ended is None:
            worker.dismiss()  # the work was done before there was a place for it
            return
        if not ray.wait([awaited], timeout=0)[0]:
            return
        try:
            told = ray.get(awaited)
        except (
            ActorUnavailableError
        ) as loss:  # Ray is finding it another place, and does not say when
            worker.place() if worker.ended is None else self._again(worker, None, str(loss))
        except RayActorError as loss:
            self._again(worker, loss if worker.ended is None else None, str(loss))
        except RayError as problem:
            self._fail(worker, SearchError(f"a worker could not be started on its node: {problem}"))
        else:
            self._ended(worker, told) if worker.ended is not None else worker.begin()

    def _ended(self, worker: RayWorker, end: End) -> None:
        self._ends.append(end)
        if (
            end.code == 0
        ):  # there is nothing left to do, and so nothing for the others to begin with
            self._done = True
            worker.dismiss()
            return
        if self.care is not None and end.code != INTERRUPTED:
            self.care.died(end.worker, end.code, end.told)
        if end.code < 0 or end.code in (WorkerRestartRequired.exit_code, INTERRUPTED):
            self._again(worker, None, failed(end.code, end.told, end.place).args[0])
        else:
            self._fail(worker, failed(end.code, end.told, end.place))

    def _again(self, worker: RayWorker, final: RayActorError | None, why: str) -> None:
        """A worker that was lost, or told by its node to stop, begins anew unless everything is to stop."""
        if self._asked or self._done:
            worker.dismiss()
        elif final is not None:
            self._fail(worker, SearchError(f"a worker could not be placed on the cluster: {why}"))
        elif len(worker.starts) > RESTARTS and not (self.care is not None and self.care.got_on()):
            self._fail(worker, SearchError(f"a worker ended again and again on the cluster: {why}"))
        else:
            worker.place()

    def _fail(self, worker: RayWorker, failure: SearchError) -> None:
        worker.dismiss()
        if self._asked or self._failure is not None:
            return
        self._failure = failure
        self.stop()

    def ask(self, times: int) -> None:
        """Pass a request to stop on to every worker; who waits for a place does so no more."""
        self._asked = True
        for worker in self._workers:
            if worker.over:
                continue
            if worker.ended is None:
                worker.dismiss()
            else:
                worker.actor.ask.remote(times)

    def told(self) -> Iterator[str]:
        """The lines that came back from the nodes."""
        return (line for end in self._ends for line in end.told)

    def waiting(self) -> str:
        """Who still waits for a place."""
        waiting = sum(not worker.over and worker.ended is None for worker in self._workers)
        return (
            f"{waiting} of {len(self._workers)} workers wait for a place in the cluster"
            if waiting
            else ""
        )

    def forget_logs(self) -> None:
        """Remove this run's new logs, as far as this machine sees them."""
        for log in {order.log for order in self._orders} - self._earlier:
            log.unlink(missing_ok=True)

    def release(self) -> None:
        """Leave the cluster; one that was started for this run ends."""
        for worker in self._workers:
            if not worker.over:
                worker.dismiss()
        ray.shutdown()
