"""Planted faults: what they change, how their trials are kept, and bins of confidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.faults import Outcome, make_bins
from benchmarks.planted import FAULTS, MODELS, copy_split
from benchmarks.planted_trials import Job, healthy_jobs, load_trials
from objectives.data.build import SceneSplit
from objectives.data.loading import SegmentationData
from search.diagnosis.causes import CAUSES
from spaces.records import EpochRecord

UNPLANTED = {"exploding gradient", "batch too small"}


@pytest.fixture
def data() -> SegmentationData:
    """Sixteen noisy images and masks of seven classes in every split."""
    random = torch.Generator().manual_seed(1)
    split = SceneSplit.__new__(SceneSplit)
    split.images_NCHW = torch.rand((16, 1, 40, 40), generator=random)
    split.target_NHW = torch.randint(0, 7, (16, 40, 40), generator=random)
    return SegmentationData(
        train=split,
        val=copy_split(split),
        test=copy_split(split),
        class_names=tuple("abcdefg"),
        ignore_index=255,
        channels=1,
        height=40,
        width=40,
    )


def spoil(kind: str, data: SegmentationData, epoch: int = 1) -> Any:
    """The data with a fault."""
    change = FAULTS[kind].spoil
    assert change is not None
    return change(data, epoch)


def images_of(data: Any, split: str = "train") -> Tensor:
    """The images of a split."""
    images: Tensor = getattr(data, split).images_NCHW
    return images


class TestKinds:
    def test_causes(self) -> None:
        """At least 30 kinds have a known cause, and all causes but two are planted."""
        assert len(FAULTS) >= 30
        assert {fault.cause for fault in FAULTS.values()} == set(CAUSES) - UNPLANTED

    @pytest.mark.parametrize("kind", FAULTS)
    def test_configuration(self, kind: str) -> None:
        """Every kind has a valid configuration for each model, and keys of their own."""
        jobs = [Job(kind, model, 100) for model in MODELS]
        assert len({job.key() for job in jobs}) == len(jobs)

    def test_healthy(self) -> None:
        """Healthy trials cover presets, numbers of epochs and batch sizes."""
        jobs = healthy_jobs(90, 0)
        configs = [job.make_config() for job in jobs]
        assert {config.epochs for config in configs} == {12, 30, 60}
        assert {config.batch_size for config in configs} == {4, 8, 16, 32}
        assert {job.preset for job in jobs} == {"recommended", "safe", "progressive"}
        assert all(job.is_healthy for job in jobs)


class TestData:
    def test_images(self, data: SegmentationData) -> None:
        """Images are black, of one color each, clipped, or have one channel of three."""
        assert images_of(spoil("black images", data)).unique().numel() == 1
        flat = images_of(spoil("images of one color each", data), "val")
        assert float(flat.std((1, 2, 3)).max()) < 1e-6
        assert float(flat.std()) > 0
        bright = images_of(spoil("brightness × 4, clipped", data))
        assert float((bright == bright.max()).float().mean()) > 0.5
        three = spoil("one channel of three", data)
        assert three.channels == images_of(three).shape[1] == 3
        assert images_of(three)[:, 1:].unique().numel() == 1

    def test_validation_alone(self, data: SegmentationData) -> None:
        """Faults of the validation leave training as it was."""
        for kind in ("validation inverted", "validation darker"):
            changed = spoil(kind, data)
            assert images_of(changed) is images_of(data)
            assert not torch.equal(images_of(changed, "val"), images_of(data, "val"))

    def test_masks(self, data: SegmentationData) -> None:
        """Masks are exchanged, shifted apart, or lack a class; clean data stay as they are."""
        before = data.train.target_NHW.clone()  # type: ignore[attr-defined]
        other = spoil("masks of other images", data).train.target_NHW
        assert not torch.equal(other, before)
        assert torch.equal(other.flatten(1).sum(1).sort()[0], before.flatten(1).sum(1).sort()[0])
        apart = spoil("masks cropped apart", data).val.target_NHW
        assert float((apart == before).float().mean()) < 0.3
        assert not bool((spoil("a class removed", data).train.target_NHW == 2).any())
        assert torch.equal(spoil("masks break half-way", data, 8).train.target_NHW, before)
        assert not torch.equal(spoil("masks break half-way", data, 9).train.target_NHW, before)
        assert torch.equal(data.train.target_NHW, before)  # type: ignore[attr-defined]


class TestFile:
    def test_round_trip(self, tmp_path: Path, make_record: Callable[..., EpochRecord]) -> None:
        """A trial is read back by its key; a line that was not finished is left out."""
        job = Job("rate × 100", "small", 100)
        row = {
            "key": job.key(),
            "job": [job.kind, job.model, job.seed],
            "config": job.make_config().model_dump(mode="json"),
            "counts": [["a", "b"], [3, 1]],
            "records": [make_record(1, val_ce=float("nan")).as_dict()],
        }
        path = tmp_path / "trials.jsonl"
        path.write_text(json.dumps(row) + "\n" + json.dumps(row)[:50], encoding="utf-8")
        (trial,) = load_trials(path).values()
        assert (trial.job, trial.counts.counts) == (job, (3, 1))
        assert repr(trial.records) == repr((make_record(1, val_ce=float("nan")),))


def test_bins() -> None:
    """Bins of equal width, then of equal numbers, with stated and true shares."""
    job = Job("rate × 100", "small", 0)
    right = [
        Outcome(job, "", 1, None, "learning rate too high", 0.9 + step / 100) for step in range(8)
    ]
    wrong = [Outcome(job, "", 1, None, "Dice too late", 0.3) for _ in range(2)]
    bins = make_bins(right + wrong)
    assert [each.trials for each in bins] == [0, 2, 0, 0, 8] + [2] * 5
    assert (bins[1].stated, bins[1].right) == (pytest.approx(0.3), 0)
    assert (bins[4].stated, bins[4].right) == (pytest.approx(0.935), 1)
    assert [each.right for each in bins[5:]] == [0, 1, 1, 1, 1]
