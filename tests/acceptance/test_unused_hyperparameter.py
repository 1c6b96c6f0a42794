"""A hyperparameter that is searched but never reaches the training is an error, and no silent no-op."""

from __future__ import annotations

import re
from pathlib import Path

from tests.acceptance.studies import BASE, TINY, stored_trials, url_in, write_study
from tests.acceptance.terminal import Terminal

RATE = "optimizer.lr_multiple"


def test_unused(terminal: Terminal, tmp_path: Path) -> None:
    """A study that searches class weights under a loss that takes none fails at its first trial, and names the path."""
    idle = {"weights.method": {"kind": "choice", "choices": ["sqrt_inv_freq", "inverse_freq"]}}
    write_study(
        tmp_path,
        presets=[],
        base=BASE | {"loss": {"kind": "soft_ce"}},
        space={RATE: TINY["space"][RATE]} | idle,
    )
    answer = terminal.run(
        "run", "--study", "tiny.yaml", "--workers", "1", "--devices", "cpu", folder=tmp_path
    )
    (trial,) = stored_trials(url_in(tmp_path))

    assert answer.code == 2
    assert "Traceback" not in answer.text
    assert answer.err.count("error: ") == 1
    assert re.search(
        r"error: weights\.method was sampled as \w+_freq, but the training used uniform", answer.err
    )
    assert "give the dimension a `when`" in answer.err
    assert trial.state == "failed"
    assert trial.reason.startswith("UnusedHyperparameterError: weights.method was sampled as")
    assert not (tmp_path / "best.yaml").exists()
