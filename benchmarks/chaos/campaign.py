"""The size of a campaign and its study: many short trials, each determined by seed and number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from spaces.study import StudySpec

StoreKind = Literal["sqlite", "postgresql"]
Kind = Literal[
    "kill", "freeze", "thaw", "terminate", "cut one", "cut all", "unheard", "restart", "crash"
]

MIX: dict[StoreKind, dict[Kind, float]] = {
    "sqlite": {"kill": 0.4, "freeze": 0.1, "thaw": 0.2, "terminate": 0.3},
    "postgresql": {
        "kill": 0.22,
        "freeze": 0.05,
        "thaw": 0.08,
        "terminate": 0.15,
        "cut one": 0.2,
        "cut all": 0.08,
        "unheard": 0.17,
        "restart": 0.03,
        "crash": 0.02,
    },
}
"""The share of each kind of fault. A kill costs seconds of imports; a cut costs nothing."""

ABOUT: dict[Kind, str] = {
    "kill": "SIGKILL of a worker",
    "freeze": "SIGSTOP of a worker beyond its lease, then SIGCONT",
    "thaw": "SIGSTOP of a worker until another one has its trial, then SIGCONT at a chosen moment",
    "terminate": "SIGTERM of a worker",
    "cut one": "a connection ended by the server",
    "cut all": "all connections ended by the server",
    "unheard": "a connection cut after a commit, before its answer",
    "restart": "restart of the server, fast",
    "crash": "restart of the server, immediate: as after a crash",
}

Moment = Literal["taken over", "first epoch", "later"]

MOMENTS: dict[Moment, str] = {
    "taken over": "as soon as another worker has the trial",
    "first epoch": "as soon as that one has recorded an epoch of its own",
    "later": "up to two seconds after it has the trial",
}
"""When a worker that was frozen by `thaw` continues."""

CHECKPOINT_S = 2.0
"""Seconds between checkpoints, so that some kills come after one; the default outlasts a trial."""

PLANTED = 5
"""The number of the trial that kills every worker that takes it."""

STUDY: dict[str, Any] = {
    "name": "chaos",
    "about": "short, independent trials: each is determined by the seed and its number",
    "epochs": 12,
    "base": {
        "data": {"train_scenes": 24, "val_scenes": 8, "test_scenes": 8, "size": 32},
        "batch_size": 4,
        "loss": {"kind": "focal", "dice_weight": 0.3, "smooth": 5, "square_denominator": True},
    },
    "space": {
        "loss.gamma": {"kind": "float", "low": 0.0, "high": 5.0},
        "optimizer.lr_multiple": {"kind": "float", "low": 0.03, "high": 300.0, "log": True},
        "optimizer.grad_clip_norm": {"kind": "choice", "choices": [None, 1.0]},
    },
    "sampler": {"kind": "random"},
    "pruner": {"kind": "none"},
    # No trial has so many peers, so that no verdict depends on which trials ended first.
    "signals": {"sparing": {"least_peers": 1_000_000}},
}


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        gap_s: mean time between two faults.
        workers: how many run at a time; more than cores, for some are starting and some are frozen.
    """

    trials: int
    faults: int
    workers: int
    gap_s: float

    @property
    def limit_s(self) -> float:
        """When a campaign that does not end is given up."""
        return 300.0 + self.faults * 6.0 + self.trials * 6.0

    def study(self, seed: int) -> StudySpec:
        """The study."""
        return StudySpec.model_validate({**STUDY, "trials": self.trials, "seed": seed})


FULL: dict[StoreKind, Scale] = {
    "sqlite": Scale(trials=500, faults=200, workers=6, gap_s=0.8),
    "postgresql": Scale(trials=600, faults=500, workers=5, gap_s=0.6),
}
QUICK = Scale(trials=12, faults=10, workers=4, gap_s=2.0)
