"""One error for running out of memory, which CUDA and CPU allocators word differently."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spaces.errors import OutOfMemoryError

PHRASES = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "status_alloc_failed",
    "bad_alloc",
    "not enough memory",
)
"""Phrases of CUDA, its libraries, torch's CPU allocator and the system, in lower case.

An error that a data loading process raised arrives as its text alone.
"""

_REQUESTED = re.compile(r"tried to allocate ([\d.]+ ?(?:bytes|[KMGT]iB))", re.IGNORECASE)


@contextmanager
def translate_out_of_memory(device: str) -> Iterator[None]:
    """Raise every error for a lack of memory within the block, on device or host, as one error.

    Raises:
        OutOfMemoryError: with the size that was requested, if that is known.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as problem:
        if not _is_out_of_memory(problem):
            raise
        requested = _REQUESTED.search(str(problem))
        raise OutOfMemoryError(
            device, _shorten_size(requested[1]) if requested else ""
        ) from problem


def _is_out_of_memory(problem: Exception) -> bool:
    if isinstance(problem, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(problem).lower()
    return any(phrase in text for phrase in PHRASES)


def _shorten_size(size: str) -> str:
    """Write `1234567890 bytes` as `1.1 GiB`."""
    number, unit = re.split(r"(?<=\d) ?(?=[a-zA-Z])", size, maxsplit=1)
    if unit.lower() != "bytes":
        return f"{number} {unit}"
    amount = float(number)
    for name in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.3g} {name}"
        amount /= 1024
    return f"{amount:.3g} TiB"
