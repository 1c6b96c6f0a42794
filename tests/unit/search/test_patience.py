"""A worker that begins while the database restarts."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from search.stop import StopRequest
from search.worker import WorkerSettings, patiently
from spaces.errors import StoreUnreachableError


def answers_after(failures: int) -> Callable[[], int]:
    """A question to a database that is away so many times; the answer is how often it was asked."""
    asked = 0

    def question() -> int:
        nonlocal asked
        asked += 1
        if asked <= failures:
            raise StoreUnreachableError("the store cannot be reached", where="postgresql://host/db")
        return asked

    return question


def settings(parent: int | None) -> WorkerSettings:
    """Of a worker that was started by another process, or by a person."""
    return WorkerSettings("postgresql://host/db", "demo", "cpu", 1, parent=parent)


def test_waits(capsys: pytest.CaptureFixture[str]) -> None:
    """One that a supervisor started asks again, and says so."""
    assert patiently(settings(os.getppid()), StopRequest(), answers_after(2)) == 3
    assert capsys.readouterr().out.splitlines() == ["warning: the store cannot be reached; asking again"] * 2


def test_by_hand() -> None:
    """One that a person started ends at once, for its address may be wrong."""
    with pytest.raises(StoreUnreachableError):
        patiently(settings(None), StopRequest(), answers_after(1))


def test_stopped() -> None:
    """One that was asked to stop does not wait."""
    stop = StopRequest()
    stop.request()
    with pytest.raises(StoreUnreachableError):
        patiently(settings(os.getppid()), stop, answers_after(1))
