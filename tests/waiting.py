"""Waiting for events: a test never assumes how fast the machine is, and one that waits in vain says for what."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 300.0
"""No event here takes more than a few seconds of an idle machine; this is for a busy one."""


def until(condition: Callable[[], bool], what: str, limit_s: float = PATIENCE_S) -> None:
    """Wait for something that is sure to come."""
    deadline = time.monotonic() + limit_s
    pause_s = 0.001
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain until {what}"
        time.sleep(pause_s)
        pause_s = min(0.1, 1.5 * pause_s)
