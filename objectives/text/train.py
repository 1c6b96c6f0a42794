"""Text classification: the data, the model and the metrics that `objectives.training.loop` is done with.

The loop is the project's own and not transformers' Trainer: what is recorded, guarded, scheduled and resumed is then the
very same as in segmentation, and reads top to bottom. Who wants the loss in a Trainer finds it in `objectives.text.trainer`.
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
from objectives.text.tokens import TokenData, tokenised
from objectives.training.loop import Training, trained
from objectives.training.metrics import ConfusionMatrix
from objectives.training.validation import Metrics
from spaces.records import ClassCounts, EpochRecord

METRICS: Metrics = {
    "macro_f1": ConfusionMatrix.macro_f1,
    "accuracy": ConfusionMatrix.pixel_accuracy,
}


def fingerprint(config: TextConfig) -> str:
    """What the class counts belong to: the configuration of the data, and their files or the Python that they come from."""
    data = config.data
    marks = docstrings.marks() if isinstance(data, DocstringsData) else tables.marks(data)
    return hashlib.sha256("\n".join([data.model_dump_json(), *marks]).encode()).hexdigest()[:32]


def count_classes(config: TextConfig) -> ClassCounts:
    """Training texts of every class.

    Raises:
        DataError: when the texts cannot be read, or do not fit the configuration.
    """
    return _texts(config).counts()


def prepare(config: TextConfig, device: str) -> TokenData:
    """The texts as tokens, after checking that the model can be built.

    Raises:
        DataError: when the texts cannot be read, or do not fit the configuration.
        ConfigError: when tokeniser or model cannot be had, or alpha does not fit the classes.
    """
    data = tokenised(_texts(config), config.model)
    check_alpha(config.loss, data.class_names)
    with torch.random.fork_rng(devices=[]):
        build_model(config.model, data)
    return data


def train(
    config: TextConfig, data: TokenData, counts: ClassCounts, device: str, checkpoints: Checkpoints
) -> Iterator[EpochRecord]:
    """Train, one record an epoch; see `objectives.training.loop.trained`.

    Raises:
        OutOfMemoryError: when the device, or the host, has not the memory for it.
    """
    return trained(
        lambda: Run(config, data, counts, torch.device(device), checkpoints), device, checkpoints
    )


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
        super().__init__(config, model, data, counts, METRICS, checkpoints)
        self.used |= used_model(config.model, model, data)
        self.used |= {
            f"environment.{package}": version(package) for package in ("transformers", "tokenizers")
        }


def _texts(config: TextConfig) -> Texts:
    return (
        docstrings.load_docstrings(config.data)
        if isinstance(config.data, DocstringsData)
        else tables.load_table(config.data)
    )
