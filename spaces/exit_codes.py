"""The exit codes of the commands and of the worker processes."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a process of ours ended.

    Attributes:
        DONE: nothing is left to do.
        FAILED: something failed that the user could not have prevented.
        BAD_INPUT: what the user gave cannot be used.
        RESTART: a fresh process should continue the work; 75 is `EX_TEMPFAIL` of sysexits.h.
        INTERRUPTED: stopped on request, 128 plus the number of SIGINT as in a shell.
    """

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    RESTART = 75
    INTERRUPTED = 130
