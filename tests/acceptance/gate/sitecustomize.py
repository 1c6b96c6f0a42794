"""Python imports this by itself where its folder is on the path: in a worker, a training stops at a gate (see `tests/acceptance/gates.py`)."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

POLL_S = 0.01


class Gate:
    """Where the training of this process stops, once.

    Args:
        folder: has a file for each event that the test waits for, or makes.
        training: which one of this process, counted from 1.
        epoch: of that training.
        steps: so many optimizer steps of the epoch are done.
        signal_opens: whether a signal to this process opens the gate.
    """

    def __init__(
        self, folder: Path, training: int, epoch: int, steps: int, signal_opens: bool
    ) -> None:
        self.folder, self.place, self.signal_opens = folder, (training, epoch, steps), signal_opens
        self.open = False

    def passes(self, place: tuple[int, int, int]) -> None:
        """The training comes to a place: at the chosen one it waits, unless another process has waited there."""
        if place != self.place:
            return
        try:
            (self.folder / "reached").touch(exist_ok=False)
        except FileExistsError:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._note(number)
        (self.folder / f"stopped-{os.getpid()}").touch()
        while not self.open and not (self.folder / "open").exists():
            time.sleep(POLL_S)

    def _note(self, number: int) -> None:
        """Leave word of each signal, and then do what is done about it."""
        handler: Any = signal.getsignal(number)

        def noted(number: int, frame: FrameType | None) -> None:
            self.open = self.open or self.signal_opens
            with (self.folder / "signals").open("a") as file:
                file.write(f"{signal.Signals(number).name}\n")
            handler(number, frame)

        signal.signal(number, noted)


def install(gate: Gate) -> None:
    """Have every optimizer step of every training come to the gate."""
    from objectives.segmentation.train import Run

    base, numbers = Run.__mro__[1], count(1)
    accumulate = base.accumulate_gradients

    def gated(self: Any, group: Any, means: Any) -> Any:
        if not hasattr(self, "number"):
            self.number = next(numbers)
        gate.passes((self.number, self.epoch, means.steps))
        return accumulate(self, group, means)

    base.accumulate_gradients = gated


if "worker" in sys.orig_argv and "GATE" in os.environ:
    place = [int(part) for part in os.environ["GATE_PLACE"].split(",")]
    try:
        install(Gate(Path(os.environ["GATE"]), *place[:3], signal_opens=bool(place[3])))
    except Exception:  # Python would continue without a gate, and the test would wait for it
        traceback.print_exc()
        sys.exit(1)
