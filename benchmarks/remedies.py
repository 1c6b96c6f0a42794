"""Whether the first remedy of stopped trials helps: each is trained with the same seed.

    python -m benchmarks.remedies --folder FOLDER

The trials are drawn at random from those of the recorded campaigns that the default signals and the
pruner stop. Their diagnosis sees only the epochs up to the stop; what they would have become is
recorded, because nothing was stopped in the campaigns. The first remedy of every clear diagnosis is
trained to the end and compared with that. No remedy and no threshold was chosen by these trainings.
A stopped run continues: every training is a line in FOLDER.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import torch

from benchmarks import report
from benchmarks.campaign import SEEDS, records, study
from benchmarks.report import Figure, Result
from objectives.contract import NoCheckpoints
from objectives.segmentation import train as segmentation
from objectives.segmentation.config import SegmentationConfig
from search.diagnosis.rank_causes import diagnose
from search.planning.plan import make_plan
from search.pruners.signals import find_divergence
from search.replay.backtest import find_all_firings, find_stops
from search.replay.pruner import Stop
from search.replay.ranking import RankedRecording, rank_recording
from spaces.config_tree import ConfigTree
from spaces.loader import load_study
from spaces.recordings import RecordedTrial, read_recording
from spaces.records import score
from spaces.study import PrunerConfig
from spaces.thresholds import SignalsConfig

DRAWN: Mapping[str, int] = {"first": 75, "second": 35}
"""Campaign → how many stopped trials are drawn of it."""

MIN_COUNT = 80
BETTER_SHARE, WORSE_SHARE = 0.8, 0.05

SEED_NOISE = 0.023
"""Standard deviation of the best epoch's mIoU over seeds, of 29 repeated trainings."""

NOISE = math.sqrt(2) * SEED_NOISE
"""The same of the difference of two trainings: a change for the worse up to this is noise."""


@dataclass(frozen=True)
class Case:
    """A stopped trial and its first remedy.

    Attributes:
        seen: number of the epochs up to the stop.
        by: the signal or the pruner.
        before: the score that the trial reached in the campaign, which let it run to the end.
        config: the configuration with the remedy's changes.
    """

    campaign: str
    number: int
    seen: int
    by: str
    cause: str
    confidence: float
    remedy: str
    patch: Mapping[str, Any]
    before: float
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Tried:
    """What a remedy came to."""

    campaign: str
    number: int
    by: str
    cause: str
    confidence: float
    remedy: str
    patch: Mapping[str, Any]
    before: float
    after: float


def find_cases(name: str, count: int, seed: int = 0) -> tuple[list[Case], Counter[str]]:
    """Draw stopped trials of a campaign.

    Returns:
        Those with a clear diagnosis and a remedy that changes the configuration, and how many of
        the others there were, by reason.
    """
    recorded = rank_recording(read_recording(records(name)))
    signals = SignalsConfig()
    firings = find_all_firings(recorded, signals)
    stops = find_stops(recorded, firings, signals, PrunerConfig())
    trials = {trial.number: trial for trial in recorded.trials}
    drawn = Random(seed).sample(sorted(stops), min(count, len(stops)))
    cases: list[Case] = []
    skipped: Counter[str] = Counter()
    for number in drawn:
        found = make_case(name, recorded, trials[number], stops[number])
        if isinstance(found, Case):
            cases.append(found)
        else:
            skipped[found] += 1
    return cases, skipped


def make_case(name: str, recorded: RankedRecording, trial: RecordedTrial, stop: Stop) -> Case | str:
    """The first remedy of a trial's diagnosis; the reason as a text where there is none."""
    plan = make_plan(load_study(str(study(name)), {"seed": SEEDS[name][0]}))
    config = plan.make_config(trial.params, trial.number).model_dump(mode="json")
    seen = trial.epochs[: stop.seen]
    counts = segmentation.count_classes(SegmentationConfig.model_validate(config))
    signaled = find_divergence(seen, SignalsConfig(), recorded.direction)
    evidence = signaled if signaled is not None and signaled.signal == stop.by else None
    found = diagnose(evidence, seen, config, counts)
    if not found.is_clear:
        return "no clear cause"
    remedy = next((each for each in found.remedies if each.patch), None)
    if remedy is None:
        return f"{found.cause}: no change of the configuration"
    changed = ConfigTree(config).overlay(ConfigTree.from_paths(remedy.patch))
    return Case(
        name,
        trial.number,
        stop.seen,
        stop.by,
        found.cause,
        found.confidence,
        remedy.title,
        dict(remedy.patch),
        score(trial.epochs, recorded.recording.study.metric),
        changed.nested,
    )


def train_case(case: Case) -> Tried:
    """Train the configuration with the remedy to its end, without signals and pruner."""
    torch.set_num_threads(1)
    config = SegmentationConfig.model_validate(dict(case.config))
    training = segmentation.train(
        config,
        segmentation.prepare(config, "cpu"),
        segmentation.count_classes(config),
        "cpu",
        NoCheckpoints(),
    )
    after = score(list(training), config.metric)
    shared = {key: value for key, value in asdict(case).items() if key not in ("seen", "config")}
    return Tried(**shared, after=after)


def train_cases(cases: Sequence[Case], folder: Path, workers: int) -> Iterator[Tried]:
    """Train the cases that the folder does not have yet; yield all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tried.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    done = {}
    for line in lines:
        tried = Tried(**json.loads(line))
        done[tried.campaign, tried.number, tried.remedy] = tried
    left = [case for case in cases if (case.campaign, case.number, case.remedy) not in done]
    yield from (
        done[key] for case in cases if (key := (case.campaign, case.number, case.remedy)) in done
    )
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(train_case, case) for case in left]):
            tried = future.result()
            with file.open("a") as output:
                output.write(json.dumps(asdict(tried)) + "\n")
            print(
                f"{tried.campaign} {tried.number}: {tried.cause}; {tried.remedy}:"
                f" {tried.before:.3f} → {tried.after:.3f}",
                flush=True,
            )
            yield tried


def make_result(tried: Sequence[Tried], skipped: Counter[str], *, quick: bool) -> Result:
    """The figures, and a table by cause and remedy."""
    changes = [each.after - each.before for each in tried]
    better = sum(change > 0 for change in changes)
    worse = sum(change < -NOISE for change in changes)
    rows = []
    for cause, remedy in sorted({(each.cause, each.remedy) for each in tried}):
        own = [each for each in tried if (each.cause, each.remedy) == (cause, remedy)]
        gains = [each.after - each.before for each in own]
        rows.append(
            (
                cause,
                remedy,
                str(len(own)),
                str(sum(gain > 0 for gain in gains)),
                str(sum(gain < -NOISE for gain in gains)),
                f"{median(gains):+.3f}",
            )
        )
    head = ("cause", "first remedy", "tried", "better", "worse beyond noise", "median change")
    print(report.table(head, rows), end="\n\n", flush=True)
    figures = [
        Figure("remedies tried", len(tried), "", 1 if quick else MIN_COUNT, at_least=True),
        Figure("better than without it", better / len(tried), "", BETTER_SHARE, at_least=True),
        Figure("worse, beyond the noise of seeds", worse / len(tried), "", WORSE_SHARE),
        Figure("median change of the mIoU", median(changes)),
        Figure("stopped trials drawn without a remedy to train", sum(skipped.values())),
    ]
    details = {"table": rows, "skipped": dict(skipped), "tried": [asdict(each) for each in tried]}
    return Result(figures, details)


def main() -> int:
    """Train, print and store the figures."""
    parser = report.parser(__doc__ or "")
    parser.add_argument("--folder", type=Path, required=True, help="where trainings are kept")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--most", type=int, help="train this many remedies; default: all drawn")
    options = parser.parse_args()
    cases: list[Case] = []
    skipped: Counter[str] = Counter()
    for name, count in DRAWN.items():
        found, without = find_cases(name, 1 if options.quick else count)
        cases += found
        skipped += without
    cases = cases[: options.most]
    print(f"{len(cases)} remedies to train; without one: {dict(skipped)}", flush=True)
    tried = list(train_cases(cases, options.folder, options.workers))
    result = make_result(tried, skipped, quick=options.quick)
    return report.publish("remedies", result, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
