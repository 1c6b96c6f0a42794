"""Experiment tracking: logs each trial as a Weights & Biases run; it never harms a trial."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from spaces.config import TrialConfig
from spaces.records import EpochRecord

logger = logging.getLogger(__name__)

WandbMode = Literal["off", "offline", "online"]

FLUSH_S = 20.0
"""How long a worker waits at its end for pending writes."""


class Tracker(Protocol):
    """Receives the progress of the trials of a worker."""

    def start_trial(self, number: int, config: TrialConfig, preset: str | None) -> None:
        """A trial starts, or is resumed."""

    def log_epoch(self, record: EpochRecord, class_names: tuple[str, ...]) -> None:
        """An epoch is over."""

    def finish_trial(self, state: str, reason: str) -> None:
        """The trial ended, or was paused."""

    def close(self) -> None:
        """The worker ends."""


class NoTracker:
    """Tracks nothing."""

    def start_trial(self, number: int, config: TrialConfig, preset: str | None) -> None:
        """Do nothing."""

    def log_epoch(self, record: EpochRecord, class_names: tuple[str, ...]) -> None:
        """Do nothing."""

    def finish_trial(self, state: str, reason: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class WandbTracker:
    """Logs each trial as a run, grouped by study, from a thread.

    The training only adds to a queue. When wandb fails or hangs, only the thread does, and the
    trial continues.

    Args:
        study: the group of the runs, and part of their ids, so that a resumed trial continues its
            run.
        mode: `offline` writes to `directory`, `online` also uploads.
        directory: folder for wandb's files.
    """

    def __init__(self, study: str, mode: WandbMode, directory: Path) -> None:
        self._study = study
        self._mode = mode
        self._directory = directory
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=10_000)
        self._run: Any = None
        self._is_broken = False
        self._thread = threading.Thread(target=self._run_jobs, daemon=True, name="wandb")
        self._thread.start()

    def start_trial(self, number: int, config: TrialConfig, preset: str | None) -> None:
        """Open the trial's run."""
        self._enqueue_job(
            lambda: self._open_run(number, config.model_dump(mode="json") | {"preset": preset})
        )

    def log_epoch(self, record: EpochRecord, class_names: tuple[str, ...]) -> None:
        """Log every figure of the epoch, and the class metrics by name."""
        self._enqueue_job(
            lambda: self._run.log(flatten_record(record, class_names), step=record.epoch)
        )

    def finish_trial(self, state: str, reason: str) -> None:
        """Write the verdict and close the run; a paused trial resumes it under the same id."""
        self._enqueue_job(lambda: self._close_run(state, reason))

    def close(self) -> None:
        """Wait a while for pending writes."""
        try:
            self._jobs.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(FLUSH_S)

    def _enqueue_job(self, job: Callable[[], None]) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._is_broken = True

    def _run_jobs(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._is_broken:
                continue
            try:
                job()
            except Exception as problem:  # an error of wandb must not reach the training
                self._is_broken = True
                kind = type(problem).__name__
                logger.warning("wandb is off from here on: %s: %s", kind, problem)

    def _open_run(self, number: int, config: dict[str, Any]) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self._close_run("left", "")  # the run of a trial whose lease was lost is still open
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

    def _close_run(self, state: str, reason: str) -> None:
        if self._run is not None:
            self._run.summary["verdict"] = state
            self._run.summary["reason"] = reason
            self._run.finish(exit_code=0)
            self._run = None


def flatten_record(record: EpochRecord, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Flatten a record to one value per name, with class metrics by the name of the class."""
    skipped = {
        "used",
        "test",
        "class_metric",
        "metrics",
        "grad_shares",
        "class_grad_shares",
        "last_steps",
        "inputs",
        "val_inputs",
        "target_shares",
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
    """Make the tracker for a mode."""
    return NoTracker() if mode == "off" else WandbTracker(study, mode, directory)
