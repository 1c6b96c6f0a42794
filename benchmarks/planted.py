"""Kinds of planted faults: what each changes in the configuration, the data or the training.

A fault is really planted: the configuration, the images or the masks are changed before training.
One is not, as no CPU trains in float16: there the loss scaler is real, and its gradients are made
infinite in four of five steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler

from objectives.data.build import SceneSplit
from objectives.data.digits import MEAN_GRAY, STD_GRAY
from objectives.data.loading import SegmentationData
from objectives.segmentation.train import Run
from objectives.training.step_guard import StepGuard

EPOCHS = 16
BASE: dict[str, Any] = {
    "epochs": EPOCHS,
    "data": {"train_scenes": 96, "val_scenes": 48, "test_scenes": 8, "size": 40},
    "schedule": {"lr": "cosine"},
}
MODELS: dict[str, dict[str, Any]] = {
    "small": {},
    "large": {"model.options": {"encoder_depth": 3, "decoder_channels": [64, 32, 16]}},
}
"""U-Nets of 60,000 and of 190,000 parameters; the larger one sees larger surroundings, too."""

SPOILT = 11
"""The image with a NaN in it."""

REMOVED = 2
"""The class that a fault removes from the training masks."""

RARE_FROM = 4
"""Classes from this one on count as rare."""

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


class OverflowingRun(Run):
    """A training whose gradients overflow in four of five steps, with a real loss scaler."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # It hardly backs off, as every overflow would otherwise halve the scale down to 0.
        self.scaler = GradScaler("cpu", init_scale=1024.0, backoff_factor=0.999)
        optimizer = self.config.optimizer
        self.guard = StepGuard(
            self.model, optimizer.grad_clip_norm, self.config.max_grad_norm, loss_scaled=True
        )
        self.backward_passes = 0
        next(self.model.parameters()).register_hook(self.overflow)

    def overflow(self, gradient: Tensor) -> Tensor:
        """Replace the gradient by infinity in four of five backward passes."""
        self.backward_passes += 1
        return gradient if self.backward_passes % 5 == 0 else torch.full_like(gradient, torch.inf)


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        cause: which the diagnosis has to name first.
        changes: of the configuration, by dotted path.
        spoil: of the data; None for clean data.
        counts_clean: whether classes are counted in the clean data, as where a sampler repeats
            images; otherwise they are counted in what is trained on.
        run: the training.
    """

    cause: str
    changes: Mapping[str, Any]
    spoil: Spoil | None = None
    counts_clean: bool = False
    run: type[Run] = Run


def copy_split(split: Any, images_NCHW: Tensor | None = None, target: Any = None) -> SceneSplit:
    """Copy a split with other images or masks."""
    made = SceneSplit.__new__(SceneSplit)
    made.images_NCHW = split.images_NCHW if images_NCHW is None else images_NCHW
    made.target_NHW = split.target_NHW if target is None else target
    return made


def _with_images(
    change: Callable[[Tensor], Tensor], *splits: str, channels: int | None = None
) -> Spoil:
    """Make a spoiler that changes the gray values (N, 1, H, W), 0 to 255, of the splits."""

    def spoil(data: SegmentationData, epoch: int) -> SegmentationData:
        changed: dict[str, Any] = {} if channels is None else {"channels": channels}
        for name in splits or ("train", "val", "test"):
            split: Any = getattr(data, name)
            gray = split.images_NCHW * STD_GRAY + MEAN_GRAY
            changed[name] = copy_split(split, (change(gray) - MEAN_GRAY) / STD_GRAY)
        return replace(data, **changed)

    return spoil


def _with_masks(
    change: Callable[[Tensor, torch.Generator], Tensor], *splits: str, from_epoch: int = 1
) -> Spoil:
    """Make a spoiler that changes the masks (N, H, W) of the splits from some epoch on."""

    def spoil(data: SegmentationData, epoch: int) -> SegmentationData:
        if epoch < from_epoch:
            return data
        random = torch.Generator().manual_seed(0)
        changed = {}
        for name in splits:
            split: Any = getattr(data, name)
            changed[name] = copy_split(split, target=change(split.target_NHW, random))
        return replace(data, **changed)

    return spoil


def nan_in_an_image(data: SegmentationData, epoch: int) -> SegmentationData:
    """One pixel of one training image is NaN."""
    split: Any = data.train
    images_NCHW = split.images_NCHW.clone()
    images_NCHW[SPOILT, 0, 5, 5] = torch.nan
    return replace(data, train=copy_split(split, images_NCHW))


def eight_images(data: SegmentationData, epoch: int) -> SegmentationData:
    """Only the first eight training scenes are left."""
    split: Any = data.train
    return replace(data, train=copy_split(split, split.images_NCHW[:8], split.target_NHW[:8]))


def repeat_rare_images(data: SegmentationData, epoch: int) -> SegmentationData:
    """Every training image with a rare class is there four times."""
    split: Any = data.train
    rare_NHW = (split.target_NHW >= RARE_FROM) & (split.target_NHW != data.ignore_index)
    times = torch.where(rare_NHW.flatten(1).any(1), 4, 1)
    images_NCHW = split.images_NCHW.repeat_interleave(times, 0)
    return replace(
        data, train=copy_split(split, images_NCHW, split.target_NHW.repeat_interleave(times, 0))
    )


def _shift_masks(target_NHW: Tensor, random: torch.Generator) -> Tensor:
    """Shift every mask by the same 13 pixels; what was ignored stays ignored."""
    return _keep_ignored(target_NHW, torch.roll(target_NHW, (13, 13), (1, 2)))


def _shift_masks_apart(target_NHW: Tensor, random: torch.Generator) -> Tensor:
    """Shift every mask by its own 8 to 32 pixels, as where image and mask are cropped apart."""
    shifts = torch.randint(8, 33, (len(target_NHW), 2), generator=random).tolist()
    shifted = [
        torch.roll(mask, tuple(by), (0, 1)) for mask, by in zip(target_NHW, shifts, strict=True)
    ]
    return _keep_ignored(target_NHW, torch.stack(shifted))


def _keep_ignored(target_NHW: Tensor, shifted_NHW: Tensor) -> Tensor:
    ignored_NHW = (target_NHW == 255) | (shifted_NHW == 255)
    return torch.where(ignored_NHW, 255, shifted_NHW)


def _shuffle_masks(target_NHW: Tensor, random: torch.Generator) -> Tensor:
    return target_NHW[torch.randperm(len(target_NHW), generator=random)]


def _remove_class(target_NHW: Tensor, random: torch.Generator) -> Tensor:
    return torch.where(target_NHW == REMOVED, 0, target_NHW)


def _fill_with_mean(gray: Tensor) -> Tensor:
    return gray.mean((1, 2, 3), keepdim=True).expand_as(gray).contiguous()


def _leave_one_channel(gray: Tensor) -> Tensor:
    return torch.cat([gray, torch.zeros_like(gray), torch.zeros_like(gray)], 1)


_HIGH = "learning rate too high"
_LOW = "learning rate too low"
_CLIPPED = "gradient clipped away"
_EMPTY = "input without information"
_UNMATCHED = "labels do not match the images"
_VALIDATION = "validation unlike training"

FAULTS = {
    "rate × 100": Fault(_HIGH, {"optimizer.lr_multiple": 30.0}),
    "rate × 330": Fault(_HIGH, {"optimizer.lr_multiple": 100.0}),
    "rate × 100, not clipped": Fault(
        _HIGH, {"optimizer.lr_multiple": 30.0, "optimizer.grad_clip_norm": None}
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
    "masks break half-way": Fault(
        "labels broken", {}, _with_masks(_shift_masks, "train", from_epoch=EPOCHS // 2 + 1)
    ),
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
    "gamma 12": Fault("focusing too strong", {**FOCAL, **CE_ONLY, "loss.gamma": 12.0}),
    "weight decay 0.3": Fault("weight decay too strong", {"optimizer.weight_decay": 0.3}),
    "rate × 0.001": Fault(_LOW, {"optimizer.lr_multiple": 3e-4}),
    "rate × 0.01": Fault(_LOW, {"optimizer.lr_multiple": 3e-3}),
    "rate × 0.03": Fault(_LOW, {"optimizer.lr_multiple": 1e-2}),
    "clip norm 0.001": Fault(_CLIPPED, {"optimizer.grad_clip_norm": 1e-3}),
    "clip norm 0.01": Fault(_CLIPPED, {"optimizer.grad_clip_norm": 1e-2}),
    "four epochs": Fault("too few epochs", {"epochs": 4, "optimizer.lr_multiple": 0.1}),
    "black images": Fault(_EMPTY, {}, _with_images(torch.zeros_like)),
    "images of one color each": Fault(_EMPTY, {}, _with_images(_fill_with_mean)),
    "brightness × 4, clipped": Fault(
        _EMPTY, {}, _with_images(lambda gray: (4 * gray).clamp(0, 255))
    ),
    "one channel of three": Fault(_EMPTY, {}, _with_images(_leave_one_channel, channels=3)),
    "masks of other images": Fault(_UNMATCHED, {}, _with_masks(_shuffle_masks, "train", "val")),
    "masks cropped apart": Fault(_UNMATCHED, {}, _with_masks(_shift_masks_apart, "train", "val")),
    "a class removed": Fault("class missing in training", {}, _with_masks(_remove_class, "train")),
    "validation inverted": Fault(_VALIDATION, {}, _with_images(lambda gray: 255 - gray, "val")),
    "validation darker": Fault(_VALIDATION, {}, _with_images(lambda gray: 0.3 * gray, "val")),
    "batch of 1, accumulated": Fault(
        "batch norm with tiny batches", {"batch_size": 1, "optimizer.accumulate": 8}
    ),
    "batch of 2": Fault("batch norm with tiny batches", {"batch_size": 2}),
    "float16 overflows": Fault("mixed precision overflow", {}, run=OverflowingRun),
    "rare images repeated": Fault(
        "rare classes corrected twice", EXTREME, repeat_rare_images, counts_clean=True
    ),
}
"""Name of a kind → the fault."""
