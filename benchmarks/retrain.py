"""Whether `search train` gives the recorded score of an exported trial again, to the last bit.

A short study is run by the real command; then trials of it are exported and trained again by the
real commands, too.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.commands import environment, run, script
from benchmarks.report import Figure, Result
from search.report.study_report import study_report
from storage.location import StoreLocation

STUDY = "focal_gamma"
SHORT, QUICK_SHORT = ("--trials", "6", "--epochs", "4"), ("--trials", "4", "--epochs", "1")
RETRAINED, QUICK_RETRAINED = 3, 1
TIMEOUT_S = 300.0
SAID = re.compile(r"recorded (?P<recorded>[-+.\deE]+), trained (?P<trained>[-+.\deE]+)[,:]")


def measure(*, quick: bool) -> Result:
    """Train the best trials again, the first by the file that the search itself wrote."""
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as temporary:
        folder = Path(temporary)
        run(
            [script("search"), "run", "--study", STUDY, *(QUICK_SHORT if quick else SHORT)],
            folder,
            environment(),
            TIMEOUT_S,
        )
        with StoreLocation.parse(f"sqlite:///{folder / 'search.db'}").open(create=False) as store:
            best = [row.number for row in study_report(store, STUDY).leaderboard][
                : QUICK_RETRAINED if quick else RETRAINED
            ]
        if not best:
            raise SystemExit(
                "no trial of the study is complete, so there is nothing to train again"
            )
        scores = {number: train_again(folder, number, first=number == best[0]) for number in best}
    equal = sum(recorded == trained for recorded, trained in scores.values())
    largest = max(abs(recorded - trained) for recorded, trained in scores.values())
    figures = [
        Figure(
            "trials trained again with the recorded score, to the last bit",
            equal,
            f"of {len(scores)}",
            len(scores),
            at_least=True,
        ),
        Figure("largest difference", largest, "", 0.0),
    ]
    rows = [
        {"trial": number, "recorded": recorded, "trained": trained}
        for number, (recorded, trained) in scores.items()
    ]
    print(
        report.table(
            ("trial", "recorded", "trained"),
            [(str(row["trial"]), repr(row["recorded"]), repr(row["trained"])) for row in rows],
        ),
        end="\n\n",
    )
    return Result(figures, {"scores": rows})


def train_again(folder: Path, number: int, *, first: bool) -> tuple[float, float]:
    """The recorded score of a trial, and the one of today.

    Raises:
        SystemExit: when the command does not say them.
    """
    own = folder / f"trial-{number}"
    own.mkdir()
    file = folder / "best.yaml"
    if not first:
        file = own / "trial.yaml"
        run(
            [
                script("search"),
                "export",
                "--study",
                STUDY,
                "--trial",
                str(number),
                "--out",
                str(file),
            ],
            folder,
            environment(),
            TIMEOUT_S,
        )
    said = SAID.search(run([script("search"), "train", str(file)], own, environment(), TIMEOUT_S))
    if said is None:
        raise SystemExit("`search train` did not say the recorded and the trained score")
    return float(said["recorded"]), float(said["trained"])


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("retrain", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
