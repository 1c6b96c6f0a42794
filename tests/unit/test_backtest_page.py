"""What docs/backtest.md shows is what happens, and what docs/studies.md says of the signals is what they do to recorded trials."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.campaign import records
from search.replay.backtest import find_signal_stops, only_signal, run_backtest
from search.replay.convert import COLUMNS
from search.replay.ranking import rank_recording
from spaces.record_json import PARTS, REQUIRED, WRITTEN
from spaces.recordings import STATES, read_recording
from spaces.study import PrunerConfig
from spaces.thresholds import SignalsConfig
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "backtest.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.docs


class TestPage:
    def test_line(self, tmp_path: Path) -> None:
        """The line that it shows is a trial."""
        (line,) = re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)
        path = tmp_path / "curves.jsonl"
        path.write_text(line, encoding="utf-8")
        (trial,) = read_recording(path).trials
        assert [record.epoch for record in trial.epochs] == [1, 2]

    def test_python(self, tmp_path: Path) -> None:
        """The script that it shows runs, and prints what its comment says."""
        script = re.findall(r"```python\n(.*?)\n```", PAGE, re.DOTALL)[-1]
        epochs = [{"epoch": epoch, "loss": 1.0, "metric": 0.1} for epoch in range(1, 4)]
        (tmp_path / "curves.jsonl").write_text(json.dumps({"epochs": epochs}), encoding="utf-8")
        answer = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        (said,) = re.findall(r"# (the training loss.*)", script)
        assert answer.stdout.splitlines() == [said, "0.0"]

    def test_keys(self) -> None:
        """Every key that an epoch can have is documented, and so is every state of a trial."""
        for key in (*REQUIRED, *PARTS, *WRITTEN, *COLUMNS, *STATES):
            assert f"`{key}`" in PAGE, key


STUDIES = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\|[^|]*\| `(\w+)`: `([^`]*)` \| (\d+), (\d+) \|[^|]*\| (\d+), (\d+) \|$", re.MULTILINE
)


class TestDepartures:
    FIELD = rank_recording(read_recording(records("first")))

    def killed(
        self, signal: str, thresholds: Mapping[str, float], *, sparing: bool = True
    ) -> tuple[int, int]:
        """How many the signal kills with these thresholds, and how many of the best."""
        config = {signal: thresholds, "sparing": {"enabled": sparing}}
        kills = find_signal_stops(
            self.FIELD, only_signal(SignalsConfig.model_validate(config), signal)
        )
        return len(kills), sum(each.number in kills for each in self.FIELD.best_trials())

    def test_rows(self) -> None:
        """Every departure from a plain rule is documented with what the recorded trials show of both."""
        assert {row[0] for row in ROW.findall(STUDIES)} == {
            "loss_rising",
            "not_learning",
            "overfitting",
            "loss_metric_decoupling",
        }

    @pytest.mark.parametrize("row", ROW.findall(STUDIES), ids=lambda row: row[0])
    def test_numbers(self, row: tuple[str, ...]) -> None:
        """The numbers of the plain rule and of the signal are those of the recorded campaign."""
        signal, words, *reported = row
        plain = {
            key: float(value) for key, _, value in (word.partition("=") for word in words.split())
        }
        assert (*self.killed(signal, plain, sparing=False), *self.killed(signal, {})) == tuple(
            map(int, reported)
        )

    def test_promises(self) -> None:
        """Five falls in a row stop no trial of the campaign; the signals spare its best tenth and save a fifth, with the pruner a half, and not its best trial."""
        assert self.killed(
            "metric_falling", {"agreement": 1, "drop": 0, "noise": 0}, sparing=False
        ) == (0, 0)
        found = {
            row.rule: row for row in run_backtest(self.FIELD, SignalsConfig(), PrunerConfig()).rows
        }
        signals, together = found["all signals"], found["all signals + median"]
        assert (signals.best_killed, signals.share_saved >= 0.2) == ((), True)
        assert (
            self.FIELD.ranked[0].number in together.best_killed,
            together.share_saved >= 0.5,
        ) == (False, True)
