"""The state of a training as a file. Read with `weights_only`: a checkpoint can hold tensors and plain data, no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

State = dict[str, Any]


def save_state(state: State, path: Path) -> None:
    """Write a state; the caller puts the file in its place."""
    with path.open("wb") as file:  # given a path, torch hides a full disk behind a RuntimeError
        torch.save(state, file)


def load_state(path: Path) -> State:
    """Read a state back, onto the CPU."""
    state: State = torch.load(path, map_location="cpu", weights_only=True)
    return state
