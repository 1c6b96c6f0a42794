"""A hyperparameter that is searched but never reaches the training is an error, and no silent no-op."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.studies import BASE, TINY, stored_trials, url_in, write_study
from tests.acceptance.terminal import Terminal


def test_smooth_without_dice(terminal: Terminal, tmp_path: Path) -> None:
    """A study that searches the smoothing of a Dice loss that takes no part fails at its first epoch, and names the path."""
    smooth = {"loss.smooth": {"kind": "float", "low": 1.0, "high": 10.0}}
    write_study(tmp_path, presets=[], base=BASE | {"loss": {"kind": "focal", "dice_weight": 0.0}}, space=TINY["space"] | smooth)
    answer = terminal.run("run", "--study", "tiny.yaml", "--workers", "1", "--devices", "cpu", folder=tmp_path)
    (trial,) = stored_trials(url_in(tmp_path))

    assert answer.code == 2
    assert "Traceback" not in answer.text
    assert answer.err.count("error: ") == 1
    assert "error: the sampled loss.smooth = " in answer.err
    assert "give the dimension a `when`" in answer.err
    assert trial.state == "failed"
    assert trial.reason.startswith("UnusedHyperparameterError: the sampled loss.smooth")
    assert not (tmp_path / "best.yaml").exists()
