"""One's own data: image files and mask files in folders, paired by name.

`<root>/images/<split>/**/<stem><image_suffix>.png` goes with `<root>/masks/<split>/**/<stem><mask_suffix>.png`.
Splits are `train`, `val` and, optionally, `test`. A mask is a single-channel image whose values are class indices.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from objectives.data.config import FolderData
from objectives.data.loading import Batch, Key, SegmentationData
from spaces.errors import DataError
from spaces.records import ClassCounts

IMAGE_TYPES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MASK_TYPES = (".png", ".bmp", ".tif", ".tiff")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are no image, are cut off, or are damaged."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    image: Path
    mask: Path


def pairs(config: FolderData, split: str) -> list[Pair]:
    """The pairs of a split, in order of name; an empty list when the split has no folder.

    Raises:
        DataError: when an image has no mask.
    """
    images, masks = Path(config.root) / "images" / split, Path(config.root) / "masks" / split
    found = []
    for image in sorted(images.rglob("*")) if images.is_dir() else []:
        if image.suffix.lower() not in IMAGE_TYPES:
            continue
        stem = image.stem.removesuffix(config.image_suffix)
        wanted = [
            masks / image.parent.relative_to(images) / f"{stem}{config.mask_suffix}{suffix}"
            for suffix in MASK_TYPES
        ]
        mask = next((path for path in wanted if path.exists()), None)
        if mask is None:
            raise DataError(
                f"an image of the split {split!r} has no mask",
                where=str(image),
                found="no mask file",
                allowed=str(wanted[0]),
                next_step="add the mask, or set image_suffix and mask_suffix",
            )
        found.append(Pair(image, mask))
    return found


def _needed(config: FolderData, split: str) -> list[Pair]:
    found = pairs(config, split)
    if not found:
        place = Path(config.root) / "images" / split
        raise DataError(
            f"no images for the split {split!r}",
            where=str(place),
            found="no such folder" if not place.is_dir() else "no image file",
            allowed=f"files of type {', '.join(IMAGE_TYPES)}",
            next_step="check base.data.root; images lie in images/<split>/, masks in masks/<split>/",
        )
    return found


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except UNREADABLE as problem:
        raise DataError(
            "an image file cannot be read",
            where=str(path),
            found=str(problem)[:120] or type(problem).__name__,
            next_step="mend or remove the file",
        ) from None


def read_mask(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.int64]:
    """A mask (H, W), resized to (height, width) by nearest neighbour when a size is given.

    Raises:
        DataError: when the file is unreadable or has several channels.
    """
    return _indices(_open(path), path, size)


def _indices(
    image: Image.Image, path: Path, size: tuple[int, int] | None = None
) -> NDArray[np.int64]:
    """The class indices of a decoded mask."""
    if image.mode not in ("L", "P", "1", "I", "I;16"):
        raise DataError(
            "a mask must have one channel of class indices",
            where=str(path),
            found=f"image mode {image.mode}",
            allowed="L or P (a palette)",
            next_step="save the mask as class indices",
        )
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image).astype(np.int64)


class FolderSplit:
    """Pairs decoded when asked for; training pairs are cropped and mirrored by their own seed."""

    def __init__(self, config: FolderData, found: list[Pair]) -> None:
        self.config, self.pairs = config, found
        self._mean, self._std = (
            np.asarray(values, np.float32) for values in (config.mean, config.std)
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, keys: list[Key]) -> Batch | DataError:
        try:
            decoded = [self._decode(index, seed) for index, seed in keys]
        except DataError as problem:
            return problem
        images_NCHW = torch.from_numpy(np.stack([image for image, _ in decoded]))
        return images_NCHW, torch.from_numpy(np.stack([mask for _, mask in decoded]))

    def _decode(self, index: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        size = (self.config.height, self.config.width)
        pair = self.pairs[index]
        picture = (
            _open(pair.image).convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
        )
        image_HWC: NDArray[np.float32] = (
            (np.asarray(picture, np.float32) / 255 - self._mean) / self._std
        ).astype(np.float32)
        mask_HW = read_mask(pair.mask, size)
        if seed:
            image_HWC, mask_HW = self._augment(np.random.default_rng(seed), image_HWC, mask_HW)
        return np.ascontiguousarray(image_HWC.transpose(2, 0, 1)), np.ascontiguousarray(mask_HW)

    def _augment(
        self, rng: np.random.Generator, image_HWC: NDArray[np.float32], mask_HW: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self.config.crop is not None:
            height, width = self.config.crop
            y = int(rng.integers(0, mask_HW.shape[0] - height + 1))
            x = int(rng.integers(0, mask_HW.shape[1] - width + 1))
            image_HWC, mask_HW = (
                image_HWC[y : y + height, x : x + width],
                mask_HW[y : y + height, x : x + width],
            )
        if self.config.flip and rng.random() < 0.5:
            image_HWC, mask_HW = image_HWC[:, ::-1], mask_HW[:, ::-1]
        return image_HWC, mask_HW


def build_folder(config: FolderData) -> SegmentationData:
    """The data set of a folder.

    Raises:
        DataError: when a split is missing, an image has no mask, or the crop is larger than the image.
    """
    if config.crop is not None and (
        config.crop[0] > config.height or config.crop[1] > config.width
    ):
        raise DataError(
            "the crop is larger than the image",
            where="base.data.crop",
            found=str(list(config.crop)),
            allowed=f"at most [{config.height}, {config.width}]",
        )
    test = pairs(config, "test")
    return SegmentationData(
        train=FolderSplit(config, _needed(config, "train")),
        val=FolderSplit(config, _needed(config, "val")),
        test=FolderSplit(config, test) if test else None,
        class_names=config.classes,
        ignore_index=config.ignore_index,
        channels=3,
        height=config.height,
        width=config.width,
        loader_workers=config.loader_workers,
    )


def file_marks(config: FolderData) -> list[str]:
    """Name, size and time of every mask and image: a changed mask gives other counts, and a changed image may be broken."""
    files = (
        path
        for split in ("train", "val", "test")
        for pair in pairs(config, split)
        for path in (pair.mask, pair.image)
    )
    return [
        f"{path}:{held.st_size}:{held.st_mtime_ns}" for path in files for held in (path.stat(),)
    ]


def count_folder(config: FolderData) -> ClassCounts:
    """Training pixels of every class. Every image and mask of the other splits is decoded, too, to find what is broken before a trial does.

    Raises:
        DataError: for the first file that cannot be read, a mask that does not fit its image or holds a value that is
            neither a class nor ignored, or when every pixel is ignored.
    """
    _needed(config, "train")
    _needed(config, "val")
    totals = np.zeros(len(config.classes), np.int64)
    for split in ("train", "val", "test"):
        with ThreadPoolExecutor(max_workers=4) as pool:
            for counts in pool.map(lambda pair: _count_pair(pair, config), pairs(config, split)):
                totals += counts if split == "train" else 0
    if not totals.any():
        raise DataError(
            "every training pixel is ignored",
            where=str(Path(config.root) / "masks" / "train"),
            found=f"only {config.ignore_index}",
            next_step="check ignore_index",
        )
    return ClassCounts(config.classes, tuple(int(count) for count in totals))


def _count_pair(pair: Pair, config: FolderData) -> NDArray[np.int64]:
    """The mask's counts, once the image has been decoded, too: one that is cut off behind its header would else be found in the middle of a trial.

    A mask of another size would be stretched over its image.
    """
    size, mask = _open(pair.image).size, _open(pair.mask)
    if size != mask.size:
        found = f"image {size[0]} × {size[1]}, mask {mask.size[0]} × {mask.size[1]}"
        raise DataError(
            "an image and its mask differ in size",
            where=str(pair.mask),
            found=found,
            allowed="the same width and height",
            next_step="export the mask at the image's size",
        )
    return _count_mask(_indices(mask, pair.mask), pair.mask, config)


def _count_mask(mask_HW: NDArray[np.int64], path: Path, config: FolderData) -> NDArray[np.int64]:
    values, counts = np.unique(mask_HW, return_counts=True)
    totals = np.zeros(len(config.classes), np.int64)
    for value, count in _valid(values, counts, config):
        if value < 0 or value >= len(config.classes):
            raise DataError(
                "a mask holds more classes than the configuration names",
                where=str(path),
                found=f"value {value} in {count} pixels",
                allowed=f"0 … {len(config.classes) - 1} ({len(config.classes)} classes) or {config.ignore_index} (ignored)",
                next_step="name the class in base.data.classes, or map the value to ignore_index",
            )
        totals[value] = count
    return totals


def _valid(
    values: NDArray[np.int64], counts: NDArray[np.int64], config: FolderData
) -> Iterator[tuple[int, int]]:
    return (
        (int(value), int(count))
        for value, count in zip(values, counts, strict=True)
        if value != config.ignore_index
    )
