"""Workers that join a study from elsewhere, and the password of the store that they share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import make_url

from tests.acceptance.gates import Gate
from tests.acceptance.studies import QUIET, stored_trials, write_study
from tests.acceptance.terminal import Job, Terminal, until
from tests.postgresql import schema

PASSWORD = "hunter2-in-no-list"
ENDLESS = {"epochs": 2, "trials": 100_000, "signals": QUIET}
INTERRUPTED = 130


class Team:
    """`search run` on PostgreSQL with one worker, joined by `search worker` from another shell until both have ended trials, and then stopped."""

    def __init__(self, terminal: Terminal, folder: Path, url: str) -> None:
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        write_study(folder, **ENDLESS)
        self.folder, self.url, self.titles = folder, url, set[str]()
        gate = Gate(folder / "gate", epoch=2)
        run = terminal.start(
            "run",
            "--study",
            "tiny.yaml",
            "--workers",
            "1",
            "--devices",
            "cpu",
            folder=folder,
            SEARCH_STORE=url,
            **gate.variables,
        )
        gate.wait()
        joined = terminal.start(
            "worker", "--study", "tiny", "--threads", "1", folder=elsewhere, SEARCH_STORE=url
        )
        until(
            lambda: self._watch(run, joined) and joined.pid in self._ended_trials(),
            "the worker that joined has ended a trial",
        )
        gate.open()
        until(lambda: len(self._ended_trials()) == 2, "both have ended a trial")
        for job in (joined, run):
            job.interrupt()
        self.joined, self.run = joined.wait(), run.wait()

    def _watch(self, *jobs: Job) -> bool:
        """Record what a list of processes shows of the commands and of all that they started."""
        for process in (process for job in jobs for process in job.alive()):
            with suppress(psutil.Error):
                self.titles.add(" ".join(process.cmdline()))
        return True

    def _ended_trials(self) -> set[int | None]:
        return {trial.pid for trial in stored_trials(self.url) if trial.state == "complete"}


@pytest.fixture(scope="module")
def url(postgres: str, postgres_admin: psycopg.Connection) -> Iterator[str]:
    """The address of a fresh schema, with a password in it."""
    with schema(postgres, postgres_admin, f"team_{os.getpid()}") as plain:
        yield make_url(plain).set(password=PASSWORD).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def team(lasting_terminal: Terminal, tmp_path_factory: pytest.TempPathFactory, url: str) -> Team:
    """Two workers, started from two shells, on one study."""
    return Team(lasting_terminal, tmp_path_factory.mktemp("team"), url)


def test_shared(team: Team) -> None:
    """A worker that finds the store in SEARCH_STORE shares a study's trials, each of which one worker has, and stops when it is asked to."""
    assert (team.joined.code, team.joined.err) == (INTERRUPTED, "")
    assert (team.run.code, team.run.err) == (INTERRUPTED, "")
    trials = stored_trials(team.url)
    assert sorted(trial.number for trial in trials if trial.number is not None) == list(
        range(len(trials))
    )
    assert {trial.state for trial in trials} <= {"complete", "paused"}
    assert all(trial.attempt == 1 for trial in trials)


def test_no_password(team: Team) -> None:
    """The store's password stands in no list of processes, no output, no log and no best.yaml."""
    assert any(" worker --study tiny " in title for title in team.titles)  # the list was looked at
    reported = [*team.titles, team.run.text, team.joined.text]
    reported += [
        path.read_text(errors="replace") for path in team.folder.rglob("*") if path.is_file()
    ]
    assert (team.folder / "best.yaml").exists()
    assert (team.folder / "search.files" / "tiny" / "worker-0.log").exists()
    assert [text for text in reported if PASSWORD in text] == []
