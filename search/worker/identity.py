"""What a worker is called in the store."""

from __future__ import annotations

import socket
from pathlib import Path

FIRST_NAMESPACE = "pid:[4026531836]"
"""What Linux calls the numbers of processes that a machine has outside of any container."""


def worker_name(pid: int) -> str:
    """What a worker process of this machine is called in the store.

    Containers that share the name of their host count their processes by themselves, each from 1: then the name tells whose
    number it is.
    """
    try:
        counted_by = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        counted_by = FIRST_NAMESPACE
    inner = (
        "" if counted_by == FIRST_NAMESPACE else f":{counted_by.removeprefix('pid:').strip('[]')}"
    )
    return f"{socket.gethostname()}:{pid}{inner}"
