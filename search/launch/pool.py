"""The workers of one `search run`, wherever an engine placed them: watched, and stopped together."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Self

from search.launch.reaper import TrialCare
from spaces.errors import InputError, SearchError

POLITE_S = 10.0
"""How long workers have to end after they were told to stop at once."""

POLITELY, AT_ONCE, WITHOUT_MERCY = 1, 2, 3
"""How often a stop was asked for: every worker finishes its epoch, or drops it, or is killed."""


class Team(ABC):
    """What the commands need of the workers. The engine only places them: what they do is in the store.

    Args:
        timeout_s: after so long the workers finish their epochs and stop.

    Attributes:
        care: of the trials; None where nobody cares for them, as in a test of the workers alone.
    """

    care: TrialCare | None = None
    _failure: SearchError | None = None

    def __init__(self, timeout_s: float | None = None) -> None:
        self.stops = 0
        self.terminated = False
        self.expired = False
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    @abstractmethod
    def start(self) -> None:
        """Start all of them."""

    @abstractmethod
    def ask(self, times: int) -> None:
        """Ask every worker to stop: `POLITELY`, `AT_ONCE` or `WITHOUT_MERCY`."""

    def hurry(self) -> None:
        """This machine is taken away: workers on it have to stop after the step. Those elsewhere may finish their epochs."""
        self.ask(POLITELY)

    @abstractmethod
    def look(self) -> bool:
        """Replace what died, stop the others when one cannot go on, and say whether all have ended."""

    @abstractmethod
    def gone(self) -> bool:
        """Whether all have ended, and nothing else."""

    @abstractmethod
    def told(self) -> Iterable[str]:
        """The lines that the workers wrote in this run, as far as they are at hand."""

    def check(self) -> None:
        """Say what ended the workers, if it was not the end of the work.

        Raises:
            SearchError: with the failed worker's own words.
        """
        if self._failure is not None:
            raise self._failure

    @abstractmethod
    def forget_logs(self) -> None:
        """Remove the logs of this run; earlier runs keep theirs."""

    def release(self) -> None:  # noqa: B027 - most engines hold nothing
        """Give back what the engine holds besides the workers."""

    def finished(self) -> bool:
        """Whether all have ended; when the time is over they are asked to."""
        if self._deadline is not None and not self.expired and time.monotonic() >= self._deadline:
            self.expired = True
            self.ask(POLITELY)
        if self.care is not None:
            self.care.look()
        return self.look()

    def stop(self) -> None:
        """First call: every worker finishes its epoch. Second: at once. Third: without mercy."""
        self.stops += 1
        self.ask(min(self.stops, WITHOUT_MERCY))

    def terminate(self) -> None:
        """SIGTERM: hurry, however often it comes."""
        self.terminated, self.stops = True, max(self.stops, POLITELY)
        self.hurry()

    def warnings(self) -> list[str]:
        """What the workers warned of in this run, each warning once."""
        return list(
            dict.fromkeys(
                line.removeprefix("warning: ")
                for line in self.told()
                if line.startswith("warning: ")
            )
        )

    def note(self) -> str:
        """What a person who asked for a stop is waiting for, or who still waits for a place."""
        if self._failure is not None:
            return ""
        if not self.stops:
            return self.waiting()
        if self.stops > POLITELY:
            return "stopping at once"
        return f"stopping after the {'steps' if self.terminated else 'epochs'} at hand; Ctrl-C again stops at once"

    def waiting(self) -> str:
        """Who still waits for a place, in words; nothing where the engine has one for each."""
        return ""

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Start the workers, pass Ctrl-C and SIGTERM on to them, and leave none behind."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGTERM:
                self.terminate()
            else:
                self.stop()

        before = {
            number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self.start()
            yield self
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self) -> None:
        """However the block ended, no worker survives it."""
        try:
            for times in (POLITELY, AT_ONCE, WITHOUT_MERCY):
                if self.gone():
                    return
                self.ask(times)
                deadline = time.monotonic() + POLITE_S
                while not self.gone() and time.monotonic() < deadline:
                    time.sleep(0.05)
        finally:
            self.release()


def explained(told: Sequence[str]) -> bool:
    """Whether a worker that ended said why; one that was ended from within, as by a library that calls `exit`, did not."""
    return any(line.startswith(("error: ", "Traceback")) for line in told)


def last_words(told: Sequence[str], lines: int = 12) -> str:
    """The end of what a worker told: from the last error on where there is one."""
    starts = [index for index, line in enumerate(told) if line.startswith("error: ")]
    if starts:
        return "\n".join(told[starts[-1] :])
    if any(line.startswith("Traceback") for line in told):
        return f"a worker ended unexpectedly: {told[-1]}"  # the whole of it is in the log, which is named below
    return "\n".join(told[-lines:])


def failed(code: int | None, told: Sequence[str], log: str) -> SearchError:
    """The error for a worker that could not go on, in its own words."""
    words = (
        last_words(told).removeprefix("error: ")
        or f"a worker ended again and again, the last time with exit code {code}, and said nothing"
    )
    if code == InputError.exit_code:
        return InputError(words)  # which says all that there is to say
    return SearchError(f"{words}\n  log:     {log}")
