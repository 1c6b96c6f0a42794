"""How pytest-xdist shares the tests between processes, as in `python -m pytest tests -n 2`."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

FINISHED = ("backtest", "bad_input", "missing_driver", "run", "store_commands")
RUNS = ("dashboard", "postgresql", "wandb")
TOGETHER = {f"tests/acceptance/test_{name}.py": "finished" for name in FINISHED} | {
    f"tests/integration/test_{name}.py": "runs" for name in RUNS
}
"""File → the fixture that it shares with others: as that takes long, all of them run in one process."""

PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "")
"""The name of this process, `gw0` for the first one; empty where pytest runs in one process."""


class FileScheduling(LoadScopeScheduling):
    """Gives each process a file at a time, or the files that share a fixture.

    They begin in the order in which pytest finds them: acceptance tests, of which many take seconds, before unit tests,
    so that all processes end at about the same time.
    """

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return TOGETHER.get(file, file)


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


def check_files(items: Iterable[pytest.Item]) -> None:
    """Check that `TOGETHER` names every file whose tests use one of its fixtures.

    Raises:
        pytest.UsageError: when one is missing.
    """
    for item in items:
        file = item.nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        shared = {fixture for path, fixture in TOGETHER.items() if path.startswith(f"{folder}/")}
        used = shared & set(getattr(item, "fixturenames", ()))
        if used and file not in TOGETHER:
            raise pytest.UsageError(f"name {file} in tests/parallel.py: it uses {', '.join(used)}")
