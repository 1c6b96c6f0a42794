"""A file in the place of a checkpoint that would run a command when it is read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from objectives.training.state_file import load_state, save_state


class Planted:
    """What a careless reader of pickles turns into a command."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


class TestPlanted:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_not_run(self, tmp_path: Path, zipped: bool) -> None:
        """It is refused, and does not run; the same file without it is read."""
        path, trace = tmp_path / "trial.ckpt", tmp_path / "it-ran"
        torch.save({"model": Planted(trace)}, path, _use_new_zipfile_serialization=zipped)

        with pytest.raises(pickle.UnpicklingError):
            load_state(path)
        assert not trace.exists()

        save_state({"model": torch.ones(2)}, path)
        assert load_state(path)["model"].tolist() == [1.0, 1.0]
