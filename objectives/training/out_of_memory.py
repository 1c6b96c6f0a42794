"""The many words for a device without memory, as one error. A GPU's allocator has an error of its own, a CPU's has not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spaces.errors import OutOfMemoryError

WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "status_alloc_failed",
    "bad_alloc",
    "not enough memory",
)
"""Of CUDA, its libraries, torch's CPU allocator and the system, in small letters; a decoding process hands on its words alone."""

_ASKED = re.compile(r"tried to allocate ([\d.]+ ?(?:bytes|[KMGT]iB))", re.IGNORECASE)


@contextmanager
def memory_told(device: str) -> Iterator[None]:
    """A block in which a lack of memory, on the device or on the host, is raised as one error.

    Raises:
        OutOfMemoryError: with what was asked for, where that is known.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as problem:
        if not _is_lack(problem):
            raise
        asked = _ASKED.search(str(problem))
        raise OutOfMemoryError(device, _short(asked[1]) if asked else "") from problem


def _is_lack(problem: Exception) -> bool:
    if isinstance(problem, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = str(problem).lower()
    return any(each in words for each in WORDS)


def _short(asked: str) -> str:
    """`1234567890 bytes` as `1.1 GiB`."""
    number, unit = re.split(r"(?<=\d) ?(?=[a-zA-Z])", asked, maxsplit=1)
    if unit.lower() != "bytes":
        return f"{number} {unit}"
    size = float(number)
    for name in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {name}"
        size /= 1024
    return f"{size:.3g} TiB"
