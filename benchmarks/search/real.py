"""A real search on real images: `python -m benchmarks.search.real camvid --root CAMVID --folder F`.

TPE with the median pruner, the default until now, and the default get the same budget in epochs on
reduced images, with several seeds. Compared is the mIoU of what each would export on the test
split, which decided nothing. What ships with the package was learned from the same images, so the
search gets a file without them. Finished searches are kept, and the same command continues.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.campaign import study
from benchmarks.campaign.real_images import reduce_images
from benchmarks.commands import environment, script
from benchmarks.report import Figure, Result, parser, publish
from benchmarks.search.knowledge import fit_without
from search.sampling.freeze_thaw.prior import save_knowledge

EPOCHS = 30
TEST_PAIRS = 50
KINDS = {"tpe": "median", "auto": "median"}
PRESETS = "[recommended, untuned, safe, progressive]"


def run_search(name: str, folder: Path, kind: str, seed: int, trainings: int) -> dict[str, Any]:
    """Run one search with a worker, and return what `search show` says."""
    own = f"{name}-{kind}-{seed}"
    changes = [
        f"sampler.kind={kind}",
        "sampler.startup_trials=8",
        f"sampler.knowledge={folder / 'knowledge.json'}",
        f"pruner.kind={KINDS[kind]}",
        f"presets={PRESETS}",
    ]
    options = [item for change in changes for item in ("--set", change)]
    budget = ["--epochs-budget", str(trainings * EPOCHS), "--trials", str(10 * trainings)]
    command = [script("search"), "run", "--study", str(study(name)), "--name", own]
    subprocess.run(
        [*command, "--seed", str(seed), "--workers", "1", "--devices", "cpu", *budget, *options],
        cwd=folder,
        env=environment(),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shown = subprocess.run(
        [script("search"), "show", "--study", own, "--json"],
        cwd=folder,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def find_pick(report: dict[str, Any]) -> dict[str, Any]:
    """The row of what would be exported: the likely best where the search has a model."""
    likely = (report.get("search") or {}).get("likely_best")
    rows: list[dict[str, Any]] = report["leaderboard"]
    return next((row for row in rows if row["number"] == likely), rows[0])


def compare(name: str, folder: Path, seeds: int, trainings: int) -> Result:
    """Run all searches and compare the test scores of their picks."""
    details: dict[str, Any] = {}
    tests: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for seed in range(seeds):
        for kind in KINDS:
            report = run_search(name, folder, kind, seed, trainings)
            row = find_pick(report)
            tests[kind].append(row["test"])
            details[f"{kind}, seed {seed}"] = {
                "trial": row["number"],
                "validation": row["score"],
                "test": row["test"],
                "epochs": report["trained_epochs"],
                "trials": sum(
                    report["states"][state] for state in ("complete", "pruned", "paused")
                ),
            }
            print(kind, seed, details[f"{kind}, seed {seed}"], flush=True)
    means = {kind: statistics.mean(found) for kind, found in tests.items()}
    figures = [
        Figure(
            f"{name}: mean test mIoU of the pick, {trainings} full trainings, {seeds} seeds",
            means["auto"],
            bound=means["tpe"],
            at_least=True,
            peer="TPE + median",
            peer_found=means["tpe"],
        )
    ]
    return Result(figures, details)


def main() -> int:
    """Measure, print and write."""
    made = parser(str(__doc__))
    made.add_argument("name", choices=("camvid", "nuclei"))
    made.add_argument("--root", type=Path, required=True, help="the data set")
    made.add_argument("--folder", type=Path, required=True, help="for images and the store")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--trainings", type=int, default=12)
    options = made.parse_args()
    folder = options.folder.absolute()
    reduce_images(options.name, options.root, folder / "images", {"test": TEST_PAIRS})
    save_knowledge(fit_without(options.name), folder / "knowledge.json")
    result = compare(options.name, folder, options.seeds, options.trainings)
    return publish(f"search_real_{options.name}", result, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
