"""An objective without a model that stops at gates, so that a test orders two attempts at one trial."""

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
    """Where one thread freezes, and at which moment of the other one it continues.

    Attributes:
        freeze_at: point at which the worker freezes; None once it has.
        thaw_at: point at which the other worker lets it continue to its end.
        frozen: set when the worker has frozen.
        thawed: set when it may continue.
        reached: points that it has reached.
        states_from: first epoch after which the freezing worker writes a state.
        worker: thread that freezes.
    """

    freeze_at: str | None = None
    thaw_at: str | None = None
    states_from: int = 1
    frozen: threading.Event = field(default_factory=threading.Event)
    thawed: threading.Event = field(default_factory=threading.Event)
    reached: set[str] = field(default_factory=set)
    worker: threading.Thread | None = None

    def wants_state(self, epoch: int) -> bool:
        """Whether the current thread writes a state after this epoch."""
        return threading.current_thread() is not self.worker or epoch >= self.states_from

    def reach(self, point: str) -> None:
        """The current thread reaches a point."""
        if threading.current_thread() is self.worker:
            self.reached.add(point)
            if point == self.freeze_at:
                self.freeze_at = None
                self.frozen.set()
                assert self.thawed.wait(PATIENCE_S)
        elif point == self.thaw_at:
            self.thaw()

    def thaw(self) -> None:
        """Let the frozen worker continue to its end."""
        self.thaw_at = None
        self.thawed.set()
        if self.worker is not None:
            self.worker.join(PATIENCE_S)
            assert not self.worker.is_alive()


gates = Gates()
"""The gates of the running trial; a test sets them with `install`."""


def install(new: Gates) -> Gates:
    """Use these gates from now on."""
    global gates
    gates = new
    return new


class Config(TrialConfig):
    """Configuration of a trial."""

    rate: float = 0.1


def train(config: Config, checkpoints: Checkpoints) -> Iterator[dict[str, Any]]:
    """Yield one record per epoch; the state is the number of the last one."""
    gates.reach("the training begins")
    path = checkpoints.latest()
    last = int(path.read_text()) if path is not None else 0
    if last:
        yield make_epoch(config, last)
    for epoch in range(last + 1, config.epochs + 1):
        gates.reach(f"epoch {epoch} begins")
        checkpoints.step()
        made = make_epoch(config, epoch)
        if gates.wants_state(epoch) and checkpoints.due(make_record(made), last=False):
            gates.reach(f"state {epoch} is due")
            checkpoints.write(lambda draft, epoch=epoch: save_state(draft, epoch))  # type: ignore[misc]
        gates.reach(f"epoch {epoch} is to be recorded")
        yield made


def save_state(draft: Any, epoch: int) -> None:
    """Write the state, and reach a point before it is renamed."""
    draft.write_text(str(epoch))
    gates.reach(f"state {epoch} is written")


def make_epoch(config: Config, epoch: int) -> dict[str, Any]:
    """The record of an epoch, which depends on the configuration and the epoch alone."""
    return {
        "epoch": epoch,
        "loss": 1.0 / epoch,
        "metric": config.rate + 0.01 * epoch,
        "used": {"rate": config.rate},
    }
