"""Text classification: the data, model and metrics with which `objectives.training.loop` trains.

The loop is the project's own and not transformers' Trainer, so that recording, guarding, scheduling
and resuming are the same as in segmentation. For the loss in a Trainer see
`objectives.text.trainer`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.metadata import version

import torch

from objectives.contract import Checkpoints
from objectives.losses.build import check_alpha
from objectives.text import docstrings, tables
from objectives.text.config import DocstringsData, TextConfig
from objectives.text.model import build_model, used_model
from objectives.text.texts import Texts
from objectives.text.tokens import TokenData, tokenize_texts
from objectives.training import rate_probe
from objectives.training.loop import Training, run_training
from objectives.training.metrics import ConfusionMatrix
from objectives.training.validation import Metrics
from spaces.rate_probe import ProbeStep
from spaces.records import ClassCounts, EpochRecord

METRICS: Metrics = {
    "macro_f1": ConfusionMatrix.macro_f1,
    "accuracy": ConfusionMatrix.pixel_accuracy,
}


def fingerprint(config: TextConfig) -> str:
    """Identify the data of class counts, by configuration and by files or Python version."""
    data = config.data
    marks = (
        docstrings.source_marks() if isinstance(data, DocstringsData) else tables.file_marks(data)
    )
    return hashlib.sha256("\n".join([data.model_dump_json(), *marks]).encode()).hexdigest()[:32]


def count_classes(config: TextConfig) -> ClassCounts:
    """Count the training texts of every class.

    Raises:
        DataError: when the texts cannot be read, or do not match the configuration.
    """
    return _load_texts(config).count_classes()


def prepare(config: TextConfig, device: str) -> TokenData:
    """Tokenize the texts, after checking that the model can be built.

    Raises:
        DataError: when the texts cannot be read, or do not match the configuration.
        ConfigError: when tokenizer or model cannot be loaded, or alpha does not fit the classes.
    """
    data = tokenize_texts(_load_texts(config), config.model)
    check_alpha(config.loss, data.class_names)
    with torch.random.fork_rng(devices=[]):
        build_model(config.model, data)
    return data


def train(
    config: TextConfig, data: TokenData, counts: ClassCounts, device: str, checkpoints: Checkpoints
) -> Iterator[EpochRecord]:
    """Train and yield one record per epoch; see `objectives.training.loop.run_training`.

    Raises:
        OutOfMemoryError: when the device or the host does not have enough memory.
    """
    return run_training(
        lambda: Run(config, data, counts, torch.device(device), checkpoints), device, checkpoints
    )


def probe_rates(
    config: TextConfig, data: TokenData, counts: ClassCounts, device: str
) -> Iterator[ProbeStep]:
    """Train with a growing learning rate; see `objectives.training.rate_probe.probe_rates`.

    Raises:
        OutOfMemoryError: when the device or the host does not have enough memory.
    """
    return rate_probe.probe_rates(lambda: Run(config, data, counts, torch.device(device)), device)


class Run(Training):
    """One training of a text classifier."""

    def __init__(
        self,
        config: TextConfig,
        data: TokenData,
        counts: ClassCounts,
        device: torch.device,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        model = build_model(config.model, data).to(device)
        used = used_model(config.model, model, data)
        for package in ("transformers", "tokenizers"):
            used[f"environment.{package}"] = version(package)
        super().__init__(config, model, data, counts, METRICS, checkpoints, used)


def _load_texts(config: TextConfig) -> Texts:
    if isinstance(config.data, DocstringsData):
        return docstrings.load_docstrings(config.data)
    return tables.load_table(config.data)
