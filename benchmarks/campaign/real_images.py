"""Reduces real images to a size at which a core trains a trial in half a minute, as a data folder.

CamVid (`train.txt` and so on, two columns: image and mask) and the nuclei of the Data Science Bowl
2018 (`images/<split>/*.jpg`, `masks/<split>/*.png`) are read from a folder that the user has; only
the curves of the trainings are committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image


class Reduction(NamedTuple):
    """How a data set is reduced.

    Attributes:
        size: height and width, pixels.
        pairs: number of pairs that are kept of each split, spread evenly over it.
    """

    size: tuple[int, int]
    pairs: dict[str, int]


REDUCTIONS = {
    "camvid": Reduction((48, 64), {"train": 128, "val": 64}),
    "nuclei": Reduction((48, 48), {"train": 128, "val": 50}),
}
"""Name of the campaign and of its data set → how its images are reduced."""


def reduce_images(
    name: str, source: Path, target: Path, pairs: Mapping[str, int] | None = None
) -> None:
    """Write the reduced pairs to `target` in the layout of `kind: folder`; once.

    Args:
        name: camvid or nuclei.
        source: the data set.
        target: a folder, which is made.
        pairs: number of pairs of further splits.
    """
    reduction = REDUCTIONS[name]
    for split, count in {**reduction.pairs, **(pairs or {})}.items():
        found = list(_find_camvid(source, split) if name == "camvid" else _find(source, split))
        for number in range(count):
            image, mask = found[number * len(found) // count]
            # JPEG's artefacts are averaged out; a mask has no values between two classes.
            _reduce(
                image,
                target / "images" / split / f"{number:03}.png",
                reduction.size,
                Image.Resampling.BOX,
            )
            _reduce(
                mask,
                target / "masks" / split / f"{number:03}.png",
                reduction.size,
                Image.Resampling.NEAREST,
            )


def _find_camvid(source: Path, split: str) -> Iterator[tuple[Path, Path]]:
    """The pairs of a list file, whose paths may begin with the folder of another machine."""
    for line in (source / f"{split}.txt").read_text().splitlines():
        image, mask = (Path(part) for part in line.split())
        yield source / split / image.name, source / f"{split}annot" / mask.name


def _find(source: Path, split: str) -> Iterator[tuple[Path, Path]]:
    for image in sorted((source / "images" / split).iterdir()):
        yield image, source / "masks" / split / f"{image.stem}.png"


def _reduce(
    source: Path, target: Path, size: tuple[int, int], resampling: Image.Resampling
) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        image.resize((size[1], size[0]), resampling).save(target)
