"""State of a training as a file, read with `weights_only`: tensors and plain data, no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

State = dict[str, Any]


def save_state(state: State, path: Path) -> None:
    """Write a state to a file; the caller moves the file to its final place.

    Raises:
        OSError: when the disk is full or cannot be written.
    """
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as problem:
        # torch tries to close its archive after an OSError and complains of that instead.
        if isinstance(problem.__context__, OSError):
            raise problem.__context__ from None
        raise


def load_state(path: Path) -> State:
    """Read a state from a file, onto the CPU."""
    state: State = torch.load(path, map_location="cpu", weights_only=True)
    return state
