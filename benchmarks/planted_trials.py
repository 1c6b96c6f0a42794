"""Train the trials of `benchmarks.faults`, keep their records in a file, and diagnose them.

Every trial trains to its end, whatever a signal would say, and its records are appended to a file.
So a run that was interrupted continues, and signals and diagnosis can change without training
again. A line counts only for the configuration that it was trained with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.planted import BASE, EPOCHS, FAULTS, MODELS, Fault, Spoil
from objectives.contract import NoCheckpoints
from objectives.data.build import SceneSplit
from objectives.data.loading import SegmentationData
from objectives.segmentation import train as segmentation
from objectives.segmentation.config import SegmentationConfig
from objectives.segmentation.train import Run
from objectives.training.loop import run_training
from search.pruners.verdict import judge
from spaces.config_tree import ConfigTree
from spaces.loader import load_study
from spaces.presets import make_preset
from spaces.records import ClassCounts, EpochRecord, Evidence
from spaces.thresholds import SignalsConfig

DEFAULT_FILE = Path(__file__).parents[1] / ".cache" / "planted_trials.jsonl"
PRESETS = ("recommended", "safe", "progressive")
HEALTHY_EPOCHS = (12, 30, 60)
HEALTHY_BATCHES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Job:
    """One trial to train: a kind of fault, or a preset without one (`healthy: …`)."""

    kind: str
    model: str
    seed: int

    @property
    def fault(self) -> Fault:
        """The planted fault; an empty one for a healthy trial."""
        return FAULTS.get(self.kind) or Fault("", self._healthy_changes())

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is planted."""
        return self.kind not in FAULTS

    @property
    def preset(self) -> str:
        """The preset that is changed, or that is trained as it is."""
        return self.kind.split()[1] if self.is_healthy else "recommended"

    def _healthy_changes(self) -> dict[str, Any]:
        """Epochs and batch size of a healthy trial."""
        _, _, epochs, batch_size = self.kind.split()
        return {"epochs": int(epochs), "batch_size": int(batch_size)}

    def make_config(self) -> SegmentationConfig:
        """Make the configuration of the trial."""
        changes = {**MODELS[self.model], **self.fault.changes, "seed": self.seed}
        preset = make_preset(self.preset, int(changes.get("epochs", EPOCHS)))
        tree = ConfigTree(BASE).overlay(ConfigTree(preset)).overlay(ConfigTree.from_paths(changes))
        return SegmentationConfig.model_validate(tree.nested)

    def key(self) -> str:
        """Identify the trial and its configuration."""
        text = f"{self.kind} {self.model} {self.make_config().model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PlantedTrial:
    """A trial that was trained to its end.

    Attributes:
        config: nested.
    """

    job: Job
    config: Mapping[str, Any]
    counts: ClassCounts
    records: tuple[EpochRecord, ...]

    def judged(self) -> tuple[Evidence | None, Sequence[EpochRecord]]:
        """Find the first signal that fires by default, and the records up to it, or all."""
        spec = load_study("focal_gamma", {"epochs": self.config["epochs"]})
        for end in range(1, len(self.records) + 1):
            verdict = judge(self.records[:end], spec, lambda: None, _better_peers)
            if verdict.action != "continue":
                return verdict.evidence, self.records[:end]
        return None, self.records


def _better_peers(epoch: int) -> list[float]:
    """As many peers as a signal asks for, all better than any trial, so that none is spared."""
    return [1.0] * SignalsConfig().sparing.least_peers


def healthy_jobs(count: int, first_seed: int) -> list[Job]:
    """Trials without a fault: presets, numbers of epochs and batch sizes in turn."""
    jobs = []
    for seed in range(first_seed, first_seed + count):
        epochs = HEALTHY_EPOCHS[seed // len(PRESETS) % len(HEALTHY_EPOCHS)]
        preset = PRESETS[seed % len(PRESETS)]
        batch_size = HEALTHY_BATCHES[seed % len(HEALTHY_BATCHES)]
        model = tuple(MODELS)[seed // 2 % len(MODELS)]
        jobs.append(Job(f"healthy: {preset} {epochs} {batch_size}", model, seed))
    return jobs


def train_trial(job: Job) -> dict[str, Any]:
    """Train one trial, and return its line of the file."""
    torch.set_num_threads(1)
    fault, config = job.fault, job.make_config()
    clean = segmentation.prepare(config, "cpu")
    data = clean if fault.spoil is None else fault.spoil(clean, 1)
    counts = _count_classes(clean if fault.counts_clean else data)
    records = [record.as_dict() for record in _train(config, data, clean, counts, fault)]
    for record in records:
        record["used"] = {}
    return {
        "key": job.key(),
        "job": [job.kind, job.model, job.seed],
        "config": config.model_dump(mode="json"),
        "counts": [counts.names, counts.counts],
        "records": records,
    }


def _train(
    config: SegmentationConfig,
    data: SegmentationData,
    clean: SegmentationData,
    counts: ClassCounts,
    fault: Fault,
) -> Iterator[EpochRecord]:
    """Train on data that a fault may change between two epochs."""
    start = _starter(config, data, counts, fault.run)
    for record in run_training(start, "cpu", NoCheckpoints()):
        yield record
        if fault.spoil is not None:
            _replace_masks(data, clean, fault.spoil, record.epoch + 1)


def _starter(
    config: SegmentationConfig, data: SegmentationData, counts: ClassCounts, run: type[Run]
) -> Any:
    return lambda: run(config, data, counts, torch.device("cpu"), NoCheckpoints())


def _replace_masks(
    data: SegmentationData, clean: SegmentationData, spoil: Spoil, epoch: int
) -> None:
    changed = spoil(clean, epoch).train
    if isinstance(data.train, SceneSplit) and isinstance(changed, SceneSplit):
        data.train.target_NHW = changed.target_NHW


def _count_classes(data: SegmentationData) -> ClassCounts:
    target_NHW = data.train.target_NHW  # type: ignore[attr-defined]
    valid = target_NHW[target_NHW != data.ignore_index]
    counts = torch.bincount(valid, minlength=len(data.class_names))
    return ClassCounts(data.class_names, tuple(counts.tolist()))


def load_trials(path: Path) -> dict[str, PlantedTrial]:
    """Load the trials of a file by their keys; a last line that is incomplete is left out."""
    found: dict[str, PlantedTrial] = {}
    if not path.exists():
        return found
    for line in filter(None, path.read_text(encoding="utf-8").splitlines()):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        names, counts = row["counts"]
        records = tuple(EpochRecord.from_dict(record) for record in row["records"])
        found[row["key"]] = PlantedTrial(
            Job(*row["job"]), row["config"], ClassCounts(tuple(names), tuple(counts)), records
        )
    return found


def train_missing(jobs: Sequence[Job], path: Path, workers: int) -> list[PlantedTrial]:
    """Train the trials that the file lacks, printing progress, and return all of the jobs."""
    known = load_trials(path)
    missing = [job for job in jobs if job.key() not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"{len(jobs)} trials, of which {len(missing)} have to be trained", flush=True)
    with (
        path.open("a", encoding="utf-8") as file,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        file.write("\n")  # ends a line that an interrupted run left incomplete
        for done, future in enumerate(as_completed(pool.submit(train_trial, j) for j in missing)):
            file.write(json.dumps(future.result()) + "\n")
            file.flush()
            if done % 10 == 9:
                print(f"{done + 1} of {len(missing)} trained", flush=True)
    known = load_trials(path) if missing else known
    return [known[job.key()] for job in jobs]
