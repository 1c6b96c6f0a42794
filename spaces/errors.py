"""Everything that can go wrong, in one tree; the command line turns it into one message and an exit code.

SearchError                       exit 1: something failed that the user could not have prevented
├── InputError                    exit 2: what the user gave cannot be used
│   ├── StudyError                a study's YAML, its `--set` overrides, or its clash with a stored study
│   ├── ConfigError               a trial configuration, such as an exported best.yaml
│   ├── DataError                 images, masks, labels
│   ├── RecordsError              recorded epochs that cannot be replayed
│   ├── StoreError                the database: address, rights, schema version
│   │   └── StoreUnreachableError it does not answer at the moment: the same may succeed later
│   │       └── StoreBusyError    another transaction was in the way: the same may succeed at once
│   ├── DeviceError               a device that is not there
│   └── LauncherError             Ray or Slurm: not installed, not reached, or asked for what it does not have
├── UnusedHyperparameterError     exit 2: a sampled value never reached the loss, the optimiser or the model
├── WorkerSpentError              exit 75: this process should be replaced by a fresh one
├── OutOfMemoryError              the device, or the host, had no memory for the trial
├── LeaseLostError                another worker owns the trial now; this attempt may write no more
├── EpochOrderError               the store has other epochs of a trial than the attempt resumed from; it resumes again
└── TrialFailedError              an objective broke its promise (no records, records out of order, an exception)
"""

from __future__ import annotations

from difflib import SequenceMatcher, get_close_matches
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self


class SearchError(Exception):
    """Something failed that the user could not have prevented."""

    exit_code = 1


class InputError(SearchError):
    """What the user gave cannot be used.

    Args:
        what: one sentence that says what is wrong.
        where: file and line, option, or address (never with a password), as it is printed.
        place: the keys that lead to the value, from the top of the study or the configuration,
            for code that has to know it; empty where the error is about no single value. What is
            printed of it is in `where`.
        found: the value that was given.
        allowed: the values that are allowed.
        next_step: what to do now.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        place: Sequence[str] = (),
        found: str = "",
        allowed: str = "",
        next_step: str = "",
    ) -> None:
        self.what = what
        self.where = where
        self.place = tuple(place)
        self.found = found
        self.allowed = allowed
        self.next_step = next_step
        super().__init__(what)

    def relocated(self, *, where: str = "", place: Sequence[str] = (), next_step: str = "") -> Self:
        """Return the same error with another location or next step; what is left out stays."""
        return type(self)(
            self.what,
            where=where or self.where,
            place=place or self.place,
            found=self.found,
            allowed=self.allowed,
            next_step=next_step or self.next_step,
        )

    def __str__(self) -> str:
        rows = (
            ("where", self.where),
            ("found", self.found),
            ("allowed", self.allowed),
            ("next", self.next_step),
        )
        return "\n".join([self.what, *(f"  {name + ':':<9}{text}" for name, text in rows if text)])


class StudyError(InputError):
    """A study's definition cannot be used."""


class ConfigError(InputError):
    """A trial configuration cannot be used."""


class DataError(InputError):
    """The data cannot be read, or do not fit the configuration."""


class RecordsError(InputError):
    """Recorded epochs cannot be read, or not be replayed."""


class StoreError(InputError):
    """The store cannot be used."""


class StoreUnreachableError(StoreError):
    """The store does not answer at the moment: the server restarts, or the connection was cut. The same may succeed later."""


class StoreBusyError(StoreUnreachableError):
    """Another transaction was in the way, and this one was undone. The same may succeed at once."""


class DeviceError(InputError):
    """A device that was asked for is not there."""


class LauncherError(InputError):
    """The engine that was to place the workers cannot be used as asked."""


class UnusedHyperparameterError(SearchError):
    """A sampled hyperparameter never reached the loss, the optimiser or the model."""

    exit_code = 2


class WorkerSpentError(SearchError):
    """This process should be replaced by a fresh one: after a failure on a GPU its memory is not to be trusted."""

    exit_code = 75


class OutOfMemoryError(SearchError):
    """The device, or the host, had no memory for the trial.

    Args:
        device: where it was trained.
        asked: how much more was asked for, such as `1.2 GiB`; empty where that is not known.
    """

    def __init__(self, device: str, asked: str = "") -> None:
        self.device, self.asked = device, asked
        super().__init__(
            f"out of memory on {device}{f', where {asked} more were asked for' if asked else ''}"
        )


class LeaseLostError(SearchError):
    """Another worker owns the trial now: this attempt may write no more."""


class EpochOrderError(SearchError):
    """The store has other epochs of a trial than the attempt resumed from: it has to resume again from what store and files agree on."""


class TrialFailedError(SearchError):
    """An objective broke its promise: no records, records out of order, or an exception."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest allowed word, or an empty string when none is close.

    Of several that are as close, the one that begins alike for longest: `resnet35` is rather `resnet34` than `resnet50`.
    """
    word = str(word)
    close = get_close_matches(word, list(allowed), n=5, cutoff=0.5)
    if not close:
        return ""
    best = max(
        close, key=lambda each: (SequenceMatcher(None, each, word).ratio(), _alike(each, word))
    )
    return f" (did you mean {best!r}?)"


def _alike(one: str, other: str) -> int:
    """How many letters they begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
