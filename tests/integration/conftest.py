"""One small study, run on every store and with every tracker at once: the runs share the start of their processes, and tests look at them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from storage.rows import StoredTrial
from tests.acceptance.conftest import cache, lasting_terminal, terminal
from tests.acceptance.studies import stored_trials, url_in, write_study
from tests.acceptance.terminal import Answer, Job, Terminal
from tests.postgresql import schema

__all__ = ["cache", "lasting_terminal", "terminal"]

RUN = ("run", "--study", "tiny.yaml", "--workers", "1", "--devices", "cpu")

BROKEN_WANDB = """
class Settings:
    def __init__(self, **given): pass

class Run:
    def log(self, figures, step): raise SystemError("the disk is on fire")

def init(**given): return Run()
"""


@dataclass(frozen=True)
class Ended:
    """A run that ended, in its folder."""

    folder: Path
    answer: Answer
    url: str

    @property
    def trials(self) -> list[StoredTrial]:
        """Its trials."""
        return stored_trials(self.url)


@pytest.fixture(scope="session")
def lasting_postgresql_url(postgres: str, postgres_admin: psycopg.Connection) -> Iterator[str]:
    """The address of a schema that lasts for the session."""
    with schema(postgres, postgres_admin, f"lasting_{os.getpid()}") as url:
        yield url


@pytest.fixture(scope="session")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    lasting_terminal: Terminal,
    lasting_postgresql_url: str,
) -> dict[str, Ended]:
    """The same study on SQLite with a healthy wandb, on PostgreSQL, and with wandb broken in two ways; one worker each."""
    folders = {
        name: tmp_path_factory.mktemp(name)
        for name in ("sqlite", "postgresql", "unwritable", "raising")
    }
    stub = tmp_path_factory.mktemp("stub")
    (stub / "wandb.py").write_text(BROKEN_WANDB)
    path = os.pathsep.join([str(stub), *filter(None, [os.environ.get("PYTHONPATH")])])
    started: dict[str, Job] = {}

    def start(name: str, *options: str, **variables: str) -> None:
        write_study(folders[name])
        started[name] = lasting_terminal.start(*RUN, *options, folder=folders[name], **variables)

    start("sqlite", "--trials", "4", "--wandb", "offline")
    start("postgresql", "--trials", "4", SEARCH_STORE=lasting_postgresql_url)
    start("unwritable", "--trials", "2", "--wandb", "offline", WANDB_DIR="/proc/no/such/folder")
    start("raising", "--trials", "2", "--wandb", "offline", PYTHONPATH=path)
    urls = {name: url_in(folder) for name, folder in folders.items()} | {
        "postgresql": lasting_postgresql_url
    }
    return {name: Ended(folders[name], job.wait(), urls[name]) for name, job in started.items()}
