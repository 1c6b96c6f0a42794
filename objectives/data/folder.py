"""Images and masks in folders, paired by name.

`<root>/images/<split>/**/<stem><image_suffix>.png` goes with
`<root>/masks/<split>/**/<stem><mask_suffix>.png`. Splits are `train`, `val` and, optionally,
`test`. A mask is a single-channel image whose values are class indices.
"""

from __future__ import annotations

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
"""What Pillow raises for files that are not images, truncated or damaged."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    image: Path
    mask: Path


def find_pairs(config: FolderData, split: str) -> list[Pair]:
    """Find the pairs of a split, sorted by name; none if the split has no folder.

    Raises:
        DataError: when an image has no mask.
    """
    images = Path(config.root) / "images" / split
    masks = Path(config.root) / "masks" / split
    found = []
    for image in sorted(images.rglob("*")) if images.is_dir() else []:
        if image.suffix.lower() not in IMAGE_TYPES:
            continue
        stem = image.stem.removesuffix(config.image_suffix)
        place = masks / image.parent.relative_to(images)
        wanted = [place / f"{stem}{config.mask_suffix}{suffix}" for suffix in MASK_TYPES]
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


def _require_pairs(config: FolderData, split: str) -> list[Pair]:
    found = find_pairs(config, split)
    if not found:
        place = Path(config.root) / "images" / split
        raise DataError(
            f"no images for the split {split!r}",
            where=str(place),
            found="no such folder" if not place.is_dir() else "no image file",
            allowed=f"files of type {', '.join(IMAGE_TYPES)}",
            next_step="check base.data.root: images are in images/<split>/, masks in "
            "masks/<split>/",
        )
    return found


def _open_image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except UNREADABLE as problem:
        raise DataError(
            "an image file cannot be read",
            where=str(path),
            found=str(problem)[:120] or type(problem).__name__,
            next_step="fix or remove the file",
        ) from None


def read_mask(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.int64]:
    """Read a mask (H, W), resized to (height, width) by nearest neighbor if a size is given.

    Raises:
        DataError: when the file is unreadable or has several channels.
    """
    return _class_indices(_open_image(path), path, size)


def _class_indices(
    image: Image.Image, path: Path, size: tuple[int, int] | None = None
) -> NDArray[np.int64]:
    """Return the class indices of a decoded mask."""
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
    """Pairs, decoded when needed; training pairs are cropped and flipped by their own seed."""

    def __init__(self, config: FolderData, found: list[Pair]) -> None:
        self.config = config
        self.pairs = found
        self._mean = np.asarray(config.mean, np.float32)
        self._std = np.asarray(config.std, np.float32)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, keys: list[Key]) -> Batch | DataError:
        try:
            decoded = [self._decode_pair(index, seed) for index, seed in keys]
        except DataError as problem:
            return problem
        images_NCHW = torch.from_numpy(np.stack([image for image, _ in decoded]))
        return images_NCHW, torch.from_numpy(np.stack([mask for _, mask in decoded]))

    def _decode_pair(self, index: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        size = (self.config.height, self.config.width)
        pair = self.pairs[index]
        picture = _open_image(pair.image).convert("RGB")
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        scaled_HWC = (np.asarray(picture, np.float32) / 255 - self._mean) / self._std
        image_HWC: NDArray[np.float32] = scaled_HWC.astype(np.float32)
        mask_HW = read_mask(pair.mask, size)
        if seed:
            image_HWC, mask_HW = self._augment_pair(np.random.default_rng(seed), image_HWC, mask_HW)
        return np.ascontiguousarray(image_HWC.transpose(2, 0, 1)), np.ascontiguousarray(mask_HW)

    def _augment_pair(
        self, rng: np.random.Generator, image_HWC: NDArray[np.float32], mask_HW: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self.config.crop is not None:
            height, width = self.config.crop
            y = int(rng.integers(0, mask_HW.shape[0] - height + 1))
            x = int(rng.integers(0, mask_HW.shape[1] - width + 1))
            image_HWC = image_HWC[y : y + height, x : x + width]
            mask_HW = mask_HW[y : y + height, x : x + width]
        if self.config.flip and rng.random() < 0.5:
            image_HWC = image_HWC[:, ::-1]
            mask_HW = mask_HW[:, ::-1]
        return image_HWC, mask_HW


def build_folder(config: FolderData) -> SegmentationData:
    """Build the data set of a folder.

    Raises:
        DataError: when a split is missing, an image has no mask, or the crop is larger than the
            image.
    """
    crop = config.crop
    if crop is not None and (crop[0] > config.height or crop[1] > config.width):
        raise DataError(
            "the crop is larger than the image",
            where="base.data.crop",
            found=str(list(crop)),
            allowed=f"at most [{config.height}, {config.width}]",
        )
    test = find_pairs(config, "test")
    return SegmentationData(
        train=FolderSplit(config, _require_pairs(config, "train")),
        val=FolderSplit(config, _require_pairs(config, "val")),
        test=FolderSplit(config, test) if test else None,
        class_names=config.classes,
        ignore_index=config.ignore_index,
        channels=3,
        height=config.height,
        width=config.width,
        loader_workers=config.loader_workers,
    )


def file_marks(config: FolderData) -> list[str]:
    """Return name, size and time of every mask and image.

    A changed mask changes the counts, and a changed image may be damaged.
    """
    marks = []
    for split in ("train", "val", "test"):
        for pair in find_pairs(config, split):
            marks += [_file_mark(pair.mask), _file_mark(pair.image)]
    return marks


def _file_mark(path: Path) -> str:
    status = path.stat()
    return f"{path}:{status.st_size}:{status.st_mtime_ns}"


def count_folder(config: FolderData) -> ClassCounts:
    """Count the training pixels of every class.

    All images and masks of all splits are decoded, to find damaged files before a trial does.

    Raises:
        DataError: for the first file that cannot be read, for a mask that does not match its image
            or contains a value that is neither a class nor ignored, or when every pixel is ignored.
    """
    _require_pairs(config, "train")
    _require_pairs(config, "val")
    totals = np.zeros(len(config.classes), np.int64)
    for split in ("train", "val", "test"):
        with ThreadPoolExecutor(max_workers=4) as pool:
            for counts in pool.map(
                lambda pair: _count_pair(pair, config), find_pairs(config, split)
            ):
                if split == "train":
                    totals += counts
    if not totals.any():
        raise DataError(
            "every training pixel is ignored",
            where=str(Path(config.root) / "masks" / "train"),
            found=f"only {config.ignore_index}",
            next_step="check ignore_index",
        )
    return ClassCounts(config.classes, tuple(int(count) for count in totals))


def _count_pair(pair: Pair, config: FolderData) -> NDArray[np.int64]:
    """Count the mask's pixels, and decode the image: a truncated one would fail within a trial.

    A mask of another size is refused, as it would be stretched over its image.
    """
    size = _open_image(pair.image).size
    mask = _open_image(pair.mask)
    if size != mask.size:
        raise DataError(
            "an image and its mask differ in size",
            where=str(pair.mask),
            found=f"image {size[0]} × {size[1]}, mask {mask.size[0]} × {mask.size[1]}",
            allowed="the same width and height",
            next_step="export the mask at the image's size",
        )
    return _count_mask(_class_indices(mask, pair.mask), pair.mask, config)


def _count_mask(mask_HW: NDArray[np.int64], path: Path, config: FolderData) -> NDArray[np.int64]:
    values, counts = np.unique(mask_HW, return_counts=True)
    classes = len(config.classes)
    totals = np.zeros(classes, np.int64)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        if value == config.ignore_index:
            continue
        if value < 0 or value >= classes:
            raise DataError(
                "a mask contains more classes than the configuration names",
                where=str(path),
                found=f"value {value} in {count} pixels",
                allowed=f"0 … {classes - 1} ({classes} classes) or {config.ignore_index} (ignored)",
                next_step="name the class in base.data.classes, or map the value to ignore_index",
            )
        totals[value] = count
    return totals
