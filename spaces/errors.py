"""The tree of all errors; the command line turns each into one message and an exit code.

SearchError                       exit 1: a failure that the user could not have prevented
├── InputError                    exit 2: what the user gave cannot be used
│   ├── StudyError                a study's YAML, its `--set` changes, or its stored definition
│   ├── ConfigError               a trial configuration, such as an exported best.yaml
│   ├── DataError                 images, masks, labels
│   ├── RecordsError              recorded epochs that cannot be replayed
│   ├── StoreError                the database: address, rights, schema version
│   │   └── StoreUnreachableError the database is unavailable: a retry may succeed later
│   │       └── StoreBusyError    a conflict with another transaction: retry immediately
│   ├── DeviceError               a device that does not exist here
│   └── LauncherError             Ray or Slurm: not installed, unreachable, or without the resources
├── UnusedHyperparameterError     exit 2: a sampled value never reached loss, optimizer or model
├── WorkerRestartRequired         exit 75: this process should be replaced by a fresh one
├── OutOfMemoryError              the device, or the host, had no memory for the trial
├── LeaseLostError                another worker owns the trial now; this attempt cannot write
├── EpochOrderError               store and checkpoint disagree; the attempt resumes again
└── TrialFailedError              an objective yielded no records or unordered ones, or raised
"""

from __future__ import annotations

from difflib import SequenceMatcher, get_close_matches
from itertools import takewhile
from typing import TYPE_CHECKING

from spaces.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self


class SearchError(Exception):
    """A failure that the user could not have prevented."""

    exit_code = ExitCode.FAILED


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

    exit_code = ExitCode.BAD_INPUT

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
    """The data cannot be read, or do not match the configuration."""


class RecordsError(InputError):
    """Recorded epochs cannot be read or replayed."""


class StoreError(InputError):
    """The store cannot be used."""


class StoreDamagedError(StoreError):
    """The database file is damaged."""


class StoreUnreachableError(StoreError):
    """The database is unavailable, as during a restart; a retry may succeed later."""


class StoreBusyError(StoreUnreachableError):
    """A transaction was rolled back because of another one; a retry may succeed immediately."""


class DeviceError(InputError):
    """A requested device does not exist on this machine."""


class LauncherError(InputError):
    """The launcher cannot place workers as requested."""


class UnusedHyperparameterError(SearchError):
    """A sampled hyperparameter never reached the loss, the optimizer or the model."""

    exit_code = ExitCode.BAD_INPUT


class WorkerRestartRequired(SearchError):  # noqa: N818 - it asks for a restart, nothing is wrong
    """This process has to be replaced: after a failure on a GPU its memory cannot be relied on."""

    exit_code = ExitCode.RESTART


class OutOfMemoryError(SearchError):
    """The device, or the host, had no memory for the trial.

    Args:
        device: where it was trained.
        asked: size of the failed allocation, such as `1.2 GiB`; empty if that is not known.
    """

    def __init__(self, device: str, asked: str = "") -> None:
        self.device, self.asked = device, asked
        super().__init__(
            f"out of memory on {device}{f' while allocating {asked}' if asked else ''}"
        )


class LeaseLostError(SearchError):
    """Another worker owns the trial now, so this attempt cannot write."""


class EpochOrderError(SearchError):
    """The store has other epochs than the checkpoint: the attempt resumes where the two agree."""


class TrialFailedError(SearchError):
    """An objective yielded no records, yielded them out of order, or raised an exception."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest allowed word, or nothing if none is close.

    Of several equally close words it is the one with the longest common prefix: for `resnet35`
    that is `resnet34`, not `resnet50`.
    """
    word = str(word)
    close = get_close_matches(word, list(allowed), n=5, cutoff=0.5)
    if not close:
        return ""
    best = max(
        close,
        key=lambda each: (SequenceMatcher(None, each, word).ratio(), _common_prefix(each, word)),
    )
    return f" (did you mean {best!r}?)"


def _common_prefix(one: str, other: str) -> int:
    """Return the length of the common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
