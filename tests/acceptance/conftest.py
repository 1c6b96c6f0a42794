"""Fixtures for tests that start the real command: a terminal, and studies that several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.gates import Gate
from tests.acceptance.studies import Finished, stored_trials, url_in, write_study
from tests.acceptance.terminal import Terminal, until


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all commands keep their data sets, so that each is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def lasting_terminal(cache: Path) -> Iterator[Terminal]:
    """A terminal for what several tests share."""
    terminal = Terminal(cache)
    yield terminal
    terminal.end()


@pytest.fixture
def terminal(cache: Path) -> Iterator[Terminal]:
    """A terminal that leaves no process behind."""
    terminal = Terminal(cache)
    yield terminal
    terminal.end()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, lasting_terminal: Terminal) -> Finished:
    """Four trials by two workers, then two more by one. To be looked at only: a test that changes it takes a copy."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder)
    command = ("run", "--study", "tiny.yaml", "--devices", "cpu")
    gate = Gate(tmp_path_factory.mktemp("gates") / "gate", epoch=2)
    options = ("--workers", "2", "--trials", "4")
    job = lasting_terminal.start(*command, *options, folder=folder, **gate.variables)
    gate.wait()  # or the worker that starts first may leave nothing for the other one
    until(lambda: len(_workers(url_in(folder))) == 2, "both workers have a trial")
    gate.open()
    first = job.wait()
    assert first.code == 0, first.text
    first_trials = stored_trials(url_in(folder))
    more = lasting_terminal.run(*command, "--workers", "1", "--trials", "6", folder=folder)
    assert more.code == 0, more.text
    return Finished(folder, first, first_trials, more, stored_trials(url_in(folder)))


def _workers(url: str) -> set[int | None]:
    """The processes that have, or had, a trial of the study."""
    return {trial.pid for trial in stored_trials(url)}
