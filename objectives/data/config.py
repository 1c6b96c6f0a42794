"""Configuration of segmentation data sets. No torch: a plan checks it before any training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator
from pydantic_core import PydanticCustomError

from spaces.frozen import Frozen

PART_OF_A_NAME = r"^[^/\\]*$"
"""No slash: whatever a YAML says, a mask is in the folder of the masks."""


class DigitsData(Frozen):
    """Embedded data set: scenes of handwritten digits with a long tail (no download)."""

    kind: Literal["digits"] = "digits"
    classes: int = Field(
        default=7, ge=2, le=9, description="background and digits, from frequent to rare"
    )
    size: int = Field(default=48, ge=32, le=256, description="edge of a scene, pixels")
    train_scenes: int = Field(default=192, ge=8)
    val_scenes: int = Field(default=64, ge=8)
    test_scenes: int = Field(default=96, ge=8)
    digits_per_scene: int = Field(default=3, ge=1)
    distractors_per_scene: int = Field(default=1, ge=0)
    tail: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="how often a digit is placed, relative to the one before it",
    )
    noise: float = Field(default=8.0, ge=0, description="standard deviation, gray values")
    seed: int = Field(default=0, ge=0)


class FolderData(Frozen):
    """Images and masks in folders: `<root>/images/<split>/**` and `<root>/masks/<split>/**`.

    Splits are `train`, `val` and, optionally, `test`.
    """

    kind: Literal["folder"]
    root: str = Field(
        description="folder with images/ and masks/; relative to the working directory"
    )
    classes: tuple[str, ...] = Field(
        min_length=2, description="names of the classes, in the order of the mask values 0, 1, …"
    )
    ignore_index: int = Field(
        default=255, ge=0, le=255, description="mask value of pixels that are left out"
    )
    height: int = Field(default=512, ge=32)
    width: int = Field(default=1024, ge=32)
    crop: tuple[int, int] | None = Field(
        default=None, description="height and width of random training crops; null: whole images"
    )
    flip: bool = Field(default=True, description="mirror training images left to right at random")
    mask_suffix: str = Field(
        default="",
        pattern=PART_OF_A_NAME,
        description="what follows the common part of the names in a mask's, such as _labelIds",
    )
    image_suffix: str = Field(
        default="",
        pattern=PART_OF_A_NAME,
        description="what follows the common part in an image's, such as _leftImg8bit",
    )
    mean: tuple[float, float, float] = Field(
        default=(0.485, 0.456, 0.406), description="per channel, of values in 0 … 1"
    )
    std: tuple[float, float, float] = Field(default=(0.229, 0.224, 0.225))
    loader_workers: int = Field(
        default=2, ge=0, description="processes that decode images, per search worker"
    )

    @field_validator("classes")
    @classmethod
    def _check_unique(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise PydanticCustomError(
                "class_named_twice",
                "a class is named twice in {names}",
                {"names": str(list(names))},
            )
        return names


def _kind_of(given: Any) -> str:
    """Return the kind of data; the embedded data if none is named."""
    if isinstance(given, dict):
        return str(given.get("kind", "digits"))
    return str(getattr(given, "kind", "digits"))


DataConfig = Annotated[
    Annotated[DigitsData, Tag("digits")] | Annotated[FolderData, Tag("folder")],
    Discriminator(_kind_of),
]
