"""Embedded data set: scenes of real handwritten digits with a long tail, composed once and cached.

Scenes are composed of 1,797 handwritten digits (8×8, Alpaydin & Kaynak 1998); `digits.txt` has
their source and license. Class 0 is the background; each other class is a digit. The frequency of
the digits falls geometrically, so that the rarest class covers well under 0.5% of the pixels and
still occurs in every split. Digits of no class are placed as distractors and labeled background; a
border is ignored (255), as hood and rectification border are in Cityscapes. Train, validation and
test use disjoint handwriting.
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
"""Images (N, 8, 8) with gray values 0…16 and labels (N,), written by `benchmarks.make_digits`."""

IGNORE = 255
MEAN_GRAY = 75.0
STD_GRAY = 45.0
"""Mean and standard deviation of the default scenes, rounded, by which images are standardized."""

VERSION = 1
"""Part of the cache's name: increased when the same parameters give other scenes."""

BORDER_PX = 2
CLASS_DIGITS = (1, 3, 2, 7, 0, 4, 6, 5)
"""From frequent to rare. The rare digits look like few others: rarity is what makes them hard."""

DISTRACTOR_DIGITS = (8, 9)
"""Placed like classes, labeled background."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Scenes:
    """Images (N, H, W) with gray values 0…255 and masks (N, H, W) of class indices, 255 ignored."""

    images_NHW: Pixels
    masks_NHW: Pixels


def class_names(config: DigitsData) -> tuple[str, ...]:
    """Return `background`, then the digits from the most to the least frequent."""
    return ("background", *(f"digit_{digit}" for digit in CLASS_DIGITS[: config.classes - 1]))


def load_scenes(config: DigitsData) -> dict[str, Scenes]:
    """Load the splits `train`, `val` and `test` from the cache, or compose them.

    It is no error if the cache cannot be written: composing the scenes takes about a second.
    """
    path = _cache_path(config)
    try:
        # np.load leaves a broken file open.
        with path.open("rb") as file, np.load(file) as cached:
            return {
                split: Scenes(cached[f"{split}_images"], cached[f"{split}_masks"])
                for split in ("train", "val", "test")
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # there is no cache yet, or an incomplete one
    splits = make_scenes(config)
    arrays: dict[str, Pixels] = {}
    for split, scenes in splits.items():
        arrays[f"{split}_images"] = scenes.images_NHW
        arrays[f"{split}_masks"] = scenes.masks_NHW
    _write_cache(path, arrays)
    return splits


def _cache_path(config: DigitsData) -> Path:
    key = hashlib.sha256(f"{VERSION}:{config.model_dump_json()}".encode()).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "imbalance-search" / f"digit-scenes-{key}.npz"


def _write_cache(path: Path, arrays: dict[str, Pixels]) -> None:
    """Write through a temporary folder, so that no other worker reads an incomplete file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as draft:
            np.savez_compressed(Path(draft) / path.name, **arrays)  # type: ignore[arg-type]
            os.replace(Path(draft) / path.name, path)
    except OSError:
        return


def make_scenes(config: DigitsData) -> dict[str, Scenes]:
    """Compose the three splits, a pure function of the configuration."""
    with np.load(DIGITS_FILE, allow_pickle=False) as digits:
        glyphs = digits["images"].astype(np.float64)
        labels = digits["labels"]
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
    images = np.empty(shape, np.uint8)
    masks = np.empty(shape, np.uint8)
    frequency = config.tail ** np.arange(config.classes - 1)
    frequency /= frequency.sum()
    required = _required_labels(rng, scenes, config.classes)
    for index in range(scenes):
        drawn = 1 + rng.choice(config.classes - 1, size=config.digits_per_scene, p=frequency)
        labels = [*required[index], *(int(label) for label in drawn)]
        images[index], masks[index] = _compose_scene(rng, pool, labels, config)
    return Scenes(images, masks)


def _required_labels(rng: np.random.Generator, scenes: int, classes: int) -> list[list[int]]:
    """Draw four scenes for each class, so that every IoU exists and is not of a single glyph."""
    required: list[list[int]] = [[] for _ in range(scenes)]
    for label in range(1, classes):
        for index in rng.choice(scenes, size=min(4, scenes), replace=False):
            required[index].append(label)
    return required


def _compose_scene(
    rng: np.random.Generator,
    pool: dict[int, NDArray[np.float64]],
    labels: list[int],
    config: DigitsData,
) -> tuple[Pixels, Pixels]:
    """Compose a scene: gradient, distractors, digits over them, noise, border."""
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
        _place_digit(rng, image, mask, pool[digit], label)
    image += rng.normal(0, config.noise, image.shape)
    mask[:BORDER_PX] = mask[-BORDER_PX:] = IGNORE
    mask[:, :BORDER_PX] = mask[:, -BORDER_PX:] = IGNORE
    return np.clip(image, 0, 255).astype(np.uint8), mask


def _place_digit(
    rng: np.random.Generator,
    image: NDArray[np.float64],
    mask: Pixels,
    glyphs: NDArray[np.float64],
    label: int,
) -> None:
    """Place a random example of the digit, doubled to 16 × 16 pixels, and label what it covers."""
    glyph = glyphs[rng.integers(len(glyphs))] / 16  # ink from 0 to 1
    glyph = np.kron(glyph, np.ones((2, 2)))
    edge = image.shape[0] - len(glyph)
    y, x = (int(offset) for offset in rng.integers(0, edge + 1, size=2))
    window = (slice(y, y + len(glyph)), slice(x, x + len(glyph)))
    image[window] += rng.uniform(90, 140) * glyph
    mask[window][glyph > 0.3] = label
