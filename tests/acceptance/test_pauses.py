"""A search that pauses trials and promotes them: exact budgets, equal bits, one trial per number."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.acceptance.studies import (
    QUIET,
    repeatable,
    stored_records,
    stored_trials,
    url_in,
    write_study,
)
from tests.acceptance.terminal import Terminal

EPOCHS = 8
BUDGET = 34

STUDY = {
    "epochs": EPOCHS,
    "trials": 8,
    "presets": ["recommended"],
    "signals": QUIET,
    "pruner": {"kind": "none"},
    "sampler": {"kind": "auto", "startup_trials": 4, "first_rung": 0.25},
}
RUN = ("run", "--study", "tiny.yaml", "--devices", "cpu", "--workers", "1")


class TestPauses:
    def test_budget_and_bits(self, tmp_path: Path, terminal: Terminal) -> None:
        """The budget in epochs is used to the last one, twice in the same way.

        A trial that was paused and promoted has the same epochs, to the last bit, as one that was
        trained without a pause.
        """
        folders = []
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir()
            write_study(folder, **STUDY)
            answer = terminal.run(*RUN, "--epochs-budget", str(BUDGET), folder=folder)
            assert answer.code == 0, answer.err
            folders.append(folder)
        first, second = (stored_records(url_in(folder)) for folder in folders)
        assert sum(len(records) for records in first.values()) == BUDGET
        assert repeatable(first) == repeatable(second)

        trials = stored_trials(url_in(folders[0]))
        paused = [trial for trial in trials if trial.state == "paused"]
        promoted = [trial for trial in trials if trial.state == "complete" and trial.attempt > 1]
        assert paused
        assert promoted
        assert all(trial.awaits_promotion for trial in paused)
        assert all(trial.reason.startswith("after epoch") for trial in paused if trial.reason)
        assert "epoch budget exhausted" in answer.out

        number = promoted[0].number or 0
        exported = terminal.run(
            "export", "--study", "tiny", "--trial", str(number), folder=folders[0]
        )
        assert exported.code == 0, exported.err
        again = terminal.run("train", "best.yaml", folder=folders[0])
        assert "equal to the last bit" in again.out

        shown = terminal.run("show", "--study", "tiny", folder=folders[0])
        assert f"{BUDGET} of {BUDGET} epochs trained" in shown.out
        assert "paused, the most promising first" in shown.out

    def test_raised_budget(self, tmp_path: Path, terminal: Terminal) -> None:
        """The same command with a larger budget continues; two workers keep to it as well."""
        write_study(tmp_path, **STUDY)
        for budget in (9, 21):
            answer = terminal.run(*RUN[:-1], "2", "--epochs-budget", str(budget), folder=tmp_path)
            assert answer.code == 0, answer.err
            records = stored_records(url_in(tmp_path))
            assert sum(len(epochs) for epochs in records.values()) == budget


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (("--learn-from", "nowhere"), "nowhere"),
            (("--set", "sampler.kind=optuna"), "needs the name of a sampler"),
            (
                ("--set", "sampler.kind=optuna", "--set", "sampler.name=CmaSampler"),
                "Optuna has no sampler 'CmaSampler'",
            ),
            (
                (
                    "--set",
                    "sampler.kind=optuna",
                    "--set",
                    "sampler.name=QMCSampler",
                    "--set",
                    "sampler.options={kind: sobol}",
                ),
                "does not accept these options",
            ),
            (("--epochs-budget", "0"), "epochs-budget"),
        ],
    )
    def test_one_message(
        self, tmp_path: Path, terminal: Terminal, options: tuple[str, ...], expected: str
    ) -> None:
        """A study to learn from, or a sampler, that cannot be used: one message, exit 2, no store."""
        write_study(tmp_path, **STUDY)
        answer = terminal.run(*RUN, *options, folder=tmp_path)
        assert answer.code == 2
        assert expected in answer.err
        assert "Traceback" not in answer.err
        assert not (tmp_path / "search.db").exists()


OWN = """
from collections.abc import Iterator

from spaces.config import TrialConfig


class Config(TrialConfig):
    rate: float = 0.1


def train(config: Config) -> Iterator[dict]:
    for epoch in range(1, config.epochs + 1):
        gain = 1 - (config.rate - 0.3) ** 2 - 0.5 / epoch
        with open("trained.txt", "a") as file:
            file.write(f"{epoch}\\n")
        yield {"epoch": epoch, "loss": 1 - gain, "metric": gain, "used": {"rate": config.rate}}
"""


class TestWithoutCheckpoints:
    def test_budget(self, tmp_path: Path, terminal: Terminal) -> None:
        """An objective that writes no checkpoint trains no epoch beyond the budget."""
        (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
        study = {
            "name": "mine",
            "objective": "mine:train",
            "metric": {"name": "gain"},
            "epochs": 10,
            "trials": 9,
            "space": {"rate": {"kind": "float", "low": 0.0, "high": 1.0}},
            "pruner": {"kind": "none"},
            "signals": QUIET,
        }
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        command = ("run", "--study", "mine.yaml", "--workers", "2", "--epochs-budget", "25")
        answer = terminal.run(*command, folder=tmp_path)
        assert answer.code == 0, answer.text
        assert "epoch budget exhausted" in answer.out
        trained = (tmp_path / "trained.txt").read_text(encoding="utf-8").splitlines()
        assert len(trained) == 25
