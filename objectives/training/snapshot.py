"""Snapshot of a training, after an epoch or within one: save it, restore it to the last bit."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from objectives.losses import Criterion
from objectives.training.best_epoch import BestEpoch
from objectives.training.state_file import State, load_state, save_state
from objectives.training.step_guard import StepGuard
from objectives.training.steps import Means
from objectives.training.validation import plain_loss
from objectives.training.weight_averaging import Averager
from spaces.records import EpochRecord


@dataclass(frozen=True)
class RandomState:
    """States of torch's random number generators.

    Attributes:
        cpu: of the generator on the CPU.
        cuda: of the generator on the training's CUDA device; None on the CPU.
    """

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def capture(cls, device: torch.device) -> RandomState:
        """Read the current states."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), cuda)

    def set_generators(self, device: torch.device) -> None:
        """Set the generators to these states."""
        torch.set_rng_state(self.cpu)
        if device.type == "cuda" and self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, device)


@dataclass
class EpochProgress:
    """How much of the current epoch is done.

    Attributes:
        means: sums over the steps so far.
        started: when the epoch would have started without interruptions, on `time.perf_counter`'s
            clock.
        averaged: whether the running mean of the weights includes this epoch.
    """

    means: Means
    started: float
    averaged: bool = False

    @classmethod
    def start(cls, device: torch.device) -> EpochProgress:
        """Start an epoch now."""
        return cls(Means.zero(device), time.perf_counter())

    @classmethod
    def resume(cls, state: State, device: torch.device) -> EpochProgress:
        """Continue an epoch within which a snapshot was taken."""
        started = time.perf_counter() - state["seconds"]
        return cls(Means.from_state(state["means"], device), started, state["averaged"])

    @property
    def seconds(self) -> float:
        """Seconds spent on the epoch so far."""
        return time.perf_counter() - self.started

    def state(self) -> State:
        """Return what a checkpoint stores."""
        return {"means": self.means.state(), "seconds": self.seconds, "averaged": self.averaged}


class ResumableTraining(Protocol):
    """What a snapshot reads from a training and restores.

    Attributes:
        random_state: of the moment at which the next epoch starts.
        last_record: of the last complete epoch; None before the first one.
        interrupted: what the restored snapshot has of the epoch within which it was taken.
        finished: whether the training ended before its last epoch.
    """

    model: nn.Module
    device: torch.device
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    averager: Averager
    guard: StepGuard
    best: BestEpoch
    random_state: RandomState
    epoch: int
    last_record: EpochRecord | None
    interrupted: State | None
    finished: bool


@dataclass(frozen=True)
class TrainingSnapshot:
    """Everything that the rest of a training depends on, and the record of its last complete epoch.

    Tensors are not copied: save a snapshot before the training changes them, or give it copies with
    `with_weights` or `with_copied_average`.
    """

    state: State

    @classmethod
    def capture(
        cls, training: ResumableTraining, progress: EpochProgress | None = None
    ) -> TrainingSnapshot:
        """Take a snapshot.

        Args:
            training: which training.
            progress: of the current epoch; None between two epochs.
        """
        record = training.last_record
        random_state = RandomState.capture(training.device)
        state = {
            "record": None if record is None else record.as_dict(),
            "midway": None,
            "model": training.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "scaler": training.scaler.state_dict(),
            "criterion": training.criterion.state_dict(),
            "averaged": training.averager.state(),
            "guard": training.guard.state(),
            "torch_rng": random_state.cpu,
            "cuda_rng": random_state.cuda,
            **training.best.state(),
            "finished": training.finished,
        }
        if progress is not None:
            state["midway"] = progress.state() | {
                "guard": training.guard.epoch_state(),
                # A copy: checking the targets resets the range.
                "labels": plain_loss(training.criterion).label_range.clone(),
            }
        return cls(state)

    @classmethod
    def load(cls, path: Path) -> TrainingSnapshot:
        """Read a snapshot from a file, onto the CPU."""
        return cls(load_state(path))

    def save(self, path: Path) -> None:
        """Write the snapshot to a file.

        Raises:
            OSError: when the disk is full or cannot be written.
        """
        save_state(self.state, path)

    def restore(self, training: ResumableTraining) -> None:
        """Put a training that was just built into the state of the snapshot."""
        state = self.state
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        # Checkpoints of an earlier version lack the next three.
        training.criterion.load_state_dict(state.get("criterion", {}))
        training.averager.restore(state.get("averaged"))
        training.guard.restore(state.get("guard", {"tail": [], "odd_inputs": False}))
        if state["scaler"] and training.scaler.is_enabled():
            training.scaler.load_state_dict(state["scaler"])
        training.random_state = RandomState(state["torch_rng"], state["cuda_rng"])
        training.best.restore(state)
        training.finished = state["finished"]
        record = state["record"]
        training.last_record = None if record is None else EpochRecord.from_dict(record)
        training.epoch = 0 if training.last_record is None else training.last_record.epoch
        training.interrupted = state.get("midway")
        if training.interrupted is not None:
            labels = training.interrupted["labels"]
            plain_loss(training.criterion).label_range.copy_(labels)

    def with_copied_average(self) -> TrainingSnapshot:
        """Return the snapshot with a copy of the weights' running mean, which may then change."""
        average = copy.deepcopy(self.state["averaged"])
        return TrainingSnapshot(self.state | {"averaged": average})

    def with_weights(self, copied: State, *, averaged: bool) -> TrainingSnapshot:
        """Return the snapshot with copies of the weights, which may then change.

        Args:
            copied: name → copy of every tensor of the model.
            averaged: whether they are the running mean and not the trained model's own.
        """
        if not averaged:
            return TrainingSnapshot(self.state | {"model": self.state["model"] | copied})
        # torch's averaged model has the model as its submodule `module`.
        copies = {f"module.{name}": tensor for name, tensor in copied.items()}
        return TrainingSnapshot(self.state | {"averaged": self.state["averaged"] | copies})
