"""What docs/backtest.md shows is what happens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from search.convert import COLUMNS
from spaces.epoch_rows import PARTS, REQUIRED, WRITTEN
from spaces.recordings import STATES, read_recording

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "backtest.md").read_text(encoding="utf-8")


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
        answer = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=True)
        (said,) = re.findall(r"# (the training loss.*)", script)
        assert answer.stdout.splitlines() == [said, "0.0"]

    def test_keys(self) -> None:
        """Every key that an epoch can have is told, and so is every state of a trial."""
        for key in (*REQUIRED, *PARTS, *WRITTEN, *COLUMNS, *STATES):
            assert f"`{key}`" in PAGE, key
