"""`search run` on texts: the real command, from a YAML to a best.yaml that trains again to the same score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.acceptance.gates import Gate
from tests.acceptance.studies import stored_trials, url_in, write_study
from tests.acceptance.terminal import Terminal

STUDY: dict[str, Any] = {
    "objective": "text_classification",
    "epochs": 3,
    "trials": 4,
    "seed": 4,
    "base": {
        "data": {"texts": 150},
        "model": {"hidden": 16, "layers": 1, "vocabulary": 300, "max_length": 24},
        "loss": {"kind": "focal"},
    },
    "space": {
        "model.max_length": {"kind": "choice", "choices": [8, 24]},
        "loss.gamma": {"kind": "float", "low": 0.0, "high": 4.0},
        "loss.class_alpha.markup": {"kind": "float", "low": 0.5, "high": 20.0, "log": True},
    },
    "presets": ["text", "untuned"],
    "sampler": {"kind": "random"},
    "pruner": {"kind": "none"},
}


def test_search(terminal: Terminal, tmp_path: Path) -> None:
    """A search that is interrupted and resumed: each trial has the tokens that it asked for, and the best one trains again to its very score."""
    path = str(write_study(tmp_path, **STUDY))
    gate = Gate(tmp_path / "gate", epoch=2)
    job = terminal.start(
        "run", "--study", path, "--workers", "1", folder=tmp_path, **gate.variables
    )
    gate.wait()
    job.interrupt()
    assert job.wait().code == 130

    answer = terminal.run("run", "--study", path, "--workers", "1", folder=tmp_path)

    assert (answer.code, answer.err) == (0, "")
    trials = stored_trials(url_in(tmp_path))
    assert [trial.state for trial in trials] == ["complete"] * 4
    lengths = {trial.number: (trial.config or {})["model"]["max_length"] for trial in trials}
    assert set(lengths.values()) == {8, 24}
    assert {trial.number: (trial.used or {})["model.max_length"] for trial in trials} == lengths
    again = terminal.run("train", "best.yaml", folder=tmp_path)
    assert again.code == 0, again.text
