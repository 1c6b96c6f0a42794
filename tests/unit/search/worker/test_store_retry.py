"""How long a worker retries a database that fails."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from search.worker import store_retry
from search.worker.stop import StopRequest
from search.worker.store_retry import OutageTracker, RetryTimer, retry_until_available
from spaces.errors import StoreBusyError, StoreError, StoreUnreachableError

WHERE = "postgresql://host/db"
UNREACHABLE = StoreUnreachableError("the store cannot be reached", where=WHERE)
REFUSED = StoreError("the store refuses it")


def succeeds_after(failures: int) -> Callable[[], int]:
    """A request that fails so many times, then returns how many times it was made."""
    requests = 0

    def request() -> int:
        nonlocal requests
        requests += 1
        if requests <= failures:
            raise UNREACHABLE
        return requests

    return request


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [1000.0]
    monkeypatch.setattr(store_retry, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


class TestRetryUntilAvailable:
    def test_known(self, caplog: pytest.LogCaptureFixture) -> None:
        """A database that has answered at this address before is asked again, with a warning each time."""
        assert retry_until_available(WHERE, StopRequest(), True, succeeds_after(2)) == 3
        assert caplog.messages == ["the store cannot be reached; retrying"] * 2

    def test_unknown(self) -> None:
        """An address that never answered may be wrong, so the first error is raised."""
        with pytest.raises(StoreUnreachableError):
            retry_until_available(WHERE, StopRequest(), False, succeeds_after(1))

    def test_stopped(self) -> None:
        """A worker that was asked to stop does not retry."""
        stop = StopRequest()
        stop.stop_after_epoch()
        with pytest.raises(StoreUnreachableError):
            retry_until_available(WHERE, stop, True, succeeds_after(1))


class TestRetryTimer:
    def test_patience(self, clock: list[float]) -> None:
        """The problem is raised once the patience is over, counted from the first attempt."""
        timer = RetryTimer()
        assert timer.next_wait_s(UNREACHABLE, 10) > 0
        clock[0] += 11
        with pytest.raises(StoreUnreachableError):
            timer.next_wait_s(UNREACHABLE, 10)

    def test_busy(self) -> None:
        """The first conflict with another transaction is retried immediately, the next one later."""
        timer = RetryTimer()
        busy = StoreBusyError("another transaction was in the way")
        assert timer.next_wait_s(busy, 10) == 0
        assert timer.next_wait_s(busy, 10) > 0


class TestOutageTracker:
    def test_unreachable(self, clock: list[float]) -> None:
        """An unreachable database is retried for ten minutes."""
        outage = OutageTracker()
        assert outage.record_error(UNREACHABLE) > 0
        assert outage.last_request_failed
        clock[0] += 590
        assert outage.record_error(UNREACHABLE) > 0
        clock[0] += 20
        with pytest.raises(StoreUnreachableError):
            outage.record_error(UNREACHABLE)

    def test_answered(self, clock: list[float]) -> None:
        """Only time without an answer counts: an outage before a long training is forgotten after it."""
        outage = OutageTracker()
        outage.record_error(UNREACHABLE)
        outage.record_answer()
        assert not outage.last_request_failed
        clock[0] += 7200
        assert outage.record_error(UNREACHABLE) > 0

    def test_refused(self, clock: list[float]) -> None:
        """A database that grants claims but refuses every end of a trial is retried for a minute."""
        outage = OutageTracker()
        outage.record_error(REFUSED)
        outage.record_answer()
        clock[0] += 50
        outage.record_error(REFUSED)
        outage.record_answer()
        clock[0] += 20
        with pytest.raises(StoreError, match="refuses"):
            outage.record_error(REFUSED)

    def test_trial_end(self, clock: list[float]) -> None:
        """The outage is over when the database accepts the end of a trial."""
        outage = OutageTracker()
        outage.record_error(REFUSED)
        outage.record_answer()
        outage.record_trial_end()
        clock[0] += 3600
        assert outage.record_error(REFUSED) > 0
