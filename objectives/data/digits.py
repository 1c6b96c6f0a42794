"""The embedded data set: street-like scenes of real handwriting, with a long tail. No download, made once, cached.

Scenes are composed from 1,797 handwritten digits (8×8, Alpaydin & Kaynak 1998); `digits.txt` names source and license.
Class 0 is the background; each other class is a digit. How often a digit is placed falls geometrically, so the
rarest class covers well under 0.5% of the pixels while it still stands in every split. Digits that belong to no
class are placed as distractors and labelled background; a border strip is ignored (255), as the bonnet and the
rectification border are in Cityscapes. Train, validation and test use disjoint handwriting.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from objectives.data.config import DigitsData

DIGITS_FILE = Path(__file__).with_name("digits.npz")
"""Images (N, 8, 8) as grey values 0…16 and labels (N,), both as bytes; `python -m benchmarks.make_digits` writes it."""

IGNORE = 255
MEAN_GREY, STD_GREY = 75.0, 45.0
"""Of the default scenes, rounded: what brings images near mean 0 and deviation 1."""

VERSION = 1
"""Part of the cache's name: raised when the same parameters give other scenes."""

BORDER_PX = 2
CLASS_DIGITS = (1, 3, 2, 7, 0, 4, 6, 5)
"""From frequent to rare. The rare ones look like few others: what keeps them at IoU 0 is their rarity, not their shape."""

DISTRACTOR_DIGITS = (8, 9)
"""Placed like classes, labelled background."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Scenes:
    """Images (N, H, W) as grey values 0…255 and masks (N, H, W) as class indices, 255 ignored."""

    images_NHW: Pixels
    masks_NHW: Pixels


def class_names(config: DigitsData) -> tuple[str, ...]:
    """`background`, then the digits from the most to the least frequent."""
    return ("background", *(f"digit_{digit}" for digit in CLASS_DIGITS[: config.classes - 1]))


def load_scenes(config: DigitsData) -> dict[str, Scenes]:
    """The splits `train`, `val` and `test`, from the cache where it holds them, else made from the seed.

    A cache that cannot be written is no error: the scenes are made in about a second.
    """
    path = _cache_path(config)
    try:
        with path.open("rb") as file, np.load(file) as held:  # np.load leaves a broken file open
            return {
                split: Scenes(held[f"{split}_images"], held[f"{split}_masks"])
                for split in ("train", "val", "test")
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # no cache yet, or half a one
    splits = make_scenes(config)
    arrays = {
        f"{split}_{part}": array
        for split, scenes in splits.items()
        for part, array in (("images", scenes.images_NHW), ("masks", scenes.masks_NHW))
    }
    _write_cache(path, arrays)
    return splits


def _cache_path(config: DigitsData) -> Path:
    key = hashlib.sha256(f"{VERSION}:{config.model_dump_json()}".encode()).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "imbalance-search" / f"digit-scenes-{key}.npz"


def _write_cache(path: Path, arrays: dict[str, Pixels]) -> None:
    """Through a temporary folder, so two workers that make the same scenes never read half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as draft:  # goes, whatever happens
            np.savez_compressed(Path(draft) / path.name, **arrays)  # type: ignore[arg-type]
            os.replace(Path(draft) / path.name, path)
    except OSError:
        return


def make_scenes(config: DigitsData) -> dict[str, Scenes]:
    """The three splits, a pure function of the configuration."""
    with np.load(DIGITS_FILE, allow_pickle=False) as digits:
        glyphs, labels = digits["images"].astype(np.float64), digits["labels"]
    order = np.random.default_rng([config.seed, VERSION]).permutation(len(labels))
    thirds = {
        "train": order[: len(order) * 6 // 10],
        "val": order[len(order) * 6 // 10 : len(order) * 8 // 10],
        "test": order[len(order) * 8 // 10 :],
    }
    sizes = {"train": config.train_scenes, "val": config.val_scenes, "test": config.test_scenes}
    splits = {}
    for number, (split, chosen) in enumerate(thirds.items()):
        rng = np.random.default_rng([config.seed, VERSION, number])
        pool = {digit: glyphs[chosen][labels[chosen] == digit] for digit in range(10)}
        splits[split] = _compose_split(rng, pool, sizes[split], config)
    return splits


def _compose_split(
    rng: np.random.Generator, pool: dict[int, NDArray[np.float64]], scenes: int, config: DigitsData
) -> Scenes:
    shape = (scenes, config.size, config.size)
    images, masks = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    frequency = config.tail ** np.arange(config.classes - 1)
    frequency /= frequency.sum()
    must = _guaranteed(rng, scenes, config.classes)
    for index in range(scenes):
        labels = [
            *must[index],
            *(1 + rng.choice(config.classes - 1, size=config.digits_per_scene, p=frequency)),
        ]
        images[index], masks[index] = _compose(rng, pool, [int(label) for label in labels], config)
    return Scenes(images, masks)


def _guaranteed(rng: np.random.Generator, scenes: int, classes: int) -> list[list[int]]:
    """Each class is placed at least in four scenes of a split, so that every IoU exists and is not a single glyph's."""
    must: list[list[int]] = [[] for _ in range(scenes)]
    for label in range(1, classes):
        for index in rng.choice(scenes, size=min(4, scenes), replace=False):
            must[index].append(label)
    return must


def _compose(
    rng: np.random.Generator,
    pool: dict[int, NDArray[np.float64]],
    labels: list[int],
    config: DigitsData,
) -> tuple[Pixels, Pixels]:
    """One scene: gradient, distractors, digits over them, noise, border."""
    size = config.size
    ramp_y, ramp_x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    image = 70 + 45 * (rng.uniform(-1, 1) * ramp_y + rng.uniform(-1, 1) * ramp_x)
    mask = np.zeros((size, size), np.uint8)
    distractors = [
        int(digit) for digit in rng.choice(DISTRACTOR_DIGITS, size=config.distractors_per_scene)
    ]
    placed = [(digit, 0) for digit in distractors] + [
        (CLASS_DIGITS[label - 1], label) for label in labels
    ]
    for digit, label in placed:
        _place(rng, image, mask, pool[digit], label)
    image += rng.normal(0, config.noise, image.shape)
    mask[:BORDER_PX] = mask[-BORDER_PX:] = IGNORE
    mask[:, :BORDER_PX] = mask[:, -BORDER_PX:] = IGNORE
    return np.clip(image, 0, 255).astype(np.uint8), mask


def _place(
    rng: np.random.Generator,
    image: NDArray[np.float64],
    mask: Pixels,
    glyphs: NDArray[np.float64],
    label: int,
) -> None:
    """A random specimen of the digit, doubled to 16 × 16 pixels, at a random place; what it covers is its label's."""
    glyph = glyphs[rng.integers(len(glyphs))] / 16  # ink from 0 to 1
    glyph = np.kron(glyph, np.ones((2, 2)))
    edge = image.shape[0] - len(glyph)
    y, x = (int(place) for place in rng.integers(0, edge + 1, size=2))
    window = (slice(y, y + len(glyph)), slice(x, x + len(glyph)))
    image[window] += rng.uniform(90, 140) * glyph
    mask[window][glyph > 0.3] = label
