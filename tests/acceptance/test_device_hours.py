"""A study that may take so many hours of device time and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spaces.errors import InputError
from storage.location import StoreLocation
from tests.acceptance.studies import QUIET, stored_trials, url_in, write_study
from tests.acceptance.terminal import Terminal

RUN = ("run", "--study", "tiny.yaml", "--devices", "cpu", "--workers", "2")
HOURS = 1e-6
"""A few milliseconds: on no machine does a trial end in less."""


def test_spent_and_raised(terminal: Terminal, tmp_path: Path) -> None:
    """When the device time is spent the workers checkpoint and stop, and say so; with more of it the same study resumes and ends."""
    write_study(tmp_path, trials=2, presets=[], signals=QUIET)
    stopped = terminal.run(*RUN, "--device-hours", str(HOURS), folder=tmp_path)
    left = stored_trials(url_in(tmp_path))
    with StoreLocation.parse(url_in(tmp_path)).open(create=False) as store:
        taken = store.budget.find_device_time(store.studies.list_studies()[0].id)
    shown = terminal.run("show", "--study", "tiny", folder=tmp_path)
    reported = json.loads(terminal.run("show", "--study", "tiny", "--json", folder=tmp_path).out)
    raised = terminal.run(*RUN, "--workers", "1", "--device-hours", "1", folder=tmp_path)

    assert (stopped.code, stopped.err) == (0, "")
    assert "device-hour budget exhausted; raise --device-hours to continue" in stopped.out
    assert {trial.state for trial in left} == {"paused"}
    assert taken.spent
    assert sum(trial.device_s for trial in left) == pytest.approx(taken.charged_s)
    assert "device time: " in shown.out
    assert (reported["device_budget_s"], reported["device_s"], reported["workers"]) == (
        HOURS * 3600,
        taken.charged_s,
        [],
    )
    assert raised.code == 0, raised.text
    ended = stored_trials(url_in(tmp_path))
    assert [trial.state for trial in ended] == ["complete", "complete"]
    assert all(trial.device == "cpu" for trial in ended)


def test_none(terminal: Terminal, tmp_path: Path) -> None:
    """Hours that are none are refused before a store is made."""
    write_study(tmp_path)
    answer = terminal.run(*RUN, "--device-hours", "0", folder=tmp_path)

    assert answer.code == InputError.exit_code
    assert "--device-hours must be a positive number" in answer.err
    assert not (tmp_path / "search.db").exists()
