"""Fixtures for tests that start the real command: a terminal, and studies that several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.terminal import Terminal


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
