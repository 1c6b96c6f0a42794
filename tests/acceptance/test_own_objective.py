"""Custom objectives as their page describes them: written, searched, tested, and refused if wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.acceptance.terminal import PATIENCE_S, Terminal

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-objective.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.DOTALL)
EXAMPLE, CONTRACT = (
    next(text for kind, text in BLOCKS if kind == "python" and word in text)
    for word in ("SGDClassifier", "ObjectiveContract")
)
STUDY = next(text for kind, text in BLOCKS if kind == "yaml")
COMMANDS = [line.split() for line in re.findall(r"^    search (.*)$", PAGE, re.MULTILINE)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    (tmp_path / "digits_sgd.py").write_text(EXAMPLE, encoding="utf-8")
    (tmp_path / "digits.yaml").write_text(STUDY, encoding="utf-8")
    (tmp_path / "test_digits.py").write_text(CONTRACT, encoding="utf-8")
    return tmp_path


def study(folder: Path, code: str, **changes: object) -> None:
    """Write a study of other code, with few trials."""
    (folder / "mine.py").write_text(
        "from spaces.config import TrialConfig\n\n\nclass Config(TrialConfig):\n    rate: float = 0.1\n\n\n"
        + code,
        encoding="utf-8",
    )
    given = {
        "name": "mine",
        "objective": "mine:train",
        "metric": {"name": "gain"},
        "epochs": 3,
        "trials": 4,
        "space": {"rate": {"kind": "float", "low": 0.0, "high": 1.0}},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(given | changes), encoding="utf-8")


@pytest.mark.docs
class TestPage:
    def test_short(self) -> None:
        """The example has under 40 lines."""
        assert len(EXAMPLE.splitlines()) < 40

    def test_to_the_leaderboard(self, folder: Path, terminal: Terminal) -> None:
        """From an empty folder to the leaderboard, and a best.yaml that trains again to the same score."""
        first, show = (terminal.run(*command, folder=folder) for command in COMMANDS)
        assert first.code == 0, first.text
        assert show.code == 0, show.text
        assert "Leaderboard" in show.text
        (report,) = json.loads(terminal.run("show", "--json", folder=folder).out)
        assert sum(report["states"].values()) == 8
        assert report["leaderboard"][0]["score"] > 0.85
        again = terminal.run("train", "best.yaml", folder=folder)
        assert again.code == 0, again.text
        assert terminal.run("explain", "--study", "digits", "--trial", "0", folder=folder).code == 0

    def test_contract(self, folder: Path) -> None:
        """The contract's tests pass on it, run by pytest in its folder."""
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_digits.py"]
        answer = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert "5 passed" in answer.stdout, answer.stdout + answer.stderr

    def test_installed(
        self,
        folder: Path,
        tmp_path_factory: pytest.TempPathFactory,
        terminal: Terminal,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A package in PYTHONPATH is searched from another folder, by its dotted name."""
        package = tmp_path_factory.mktemp("site") / "my_package"
        package.mkdir()
        (package / "__init__.py").touch()
        (folder / "digits_sgd.py").rename(package / "my_module.py")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), str(ROOT)]))
        (folder / "digits.yaml").write_text(
            STUDY.replace("digits_sgd:train", "my_package.my_module:train"), encoding="utf-8"
        )
        answer = terminal.run(
            "run", "--study", "digits.yaml", "--trials", "2", "--workers", "1", folder=folder
        )
        assert answer.code == 0, answer.text


class TestWrong:
    def test_failed(self, folder: Path, terminal: Terminal) -> None:
        """A function that raises fails its trials with the reason; after three the search stops."""
        study(
            folder,
            "def train(config: Config):\n    yield {'epoch': 1, 'loss': 1.0, 'metric': 0.5}\n    raise KeyError('lost')\n",
        )
        answer = terminal.run("run", "--study", "mine.yaml", "--workers", "1", folder=folder)
        assert answer.code == 1, answer.text
        assert "3 trials in a row failed" in answer.text
        assert (
            "KeyError: 'lost'"
            in terminal.run("explain", "--study", "mine", "--trial", "0", folder=folder).text
        )

    def test_infinite(self, folder: Path, terminal: Terminal) -> None:
        """An infinite metric is not a score; a search without a complete trial and with a failed one fails."""
        study(
            folder,
            "def train(config: Config):\n    for epoch in (1, 2):\n        yield {'epoch': epoch, 'loss': 1.0 / epoch, 'metric': float('inf')}\n",
            trials=1,
            epochs=2,
        )
        answer = terminal.run("run", "--study", "mine.yaml", "--workers", "1", folder=folder)
        assert answer.code == 1, answer.text
        assert "no trial is complete, so best.yaml was not written" in answer.text
        assert (
            "was infinite"
            in terminal.run("explain", "--study", "mine", "--trial", "0", folder=folder).text
        )

    def test_diverged(self, folder: Path, terminal: Terminal) -> None:
        """Signals judge it, and remedies name no setting that it does not have."""
        study(
            folder,
            "def train(config: Config):\n    for epoch in range(1, 4):\n        yield {'epoch': epoch, 'loss': float('nan'), 'metric': 0.5}\n",
            trials=1,
        )
        terminal.run("run", "--study", "mine.yaml", "--workers", "1", folder=folder)
        text = terminal.run("explain", "--study", "mine", "--trial", "0", folder=folder).text
        assert "nonfinite_loss" in text
        assert "optimizer." not in text
