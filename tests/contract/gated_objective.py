"""An objective without a model that stops at gates, so that a test decides in which order two attempts at one trial act."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from objectives.contract import Checkpoints
from spaces.config import TrialConfig
from spaces.record_json import make_record
from tests.waiting import PATIENCE_S


@dataclass
class Gates:
    """Where one thread freezes, and at which moment of the other one it thaws.

    Attributes:
        freeze_at: the point at which the frozen worker stops, None once it has.
        thaw_at: the point at which the other worker lets it run to its end.
        frozen: set when the worker has stopped.
        thawed: set when it may continue.
        reached: the points that it came to.
        states_from: the first epoch after which the worker that freezes writes a state.
        worker: the thread that freezes.
    """

    freeze_at: str | None = None
    thaw_at: str | None = None
    states_from: int = 1
    frozen: threading.Event = field(default_factory=threading.Event)
    thawed: threading.Event = field(default_factory=threading.Event)
    reached: set[str] = field(default_factory=set)
    worker: threading.Thread | None = None

    def wants_state(self, epoch: int) -> bool:
        """Whether the current thread asks for a state after this epoch."""
        return threading.current_thread() is not self.worker or epoch >= self.states_from

    def reach(self, point: str) -> None:
        """The current thread comes to a point."""
        if threading.current_thread() is self.worker:
            self.reached.add(point)
            if point == self.freeze_at:
                self.freeze_at = None
                self.frozen.set()
                assert self.thawed.wait(PATIENCE_S)
        elif point == self.thaw_at:
            self.thaw()

    def thaw(self) -> None:
        """Let the frozen worker run to its end."""
        self.thaw_at = None
        self.thawed.set()
        if self.worker is not None:
            self.worker.join(PATIENCE_S)
            assert not self.worker.is_alive()


gates = Gates()
"""Those of the trial that runs now; a test sets them with `install`."""


def install(new: Gates) -> Gates:
    """Use these gates from now on."""
    global gates
    gates = new
    return new


class Config(TrialConfig):
    """What a trial is decided by."""

    rate: float = 0.1


def train(config: Config, checkpoints: Checkpoints) -> Iterator[dict[str, Any]]:
    """One record per epoch; the state is the number of the last one."""
    gates.reach("the training begins")
    path = checkpoints.latest()
    last = int(path.read_text()) if path is not None else 0
    if last:
        yield record(config, last)
    for epoch in range(last + 1, config.epochs + 1):
        gates.reach(f"epoch {epoch} begins")
        checkpoints.step()
        made = record(config, epoch)
        if gates.wants_state(epoch) and checkpoints.due(make_record(made), last=False):
            gates.reach(f"state {epoch} is due")
            checkpoints.write(lambda draft, epoch=epoch: save(draft, epoch))  # type: ignore[misc]
        gates.reach(f"epoch {epoch} is to be recorded")
        yield made


def save(draft: Any, epoch: int) -> None:
    """Write the state, and stop before it is put in place."""
    draft.write_text(str(epoch))
    gates.reach(f"state {epoch} is written")


def record(config: Config, epoch: int) -> dict[str, Any]:
    """What an epoch yields: it follows from the configuration and the epoch alone."""
    return {
        "epoch": epoch,
        "loss": 1.0 / epoch,
        "metric": config.rate + 0.01 * epoch,
        "used": {"rate": config.rate},
    }
