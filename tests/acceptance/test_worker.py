"""Workers that join a study from elsewhere, and the password of the store that they share."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from sqlalchemy import make_url

from storage.rows import StoredTrial
from tests.acceptance.studies import QUIET, progress, stored_trials, write_study
from tests.acceptance.terminal import Answer, Job, Terminal, until

PASSWORD = "hunter2-in-no-list"
LONG = {"epochs": 12, "trials": 6, "signals": QUIET}


class Team:
    """`search run` on PostgreSQL with one worker, joined by `search worker` from another shell, and what both said."""

    def __init__(self, terminal: Terminal, folder: Path, url: str) -> None:
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        write_study(folder, **LONG)
        self.folder, self.titles = folder, set[str]()
        run = terminal.start("run", "--study", "tiny.yaml", "--workers", "1", "--devices", "cpu", folder=folder, SEARCH_STORE=url)
        until(lambda: progress(url) != [], "the study has begun")
        self.joined = terminal.start("worker", "--study", "tiny", "--threads", "1", folder=elsewhere, SEARCH_STORE=url)
        until(lambda: self._watch(run) and self._watch(self.joined), "both have ended")
        self.run_answer, self.joined_answer = run.wait(), self.joined.wait()
        self.trials = stored_trials(url)

    def _watch(self, job: Job) -> bool:
        """Whether a command has ended; notes what a list of processes tells of it and of all that it started."""
        for process in job.alive():
            try:
                self.titles.add(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return job.said().code != -1000


@pytest.fixture
def team(terminal: Terminal, tmp_path: Path, postgresql_url: str) -> Team:
    """Two workers, started from two shells, on one study."""
    url = make_url(postgresql_url).set(password=PASSWORD).render_as_string(hide_password=False)
    return Team(terminal, tmp_path, url)


def fine(answer: Answer) -> bool:
    """Whether a command ended well and without a complaint."""
    return (answer.code, answer.err) == (0, "")


def test_team(team: Team) -> None:
    """A worker from another shell shares a study's trials, and neither the budget nor the store's password suffers."""
    assert fine(team.run_answer)
    assert fine(team.joined_answer)
    assert sorted(trial.number or 0 for trial in team.trials) == [0, 1, 2, 3, 4, 5]
    assert {trial.state for trial in team.trials} == {"complete"}
    assert pids(team.trials) > {team.joined.pid}

    assert any(" worker --study tiny " in title for title in team.titles)  # the list of processes was seen
    told = [*team.titles, team.run_answer.text, team.joined_answer.text]
    told += [path.read_text(errors="replace") for path in team.folder.rglob("*") if path.is_file()]
    assert (team.folder / "best.yaml").exists()
    assert [text for text in told if PASSWORD in text] == []


def pids(trials: list[StoredTrial]) -> set[int]:
    """The processes that had a trial."""
    return {trial.pid for trial in trials}
