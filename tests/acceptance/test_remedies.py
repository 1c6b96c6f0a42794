"""A study whose sampler tries remedies of its own trials, with the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.acceptance.studies import TINY, stored_trials, url_in, write_study
from tests.acceptance.terminal import Terminal

RUN = ("run", "--study", "tiny.yaml", "--devices", "cpu", "--workers", "1")
HOT: dict[str, Any] = {
    "trials": 5,
    "epochs": 5,
    "presets": None,
    "sampler": {"kind": "random", "remedies": 2},
    "space": {
        **TINY["space"],
        "optimizer.lr_multiple": {"kind": "choice", "choices": [300, 0.5, 1000]},
    },
    "seed": 1,
}
"""Two of the three rates diverge at once, and the third one is their remedy."""


def run(terminal: Terminal, folder: Path) -> tuple[list[tuple[str | None, Any, str]], str]:
    """The trials of the study with one worker, and what was printed."""
    folder.mkdir()
    write_study(folder, **HOT)
    answer = terminal.run(*RUN, folder=folder)
    assert answer.code == 0, answer.text
    trials = stored_trials(url_in(folder))
    return [(trial.preset, trial.config, trial.state) for trial in trials], answer.out


class TestSamplerRemedies:
    def test_tried(self, terminal: Terminal, tmp_path: Path) -> None:
        """Remedies are tried within the budget, measured and shown; a second run has the same trials."""
        trials, out = run(terminal, tmp_path / "first")
        again, _ = run(terminal, tmp_path / "second")

        assert trials == again
        assert len(trials) == 5
        first, second = (label for label, _, _ in trials if label)
        number = int(first.removeprefix("remedy of "))
        (_, origin, state), (_, remedied, _) = trials[number], trials[number + 1]
        assert state == "diverged"
        assert remedied["optimizer"]["lr_multiple"] == 0.5
        assert remedied["loss"] == origin["loss"]
        assert second != first
        assert f"trial {number + 1} started ({first})" in out
        assert f"trial {number + 1} tries the remedy of {number} (0.5 × the base rate" in out
        shown = terminal.run("show", "--study", "tiny", "--json", folder=tmp_path / "first")
        report = json.loads(shown.out)
        assert sum(record["tried"] for record in report["remedies"]) == 2
        assert report["remedy_trials"][0]["verdict"] == "helped"
