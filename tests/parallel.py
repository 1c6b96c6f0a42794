"""How pytest-xdist shares the tests between processes (`-n 2 --dist loadgroup --no-loadscope-reorder`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = ("finished", "kills", "runs")
"""Fixtures that take long, and that tests of several files use: all of those run in one process."""

PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "")
"""The name of this process, `gw0` for the first one; empty where pytest runs in one process."""


def share_cores() -> None:
    """Keep this process, and all that it starts, to its share of the cores.

    A training then has as many threads as cores, and no thread waits for one that has no core.
    """
    if not PROCESS or not hasattr(os, "sched_setaffinity"):
        return
    processes = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    own = sorted(os.sched_getaffinity(0))[int(PROCESS.removeprefix("gw")) :: processes]
    if own:
        os.sched_setaffinity(0, own)


def group_tests(items: list[pytest.Item]) -> None:
    """Have the tests of a file, and those that use one of the shared fixtures, run in one process.

    The groups begin in the order in which they were collected: acceptance tests, of which each takes seconds, before
    unit tests, so that all processes end at about the same time.
    """
    if not PROCESS:
        return
    groups = [_group(item) for item in items]
    order = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    for item, name in zip(items, groups, strict=True):
        item.add_marker(pytest.mark.xdist_group(name))
    grouped = sorted(zip(items, groups, strict=True), key=lambda pair: order[pair[1]])
    items[:] = [item for item, _ in grouped]


def _group(item: pytest.Item) -> str:
    """The shared fixture that a test uses, else its file."""
    used = getattr(item, "fixturenames", ())
    file = Path(item.location[0])
    return next((name for name in SHARED if name in used), f"{file.parent.name}/{file.stem}")
