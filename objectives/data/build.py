"""Build the data set of a configuration, its fingerprint and its class counts."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from objectives.data import digits, folder
from objectives.data.config import DataConfig, DigitsData
from objectives.data.loading import Batch, Key, SegmentationData
from spaces.records import ClassCounts


class SceneSplit:
    """Decoded scenes in memory, standardized once."""

    def __init__(self, scenes: digits.Scenes) -> None:
        gray_NHW = torch.from_numpy(scenes.images_NHW.astype(np.float32))
        self.images_NCHW = ((gray_NHW - digits.MEAN_GRAY) / digits.STD_GRAY).unsqueeze(1)
        self.target_NHW = torch.from_numpy(scenes.masks_NHW.astype(np.int64))

    def __len__(self) -> int:
        return len(self.target_NHW)

    def __getitems__(self, keys: list[Key]) -> Batch:
        index = torch.tensor([key for key, _ in keys])
        return self.images_NCHW[index], self.target_NHW[index]


def build_data(config: DataConfig) -> SegmentationData:
    """Build the data set of a configuration.

    Raises:
        DataError: when files are missing, unreadable, or do not match the configuration.
    """
    if not isinstance(config, DigitsData):
        return folder.build_folder(config)
    splits = {name: SceneSplit(scenes) for name, scenes in digits.load_scenes(config).items()}
    return SegmentationData(
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        class_names=digits.class_names(config),
        ignore_index=digits.IGNORE,
        channels=1,
        height=config.size,
        width=config.size,
    )


def fingerprint(config: DataConfig) -> str:
    """Identify the data: by the configuration, and for files by their names, sizes and times."""
    if isinstance(config, DigitsData):
        parts = [config.model_dump_json(), str(digits.VERSION)]
    else:  # how images are decoded changes no count
        counted = {"root", "classes", "ignore_index", "image_suffix", "mask_suffix"}
        parts = [config.model_dump_json(include=counted), *folder.file_marks(config)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def count_classes(config: DataConfig) -> ClassCounts:
    """Count the valid training pixels of every class; ignored pixels are left out.

    Raises:
        DataError: when a mask contains a value that is neither a class nor ignored.
    """
    if not isinstance(config, DigitsData):
        return folder.count_folder(config)
    masks_NHW = digits.load_scenes(config)["train"].masks_NHW
    counts = np.bincount(masks_NHW[masks_NHW != digits.IGNORE], minlength=config.classes)
    return ClassCounts(digits.class_names(config), tuple(int(count) for count in counts))
