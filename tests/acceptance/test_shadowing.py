"""A user's own module of one of our packages' names, in the folder where the command runs, is never imported in place of ours."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from search.launch.slurm import JobArray, SlurmWorkers
from search.worker.options import WorkerOptions
from storage.location import StoreLocation
from tests.acceptance.studies import stored_trials, url_in, write_study
from tests.acceptance.terminal import Terminal

OWN = "raise SystemExit('the module of the working directory was imported')\n"


@pytest.mark.parametrize("name", ["search", "storage", "objectives"])
def test_local(terminal: Terminal, tmp_path: Path, name: str) -> None:
    """`search run` trains beside a `search.py`, `storage.py` or `objectives.py`."""
    (tmp_path / f"{name}.py").write_text(OWN)
    write_study(tmp_path, trials=1, epochs=1, presets=[])
    answer = terminal.run(
        "run", "--study", "tiny.yaml", "--workers", "1", "--devices", "cpu", folder=tmp_path
    )
    assert (answer.code, answer.err) == (0, "")
    assert [trial.state for trial in stored_trials(url_in(tmp_path))] == ["complete"]


def test_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of Slurm starts Python so that its working directory is not on the path."""
    batch = tmp_path / "batch.sh"
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        f'#!/bin/sh\nfor last; do :; done\ncp "$last" {shlex.quote(str(batch))}\necho Submitted batch job 7\n'
    )
    sbatch.chmod(0o755)
    for command in ("squeue", "sacct", "srun"):
        (sbatch.parent / command).symlink_to(sbatch)
    monkeypatch.setenv("PATH", f"{sbatch.parent}{os.pathsep}{os.environ['PATH']}")

    SlurmWorkers(
        JobArray(1, "cpu", 1, {}),
        WorkerOptions("demo"),
        StoreLocation.parse("postgresql://host/db"),
        tmp_path / "run",
    ).start_workers()

    (line,) = [line for line in batch.read_text().splitlines() if "submitit.core._submit" in line]
    words = shlex.split(line)
    assert "-P" in words[: words.index("-m")]
