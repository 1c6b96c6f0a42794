"""Active workers, as `search show` lists them, and the trials that it releases on request."""

from __future__ import annotations

import json

import pytest

from search import cli
from tests.contract.test_store import let_lapse
from tests.unit.search.conftest import Demo, Width


def show(demo: Demo, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What `search show` prints."""
    url = str(demo.store._database.engine.url)
    cli.app(["show", "--study", "focal_gamma", "--store", url, *options], standalone_mode=False)
    return capsys.readouterr().out


class TestWorkers:
    def test_table(self, demo: Demo, capsys: pytest.CaptureFixture[str], width: Width) -> None:
        """A worker is listed with its host, device, trial, epoch, last sign of life and attempts, while it has a trial and not afterwards."""
        width(120)
        claim = demo.start([0.1, 0.2], worker="box:7")

        lines = [line.split() for line in show(demo, capsys).splitlines()]
        (reported,) = [line for line in lines if line and line[0] == "box:7"]
        assert reported[2:5] == ["-", "0", "2/4"]
        assert reported[-2:] == ["ago", "1"]

        demo.finish(claim, "complete", 0.2)
        assert "box:7" not in show(demo, capsys)

    def test_json(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Scripts get the same."""
        demo.start([0.1, 0.2], worker="box:7")

        (reported,) = json.loads(show(demo, capsys, "--json"))["workers"]

        assert 0 <= reported.pop("silent_s") < 600
        assert reported.pop("host")
        assert reported == {
            "worker": "box:7",
            "device": "",
            "trial": 0,
            "epochs": 2,
            "overdue": False,
            "attempts": 1,
            "lost": 0,
        }


class TestReap:
    def test_silent(self, demo: Demo, capsys: pytest.CaptureFixture[str], width: Width) -> None:
        """A silent worker is marked; with `--reap` its trial is released, and its next attempt shows that a worker was lost."""
        width(120)
        let_lapse(demo.store, demo.start([0.1], worker="box:7"))
        assert "(silent)" in show(demo, capsys)

        assert "focal_gamma: trial 0 released: worker box:7 stopped responding" in show(
            demo, capsys, "--reap"
        )
        demo.claim("box:8")

        reported = show(demo, capsys, "--reap")
        assert "stopped responding" not in reported
        assert "2 (1 lost)" in reported
