"""What a launcher passes to a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search.worker.tracker import WandbMode


@dataclass(frozen=True)
class WorkerOptions:
    """The options of `search worker`, apart from the store's address.

    The address travels in the environment, because a list of processes must not show a password.

    Attributes:
        study: name of the study in the store.
        device: `cpu` or `cuda:N`.
        threads: CPU threads.
        wandb: whether Weights & Biases logs the trials.
        timeout_s: the worker finishes its epoch and stops after this time.
        parent: process id of the supervisor; the worker stops when it is gone.
        events: file for the worker's events, which its supervisor reads.
    """

    study: str
    device: str = "cpu"
    threads: int = 1
    wandb: WandbMode = "off"
    timeout_s: float | None = None
    parent: int | None = None
    events: Path | None = None

    def to_arguments(self) -> list[str]:
        """The arguments of `search worker`, which its command parses (`search/cli/run.py`)."""
        timeout = None if self.timeout_s is None else f"{self.timeout_s:.15g}s"
        optional = {"--timeout": timeout, "--parent": self.parent, "--events": self.events}
        given = {
            "--study": self.study,
            "--device": self.device,
            "--threads": self.threads,
            "--wandb": self.wandb,
            **{name: value for name, value in optional.items() if value is not None},
        }
        return [f"{name}={value}" for name, value in given.items()]
