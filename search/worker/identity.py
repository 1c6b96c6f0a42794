"""The name of a worker in the store."""

from __future__ import annotations

import socket
from pathlib import Path

FIRST_NAMESPACE = "pid:[4026531836]"
"""Linux's name for the process ids of a machine outside of any container."""


def worker_name(pid: int) -> str:
    """The name in the store of a worker process on this machine.

    Containers that share the name of their host number their processes separately, each from 1.
    The name then contains the container's namespace, so that it is unique.
    """
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        namespace = FIRST_NAMESPACE
    name = f"{socket.gethostname()}:{pid}"
    if namespace == FIRST_NAMESPACE:
        return name
    return f"{name}:{namespace.removeprefix('pid:').strip('[]')}"
