"""The memory of a worker after 5 and after 200 trials, and whether it grows.

A real `search worker` process runs one-epoch trials of the shipped model over few scenes; its
resident memory is read the moment a trial's end is in the store.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import report
from benchmarks.commands import ONE_THREAD, environment, finish, script, started
from benchmarks.report import Figure, Result
from search.session import open_session
from spaces.loader import load_study
from storage.location import StoreLocation
from storage.rows import FINAL_STATES
from storage.store import Store

BOUND_GIB, BOUND_GROWTH = 1.2, 5.0
EARLY, LATE, QUICK_LATE = 5, 200, 8
SPARE = 2
"""Trials after the last one that is looked at, for the process ends with its last trial."""

DEADLINE_S = 600.0
POLL_S = 0.02
GIB = 2**30
FEW_SCENES = {"base.data.train_scenes": 16, "base.data.val_scenes": 8, "base.data.test_scenes": 8}


def measure(*, quick: bool) -> Result:
    """Run one worker through all of its trials.

    Raises:
        SystemExit: when the worker fails, or ends before the late trial.
    """
    late = QUICK_LATE if quick else LATE
    spec = load_study("focal_gamma", {"epochs": 1, "trials": late + SPARE, **FEW_SCENES})
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as temporary:
        folder = Path(temporary)
        url = f"sqlite:///{folder / 'search.db'}"
        session = open_session(spec, StoreLocation.parse(url))
        command = [
            script("search"),
            "worker",
            "--study",
            spec.name,
            "--device",
            "cpu",
            "--threads",
            "1",
        ]
        with (
            session.store as store,
            started(command, folder, environment(SEARCH_STORE=url, **ONE_THREAD)) as worker,
        ):
            resident_gib = watch(worker, store, session.stored.id, late)
            finish(worker, folder, DEADLINE_S)
    if max(resident_gib, default=0) < late:
        raise SystemExit(
            f"the worker was looked at after trials {sorted(resident_gib)}, and not after {late}"
        )
    early, late = (
        min(number for number in resident_gib if number >= wanted) for wanted in (EARLY, late)
    )
    growth = 100 * (resident_gib[late] / resident_gib[early] - 1)
    figures = [
        Figure(f"resident after trial {early}", resident_gib[early], "GiB", BOUND_GIB),
        Figure(
            f"resident after trial {late}",
            resident_gib[late],
            "GiB",
            BOUND_GIB,
            peer=f"after trial {early}",
            peer_found=resident_gib[early],
        ),
        Figure("largest value seen", max(resident_gib.values()), "GiB", BOUND_GIB),
        Figure(f"growth from trial {early} to {late}", growth, "%", BOUND_GROWTH),
    ]
    return Result(figures, {"resident_gib_after_trial": resident_gib})


def watch(
    worker: subprocess.Popen[bytes], store: Store, study_id: int, late: int
) -> dict[int, float]:
    """Trials ended → resident memory in GiB, read at once after each."""
    process, found = psutil.Process(worker.pid), dict[int, float]()
    deadline = time.monotonic() + DEADLINE_S
    while worker.poll() is None and time.monotonic() < deadline and max(found, default=0) < late:
        tally = store.trials.count_by_state(study_id)
        ended = sum(tally.get(state, 0) for state in FINAL_STATES)
        if ended and ended not in found:
            found[ended] = process.memory_info().rss / GIB
        time.sleep(POLL_S)
    return found


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("memory", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
