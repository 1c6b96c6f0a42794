"""A gate in a worker's training: it stops there until the test has done what it wants done meanwhile, however fast the machine is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import until

SITE = Path(__file__).with_name("gate")


@dataclass(frozen=True)
class Gate:
    """The first worker of a command that comes to a place stops there.

    Args:
        folder: where word is left of what happens.
        epoch: the training stops in this epoch of it,
        steps: when so many steps of the epoch are done.
        training: which training of the process that is, counted from 1.
        signal_opens: whether a SIGINT or SIGTERM to the worker opens the gate; else only `open` does.
    """

    folder: Path
    epoch: int
    steps: int = 0
    training: int = 1
    signal_opens: bool = True

    def __post_init__(self) -> None:
        self.folder.mkdir()

    @property
    def variables(self) -> dict[str, str]:
        """For the environment of the command."""
        path = os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])])
        place = (self.training, self.epoch, self.steps, int(self.signal_opens))
        return {
            "PYTHONPATH": path,
            "GATE": str(self.folder),
            "GATE_PLACE": ",".join(map(str, place)),
        }

    @property
    def reached(self) -> bool:
        """Whether a worker has stopped at the gate."""
        return any(self.folder.glob("stopped-*"))

    def wait(self) -> int:
        """Until a worker has stopped at the gate. Returns its process id."""
        until(lambda: self.reached, "a worker stops at the gate")
        (stopped,) = self.folder.glob("stopped-*")
        return int(stopped.name.removeprefix("stopped-"))

    def wait_for_signals(self, count: int) -> None:
        """Until the worker at the gate has received so many signals."""
        until(
            lambda: len(self._signals()) >= count,
            f"the worker at the gate has received {count} signals",
        )

    def open(self) -> None:
        """Let the training continue."""
        (self.folder / "open").touch()

    def _signals(self) -> list[str]:
        path = self.folder / "signals"
        return path.read_text().splitlines() if path.exists() else []
