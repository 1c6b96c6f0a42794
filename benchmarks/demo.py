"""The demo as a newcomer runs it: `search run --study focal_gamma` in an empty folder.

With `--readme` it also writes the sample of README.md.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import readme_sample, report
from benchmarks.commands import environment, finish, script, started
from benchmarks.report import Figure, Result
from search.report.models import StudyReport
from search.report.study_report import study_report
from spaces.errors import StoreError
from storage.location import StoreLocation
from storage.store import Store

STUDY = "focal_gamma"
WALL_S, FIRST_EPOCH_S, TRIALS = 300.0, 15.0, 24
FULL = TRIALS * 12
"""Epochs that all trials together would take if each ran to its end."""
TIMEOUT_S = 1800.0
POLL_S = 0.1
SMALL = ("--trials", "4", "--epochs", "2")


def measure(*, quick: bool, readme: bool = False) -> Result:
    """Run the command to its end, and read the store during the run and after it.

    Args:
        quick: run a small study.
        readme: write the sample of README.md.

    Raises:
        SystemExit: when it fails or writes no best.yaml.
    """
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as temporary:
        folder = Path(temporary)
        url = f"sqlite:///{folder / 'search.db'}"
        command = [script("search"), "run", "--study", STUDY, *(SMALL if quick else ())]
        began = time.monotonic()
        with started(command, folder, environment(XDG_CACHE_HOME=str(folder / "cache"))) as process:
            first_epoch_s = wait_for_epoch(process, folder, url, began)
            finish(process, folder, TIMEOUT_S - (time.monotonic() - began))
        wall_s = time.monotonic() - began
        if not (folder / "best.yaml").exists():
            raise SystemExit("the search ended without a best.yaml")
        with StoreLocation.parse(url).open(create=False) as store:
            found = study_report(store, STUDY)
    if readme:
        readme_sample.write_sample(found)
    return make_result(found, wall_s, first_epoch_s)


def wait_for_epoch(process: subprocess.Popen[bytes], folder: Path, url: str, began: float) -> float:
    """Wait until the first epoch is in the store, and return the seconds since `began`.

    Raises:
        SystemExit: when the process ends before.
    """
    while not (folder / "search.db").exists():
        _wait_for_poll(process, folder, began)
    while True:
        try:
            with StoreLocation.parse(url).open(create=False) as store:
                while not has_epoch(store):
                    _wait_for_poll(process, folder, began)
                return time.monotonic() - began
        except StoreError:  # its tables are being created
            _wait_for_poll(process, folder, began)


def has_epoch(store: Store) -> bool:
    """Check whether a trial of the study has stored an epoch."""
    stored = store.studies.find_study(STUDY)
    return stored is not None and any(row.epochs for row in store.trials.list_progress(stored.id))


def _wait_for_poll(process: subprocess.Popen[bytes], folder: Path, began: float) -> None:
    if process.poll() is not None or time.monotonic() - began > TIMEOUT_S:
        finish(process, folder, 0.1)
        raise SystemExit("the search ended without an epoch")
    time.sleep(POLL_S)


def make_result(found: StudyReport, wall_s: float, first_epoch_s: float) -> Result:
    """Make the figures of the demo."""
    states = dict(found.states)
    killed = states["pruned"] + states["diverged"]
    figures = [
        Figure("wall time to the end", wall_s, "s", WALL_S),
        Figure("first epoch in the store", first_epoch_s, "s", FIRST_EPOCH_S),
        Figure(
            "trials that began", sum(states.values()) - states["left"], bound=TRIALS, at_least=True
        ),
        Figure("trials completed", states["complete"]),
        Figure("trials paused", states["paused"]),
        Figure("trials killed", killed),
        Figure("epochs trained", found.trained_epochs, peer="all trials complete", peer_found=FULL),
        Figure("trials failed", states["failed"], bound=0),
        *(Figure(f"ended by: {cause}", count) for cause, count in found.causes.items()),
    ]
    best = found.leaderboard[0] if found.leaderboard else None
    kills = [
        {
            "trial": kill.number,
            "state": kill.state,
            "signal": kill.signal,
            "epoch": kill.epoch,
            "cause": kill.cause,
        }
        for kill in found.kills
    ]
    return Result(
        figures,
        {
            "states": states,
            "kills": kills,
            "best_score": best.score if best else None,
            "best_test": best.test if best else None,
        },
    )


def main() -> int:
    """Run the demo and print its figures."""
    parser = report.parser(__doc__ or "")
    parser.add_argument(
        "--readme", action="store_true", help="write the sample of README.md after the run"
    )
    options = parser.parse_args()
    if options.readme and options.quick:
        parser.error("--readme needs the whole demo, without --quick")
    result = measure(quick=options.quick, readme=options.readme)
    return report.publish("demo", result, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
