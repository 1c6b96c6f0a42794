"""A hyperparameter that is searched but never reaches the training is an error, and no silent no-op."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.studies import TINY, stored_trials, url_in, write_study
from tests.acceptance.terminal import Terminal


def test_after_the_end(terminal: Terminal, tmp_path: Path) -> None:
    """A study that searches where to begin averaging weights, only after the last epoch, fails at its first one, and names the path."""
    late = {"schedule.swa_from_epoch": {"kind": "int", "low": 6, "high": 9}}
    write_study(tmp_path, presets=[], epochs=4, space=TINY["space"] | late)
    answer = terminal.run("run", "--study", "tiny.yaml", "--workers", "1", "--devices", "cpu", folder=tmp_path)
    (trial,) = stored_trials(url_in(tmp_path))

    assert answer.code == 2
    assert "Traceback" not in answer.text
    assert answer.err.count("error: ") == 1
    assert "error: the sampled schedule.swa_from_epoch = " in answer.err
    assert "give the dimension a `when`" in answer.err
    assert trial.state == "failed"
    assert trial.reason.startswith("UnusedHyperparameterError: the sampled schedule.swa_from_epoch")
    assert not (tmp_path / "best.yaml").exists()
