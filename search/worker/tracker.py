"""Experiment tracking: one Weights & Biases run a trial. Off by default, and never allowed to harm a trial."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from spaces.config import TrialConfig
from spaces.records import EpochRecord

WandbMode = Literal["off", "offline", "online"]

FLUSH_S = 20.0
"""How long the end of a worker waits for what is still to be written."""


class Tracker(Protocol):
    """What a trial tells while it runs."""

    def start(self, number: int, config: TrialConfig, preset: str | None) -> None:
        """A trial begins, or is resumed."""

    def epoch(self, record: EpochRecord, class_names: tuple[str, ...]) -> None:
        """An epoch is over."""

    def finish(self, state: str, reason: str) -> None:
        """The trial ended, or was paused."""

    def close(self) -> None:
        """The worker ends."""


class NoTracker:
    """Tells nobody."""

    def start(self, number: int, config: TrialConfig, preset: str | None) -> None:
        """Nothing."""

    def epoch(self, record: EpochRecord, class_names: tuple[str, ...]) -> None:
        """Nothing."""

    def finish(self, state: str, reason: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class WandbTracker:
    """One run a trial, grouped by study, written from a thread of its own.

    The training only puts work into a queue. When wandb fails or hangs, the thread does, and the trial goes on.

    Args:
        study: the group of the runs, and part of their ids: a resumed trial goes on in its own run.
        mode: `offline` writes to `directory`, `online` also sends.
        directory: where wandb keeps its files.
    """

    def __init__(self, study: str, mode: WandbMode, directory: Path) -> None:
        self._study, self._mode, self._directory = study, mode, directory
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=10_000)
        self._run: Any = None
        self._broken = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="wandb")
        self._thread.start()

    def start(self, number: int, config: TrialConfig, preset: str | None) -> None:
        """Open the trial's run."""
        self._put(lambda: self._open(number, config.model_dump(mode="json") | {"preset": preset}))

    def epoch(self, record: EpochRecord, class_names: tuple[str, ...]) -> None:
        """Log every recorded figure of the epoch, and the class metrics by name."""
        self._put(lambda: self._run.log(figures(record, class_names), step=record.epoch))

    def finish(self, state: str, reason: str) -> None:
        """Write the verdict and close the run; a paused one will be resumed under the same id."""
        self._put(lambda: self._close(state, reason))

    def close(self) -> None:
        """Wait a while for what is still to be written."""
        try:
            self._jobs.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(FLUSH_S)

    def _put(self, job: Callable[[], None]) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._broken = True

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._broken:
                continue
            try:
                job()
            except Exception as problem:  # no fault of a tracker may reach the training
                self._broken = True
                print(
                    f"warning: wandb is off from here on: {type(problem).__name__}: {problem}",
                    flush=True,
                )

    def _open(self, number: int, config: dict[str, Any]) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self._close("left", "")  # a trial whose lease was lost has not said goodbye
        self._directory.mkdir(parents=True, exist_ok=True)
        mode: Literal["offline", "online"] = "online" if self._mode == "online" else "offline"
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "imbalance-search"),
            group=self._study,
            name=f"{self._study}-{number}",
            id=f"{self._study}-{number}",
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=str(self._directory),
            config=config,
            settings=wandb.Settings(init_timeout=30, console="off"),
        )

    def _close(self, state: str, reason: str) -> None:
        if self._run is not None:
            self._run.summary["verdict"], self._run.summary["reason"] = state, reason
            self._run.finish(exit_code=0)
            self._run = None


def figures(record: EpochRecord, class_names: tuple[str, ...]) -> dict[str, Any]:
    """A record as flat figures, class metrics by the class's name."""
    skipped = {
        "used",
        "test",
        "class_metric",
        "metrics",
        "grad_shares",
        "class_grad_shares",
        "last_steps",
    }
    flat = {
        key: value
        for key, value in record.as_dict().items()
        if key not in skipped and value is not None
    }
    flat |= {f"metrics/{name}": value for name, value in record.metrics.items()}
    flat |= {f"grad_share/{part}": share for part, share in record.grad_shares.items()}
    for kind, values in (
        ("class", record.class_metric),
        ("class_grad_share", record.class_grad_shares or [None] * len(class_names)),
    ):
        flat |= {
            f"{kind}/{name}": value
            for name, value in zip(class_names, values, strict=True)
            if value is not None
        }
    if record.test is not None:
        flat |= {"test/metric": record.test.metric}
    return flat


def make_tracker(mode: WandbMode, study: str, directory: Path) -> Tracker:
    """The tracker for a mode."""
    return NoTracker() if mode == "off" else WandbTracker(study, mode, directory)
