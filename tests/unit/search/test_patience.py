"""A worker that begins while the database restarts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from search.stop import StopRequest
from search.worker import patiently
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


def test_waits(capsys: pytest.CaptureFixture[str]) -> None:
    """A database that was seen there is asked again, and the worker says so."""
    assert patiently("postgresql://host/db", StopRequest(), True, answers_after(2)) == 3
    assert capsys.readouterr().out.splitlines() == ["warning: the store cannot be reached; asking again"] * 2


def test_unseen() -> None:
    """An address that never answered may be wrong: that is told at once."""
    with pytest.raises(StoreUnreachableError):
        patiently("postgresql://host/db", StopRequest(), False, answers_after(1))


def test_stopped() -> None:
    """One that was asked to stop does not wait."""
    stop = StopRequest()
    stop.request()
    with pytest.raises(StoreUnreachableError):
        patiently("postgresql://host/db", stop, True, answers_after(1))
