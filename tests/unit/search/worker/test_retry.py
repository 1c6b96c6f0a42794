"""A worker that begins while the database restarts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from search.worker import retry
from search.worker.retry import Trouble, patiently
from search.worker.stop import StopRequest
from spaces.errors import StoreError, StoreUnreachableError


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
    assert (
        capsys.readouterr().out.splitlines()
        == ["warning: the store cannot be reached; asking again"] * 2
    )


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


AWAY, REFUSED = (
    StoreUnreachableError("the store cannot be reached"),
    StoreError("the store refuses it"),
)


class TestTrouble:
    """How long a worker bears with its store between two trials."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """The time, to be set."""
        now = [1000.0]
        monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: now[0]))
        return now

    def test_away(self, clock: list[float]) -> None:
        """A database that is away is asked again for ten minutes, and not for longer."""
        trouble = Trouble()
        assert trouble.met(AWAY) > 0
        assert trouble.at_hand
        clock[0] += 590
        assert trouble.met(AWAY) > 0
        clock[0] += 20
        with pytest.raises(StoreUnreachableError):
            trouble.met(AWAY)

    def test_answered(self, clock: list[float]) -> None:
        """Only the time without an answer counts: a blip before a long training is forgotten after it."""
        trouble = Trouble()
        trouble.met(AWAY)
        trouble.answered()
        assert not trouble.at_hand
        clock[0] += 7200
        assert trouble.met(AWAY) > 0

    def test_refused(self, clock: list[float]) -> None:
        """A store that takes claims and refuses every end of a trial is not asked for ever."""
        trouble = Trouble()
        trouble.met(REFUSED)
        trouble.answered()
        clock[0] += 50
        trouble.met(REFUSED)
        trouble.answered()
        clock[0] += 20
        with pytest.raises(StoreError, match="refuses"):
            trouble.met(REFUSED)

    def test_over(self, clock: list[float]) -> None:
        """The end of a trial that the store took ends the trouble."""
        trouble = Trouble()
        trouble.met(REFUSED)
        trouble.answered()
        trouble.over()
        clock[0] += 3600
        assert trouble.met(REFUSED) > 0
