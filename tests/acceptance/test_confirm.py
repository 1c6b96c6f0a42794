"""`search confirm` with the real command: interrupted, resumed, shown, and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.acceptance.studies import progress, url_in
from tests.acceptance.terminal import Terminal, until

OBJECTIVE = """
import random
import signal
import time
from pathlib import Path

from spaces.config import TrialConfig


class Config(TrialConfig):
    rate: float = 0.1


def train(config: Config):
    luck = random.Random(config.seed).gauss(0, 0.02)
    stop = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    for epoch in range(1, config.epochs + 1):
        while not Path("open").exists() and not (stop and stop.was_interrupted):
            time.sleep(0.05)
        metric = config.rate + luck - 0.1 / epoch
        yield {"epoch": epoch, "loss": 1 / epoch, "metric": metric, "used": {"rate": config.rate}}
"""
STUDY: dict[str, Any] = {
    "name": "mine",
    "objective": "mine:train",
    "metric": {"name": "gain"},
    "epochs": 5,
    "trials": 4,
    "space": {"rate": {"kind": "float", "low": 0.0, "high": 1.0}},
    "sampler": {"kind": "random"},
    "pruner": {"kind": "none"},
}
CONFIRM = ("confirm", "--study", "mine", "--top", "2", "--seeds", "2", "--workers", "1")
INTERRUPTED = 130


def test_interrupted(terminal: Terminal, tmp_path: Path) -> None:
    """Ctrl-C ends it with what is known; the same command finishes it, and a third one trains nothing."""
    (tmp_path / "mine.py").write_text(OBJECTIVE, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    gate = tmp_path / "open"
    gate.touch()
    run = terminal.run("run", "--study", "mine.yaml", "--workers", "1", folder=tmp_path)
    assert run.code == 0, run.text
    assert "search confirm --study mine" in run.out

    gate.unlink()
    job = terminal.start(*CONFIRM, folder=tmp_path)
    until(lambda: len(progress(url_in(tmp_path), "mine.confirm")) == 1, "the first training runs")
    job.interrupt()
    interrupted = job.wait()
    assert interrupted.code == INTERRUPTED, interrupted.text
    assert "run the same command again to continue" in interrupted.out

    gate.touch()
    resumed = terminal.run(*CONFIRM, "--json", folder=tmp_path)
    assert resumed.code == 0, resumed.text
    found = json.loads(resumed.out)
    assert [row["seeds"] for row in found["trials"]] == [2, 2]
    assert len(progress(url_in(tmp_path), "mine.confirm")) == 4
    again = terminal.run(*CONFIRM, folder=tmp_path)
    assert again.code == 0, again.text
    assert "Confirmed" in again.out
    assert len(progress(url_in(tmp_path), "mine.confirm")) == 4

    shown = terminal.run("show", folder=tmp_path)
    assert shown.out.count("Study mine") == 1
    assert "Confirmed" in shown.out
    winner = found["trials"][0]["number"]
    exported = terminal.run("export", "--study", "mine", folder=tmp_path)
    assert f"trial {winner} of mine" in exported.out
    assert "chance to be the best of 2" in exported.out
    trained = terminal.run("train", "best.yaml", folder=tmp_path)
    assert "equal to the last bit" in trained.out
