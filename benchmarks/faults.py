"""Planted faults, and whether the diagnosis names them first: `python -m benchmarks.faults`.

Each kind of fault is trained on the embedded data with many seeds, judged after every epoch by the
default signals as a worker would, and diagnosed where it was killed, or at its end. Presets without
a fault are trained beside them: no signal may kill one. The thresholds of the diagnosis were set
with other seeds (those from 100 on).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks import report
from benchmarks.report import Figure, Result
from objectives.contract import NoCheckpoints
from objectives.data.build import SceneSplit
from objectives.data.loading import SegmentationData, _EpochOrder
from objectives.segmentation import train as segmentation
from objectives.segmentation.config import SegmentationConfig
from search.diagnosis.rank_causes import diagnose
from search.pruners.verdict import judge
from spaces.config_tree import ConfigTree
from spaces.loader import load_study
from spaces.presets import make_preset
from spaces.records import EpochRecord

EPOCHS = 16
SEEDS, QUICK_SEEDS = 20, 1
HEALTHY_SEEDS, QUICK_HEALTHY_SEEDS = 60, 2
TO_REACH = 0.85
PRESETS = ("recommended", "safe", "progressive")
BASE = {
    "epochs": EPOCHS,
    "data": {"train_scenes": 96, "val_scenes": 48, "test_scenes": 8, "size": 40},
    "schedule": {"lr": "cosine"},
}

SPOILT = 11
"""The image with a NaN in it."""

CE_ONLY = {"loss.ce_weight": 1.0, "loss.dice_weight": 0.0}
DICE_ONLY = {
    "loss.ce_weight": 0.0,
    "loss.dice_weight": 1.0,
    "loss.square_denominator": False,
    "optimizer.grad_clip_norm": None,
}
UNIFORM = {"weights.method": "uniform", "weights.clip_ratio": None}
EXTREME = {"weights.method": "inverse_freq", "weights.clip_ratio": None}
FOCAL = {"loss.kind": "focal", "loss.gamma": 2.0}

Spoil = Callable[[SegmentationData, int], SegmentationData]
"""The data before an epoch (counted from 1), from the data as they were."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault: the expected cause, and changes of the configuration and data."""

    cause: str
    changes: Mapping[str, Any]
    spoil: Spoil | None = None


def nan_in_an_image(data: SegmentationData, epoch: int) -> SegmentationData:
    """One pixel of one training image is NaN."""
    images_NCHW = data.train.images_NCHW.clone()  # type: ignore[attr-defined]
    images_NCHW[SPOILT, 0, 5, 5] = torch.nan
    return replace(data, train=_split(images_NCHW, data.train.target_NHW))  # type: ignore[attr-defined]


def eight_images(data: SegmentationData, epoch: int) -> SegmentationData:
    """Only the first eight training scenes are left."""
    return replace(data, train=_split(data.train.images_NCHW[:8], data.train.target_NHW[:8]))  # type: ignore[attr-defined]


def masks_break(data: SegmentationData, epoch: int) -> SegmentationData:
    """From half of the training on, every training mask is shifted against its image."""
    target_NHW = data.train.target_NHW  # type: ignore[attr-defined]
    if epoch > EPOCHS // 2:
        shifted_NHW = torch.roll(target_NHW, (13, 13), (1, 2))
        target_NHW = torch.where(
            (target_NHW == data.ignore_index) | (shifted_NHW == data.ignore_index),
            data.ignore_index,
            shifted_NHW,
        )
    return replace(data, train=_split(data.train.images_NCHW, target_NHW))  # type: ignore[attr-defined]


def _split(images_NCHW: torch.Tensor, target_NHW: torch.Tensor) -> SceneSplit:
    made = SceneSplit.__new__(SceneSplit)
    made.images_NCHW, made.target_NHW = images_NCHW, target_NHW
    return made


FAULTS = {
    "rate × 100": Fault("learning rate too high", {"optimizer.lr_multiple": 30.0}),
    "rate × 330": Fault("learning rate too high", {"optimizer.lr_multiple": 100.0}),
    "rate × 100, not clipped": Fault(
        "learning rate too high", {"optimizer.lr_multiple": 30.0, "optimizer.grad_clip_norm": None}
    ),
    "inverse frequency, not clipped": Fault("extreme class weights", EXTREME),
    "the same, cross entropy alone": Fault(
        "extreme class weights", {**EXTREME, **CE_ONLY, "optimizer.lr_multiple": 1.0}
    ),
    "Dice alone, no clipping": Fault(
        "Dice unstable early",
        {**DICE_ONLY, "loss.smooth": 1.0, "optimizer.lr_multiple": 1.0, "batch_size": 4},
    ),
    "smooth near 0": Fault(
        "Dice unstable early",
        {**DICE_ONLY, "loss.ce_weight": 0.1, "loss.dice_weight": 0.9, "loss.smooth": 1e-8},
    ),
    "alpha 0 for a class": Fault(
        "alpha wrong for a class", {**FOCAL, **CE_ONLY, "loss.alpha": [1, 1, 1, 0, 1, 1, 1]}
    ),
    "masks break half-way": Fault("labels broken", {}, masks_break),
    "eight images": Fault(
        "too little regularization", {"optimizer.lr_multiple": 1.0}, eight_images
    ),
    "NaN in an image": Fault("inputs not finite", {}, nan_in_an_image),
    "alpha 200": Fault(
        "loss scale changed",
        {**FOCAL, "loss.gamma": 0.0, "loss.alpha": 200.0, "optimizer.grad_clip_norm": None},
    ),
    "alpha 0.0001": Fault(
        "loss scale changed",
        {
            **FOCAL,
            **CE_ONLY,
            "loss.gamma": 0.0,
            "loss.alpha": 1e-4,
            "optimizer.grad_clip_norm": None,
        },
    ),
    "a steep tail, unweighted": Fault(
        "imbalance too strong", {**UNIFORM, **CE_ONLY, "data.tail": 0.3}
    ),
    "a warm-up without end": Fault(
        "Dice too late",
        {
            **UNIFORM,
            "loss.ce_weight": 0.4,
            "loss.dice_weight": 0.6,
            "schedule.dice_ce_only_epochs": EPOCHS,
        },
    ),
    "rate × 0.001": Fault("learning rate too low", {"optimizer.lr_multiple": 3e-4}),
    "clip norm 0.001": Fault("gradient clipped away", {"optimizer.grad_clip_norm": 1e-3}),
    "gamma 12": Fault("focusing too strong", {**FOCAL, **CE_ONLY, "loss.gamma": 12.0}),
    "weight decay 0.3": Fault("weight decay too strong", {"optimizer.weight_decay": 0.3}),
}


@dataclass(frozen=True)
class Outcome:
    """One trial: the signal that killed it (nothing when none did), when, and the diagnosis."""

    kind: str
    seed: int
    signal: str
    epoch: int
    step: int | None
    cause: str
    confidence: float


def trial(kind: str, seed: int) -> Outcome:
    """Train one trial as a worker would."""
    torch.set_num_threads(1)
    fault = FAULTS.get(kind, Fault("", {}))
    preset = make_preset(kind if kind in PRESETS else "recommended", EPOCHS)
    changes = ConfigTree.from_paths({**fault.changes, "seed": seed})
    tree = ConfigTree(BASE).overlay(ConfigTree(preset)).overlay(changes)
    config = SegmentationConfig.model_validate(tree.nested)
    spec = load_study("focal_gamma", {"epochs": EPOCHS})
    counts, records, verdict = segmentation.count_classes(config), [], None
    for record in epochs(config, fault.spoil):
        records.append(record)
        verdict = judge(records, spec, lambda: None)
        if verdict.action != "continue":
            break
    evidence = None if verdict is None else verdict.evidence
    found = diagnose(evidence, records, config.model_dump(mode="json"), counts)
    signal = "" if evidence is None else evidence.signal
    return Outcome(
        kind,
        seed,
        signal,
        records[-1].epoch,
        records[-1].broken_step,
        found.cause,
        found.confidence,
    )


def epochs(config: SegmentationConfig, spoil: Spoil | None) -> Iterator[EpochRecord]:
    """The records of a training whose data a fault may change between epochs."""
    clean = segmentation.prepare(config, "cpu")
    data = clean if spoil is None else spoil(clean, 1)
    for record in segmentation.train(
        config, data, segmentation.count_classes(config), "cpu", NoCheckpoints()
    ):
        yield record
        if spoil is not None and isinstance(data.train, SceneSplit):
            data.train.target_NHW = spoil(clean, record.epoch + 1).train.target_NHW  # type: ignore[attr-defined]


def measure(*, quick: bool, seeds: range, workers: int) -> Result:
    """Every kind with every seed, and the presets."""
    jobs = [(kind, seed) for kind in FAULTS for seed in seeds]
    healthy = range(seeds.start, seeds.start + (QUICK_HEALTHY_SEEDS if quick else HEALTHY_SEEDS))
    jobs += [
        (PRESETS[seed % len(PRESETS)], seed) for seed in healthy
    ]  # the seeds are dealt out round the presets
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        outcomes = list(pool.map(trial, *zip(*jobs, strict=True), chunksize=4))
    return make_result(outcomes)


def make_result(outcomes: list[Outcome]) -> Result:
    """The table of confusions, and the figures."""
    rows = []
    named = total = 0
    for kind, fault in FAULTS.items():
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        causes, signals = (
            Counter(outcome.cause for outcome in own),
            Counter(outcome.signal or "none" for outcome in own),
        )
        hits = causes.pop(fault.cause, 0)
        named, total = named + hits, total + len(own)
        missed = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
        rows.append(
            (
                kind,
                fault.cause,
                f"{hits} of {len(own)}",
                missed,
                ", ".join(f"{signal} {count}" for signal, count in signals.most_common()),
            )
        )
    print(
        report.table(("planted", "cause", "named first", "named instead", "killed by"), rows),
        end="\n\n",
        flush=True,
    )
    killed = [outcome for outcome in outcomes if outcome.kind in PRESETS and outcome.signal]
    healthy = sum(outcome.kind in PRESETS for outcome in outcomes)
    for outcome in killed:
        print(f"a healthy trial was killed: {outcome}")
    poisoned = [outcome for outcome in outcomes if outcome.kind == "NaN in an image"]
    figures = [
        Figure("kinds of planted faults", len(FAULTS), "", 12, at_least=True),
        Figure(
            "trials whose planted cause is named first", named / total, "", TO_REACH, at_least=True
        ),
        Figure("trials with a planted fault", total),
        Figure(f"healthy trials of {healthy} killed by a signal", len(killed), "", 0),
        Figure(
            "steps from a planted NaN to the kill, at most",
            max((_late(outcome) for outcome in poisoned), default=0),
            "",
            10,
        ),
    ]
    details = {
        "table": rows,
        "outcomes": [
            [o.kind, o.seed, o.signal, o.epoch, o.step, o.cause, round(o.confidence, 3)]
            for o in outcomes
        ],
    }
    return Result(figures, details)


def _late(outcome: Outcome) -> float:
    """Optimizer steps from the batch with the NaN, in the first epoch, to the end of the trial."""
    if outcome.epoch != 1 or outcome.step is None:
        return 1e6
    order = _EpochOrder(BASE["data"]["train_scenes"], 8, outcome.seed)  # type: ignore[index]
    order.epoch = 1
    first_bad_step = next(
        step for step, keys in enumerate(order, 1) if any(index == SPOILT for index, _ in keys)
    )
    return outcome.step - first_bad_step


def main() -> int:
    """Measure, print and store the figures."""
    parser = report.parser(__doc__ or "")
    parser.add_argument("--seeds", type=int, help=f"seeds a kind; default {SEEDS}")
    parser.add_argument("--from", dest="start", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    count = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    seeds = range(options.start, options.start + count)
    return report.publish(
        "faults",
        measure(quick=options.quick, seeds=seeds, workers=options.workers),
        quick=options.quick,
    )


if __name__ == "__main__":
    sys.exit(main())
