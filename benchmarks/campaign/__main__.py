"""Runs a campaign and exports its records: `python -m benchmarks.campaign first --folder FOLDER`.

It is an ordinary `search run` in that folder, for each of the campaign's seeds: Ctrl-C stops it,
and the same command resumes it. Further options are passed to it, such as `--trials 12 --epochs 8`
for a small campaign. The campaigns on real images read them from the folder given by `--root`:

    python -m benchmarks.campaign camvid --folder FOLDER --root CAMVID
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.campaign import SEEDS, records, study
from benchmarks.campaign.real_images import REDUCTIONS, reduce_images
from benchmarks.commands import environment, script
from search.replay.source import study_recording
from spaces.recordings import Recording, read_recording, write_recording
from storage.location import StoreLocation

MAX_MIB = 5.0
"""Of a file that is to be committed."""


def run(name: str, folder: Path, seeds: Sequence[int], more: list[str]) -> int:
    """Run the campaign in the folder to its end; the exit code of the last `search run`."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        command = [
            script("search"),
            "run",
            "--study",
            str(study(name)),
            "--name",
            f"{name}-{seed}",
            "--seed",
            str(seed),
        ]
        code = _wait(
            subprocess.Popen(
                [*command, "--devices", "cpu", "--store", "search.db", *more],
                cwd=folder,
                env=environment(),
            )
        )
        if code:
            return code
    return 0


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Ctrl-C is the command's own business, which finishes its epochs first."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def export(
    name: str, folder: Path, seeds: Sequence[int], before: Recording | None = None
) -> Recording:
    """Read the campaign from the folder's store; trials are numbered across its studies.

    Args:
        name: of the campaign.
        folder: with the store.
        seeds: of its studies.
        before: recorded earlier, with other seeds; its trials come first.

    Raises:
        StoreError: when the store has no such study.
    """
    with StoreLocation.parse(f"sqlite:///{folder / 'search.db'}").open(create=False) as store:
        parts = [study_recording(store, f"{name}-{seed}") for seed in seeds]
    parts = parts if before is None else [before, *parts]
    trials = [trial for part in parts for trial in part.trials]
    numbered = (
        trials
        if len(parts) == 1
        else [replace(trial, number=number) for number, trial in enumerate(trials)]
    )
    return Recording(parts[0].study.model_copy(update={"name": name}), tuple(numbered))


def main() -> int:
    """Run and export; the exit code of the run."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("name", choices=list(SEEDS))
    made.add_argument("--folder", type=Path, required=True, help="where the store is, or will be")
    made.add_argument("--root", type=Path, help="the data set, of camvid and nuclei")
    made.add_argument(
        "--out", type=Path, help="where the records go; default: benchmarks/campaign/NAME.jsonl.gz"
    )
    made.add_argument("--export", action="store_true", help="run nothing, export what is there")
    made.add_argument(
        "--seeds", type=int, nargs="+", help="only these studies; default: all of the campaign"
    )
    made.add_argument(
        "--append", action="store_true", help="keep the trials that the file has already"
    )
    options, more = made.parse_known_args()
    if options.root is not None and options.name in REDUCTIONS:
        reduce_images(options.name, options.root, options.folder / "images")
    seeds = options.seeds or SEEDS[options.name]
    code = 0 if options.export else run(options.name, options.folder, seeds, more)
    if code:
        return code
    out = options.out or records(options.name)
    before = read_recording(out) if options.append else None
    recording = export(options.name, options.folder, seeds, before)
    write_recording(out, recording)
    size_mib = out.stat().st_size / 2**20
    epochs = sum(len(trial.epochs) for trial in recording.trials)
    counts = f"{len(recording.trials)} trials, {epochs} epochs"
    print(f"{counts}, {size_mib:.2f} MiB written to {out.name}")
    return int(size_mib > MAX_MIB)


if __name__ == "__main__":
    sys.exit(main())
