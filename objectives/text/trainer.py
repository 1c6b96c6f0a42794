"""The focal loss for people who train with transformers' Trainer: as its `compute_loss_func`, or as a Trainer of its own.

A Trainer whose `compute_loss` is overridden forgets `label_smoothing_factor` without a word, and so does one that is given
a `compute_loss_func`: whoever computes the loss has to smooth the labels. Both forms here do, and both divide by the number
of labels in the whole batch of an optimiser step, which is what makes accumulated batches equal to one large batch.

    trainer = FocalLossTrainer(model, FocalTrainingArguments("out", gamma=2.0, class_counts=[900, 80, 20], label_smoothing_factor=0.1), …)
    trainer = Trainer(model, args, compute_loss_func=FocalLossFunction(gamma=2.0, alpha=[0.11, 0.45, 0.12, 0.32], label_smoothing=0.1), …)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from objectives.losses import FocalLoss
from objectives.losses.class_weights import focal_alpha
from objectives.text.tokens import IGNORE
from spaces.errors import ConfigError
from spaces.records import ClassCounts


class FocalLossFunction:
    """The softmax focal loss of a model's outputs, see `objectives.losses.functional.focal` for the formula.

    Logits are (N, C) with labels (N,) or with distributions (N, C), or (N, L, C) with labels (N, L) for tokens; labels of
    `ignore_index` count for nothing. Logits and labels are compared as they stand: nothing is shifted, as a causal
    language model would need it.

    Args:
        gamma: focusing exponent; 0 is cross entropy.
        alpha: one factor, or one for every class, or None.
        label_smoothing: ε in [0, 1).
        ignore_index: label of what counts for nothing.

    Raises:
        ConfigError: when a number lies outside its range.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        *,
        label_smoothing: float = 0.0,
        ignore_index: int = IGNORE,
    ) -> None:
        self.loss = FocalLoss(
            gamma, alpha, ignore_index=ignore_index, label_smoothing=label_smoothing
        )

    def __call__(
        self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | float | None = None
    ) -> Tensor:
        """The mean over the labels that count, or this batch's share of the mean over a larger one.

        Args:
            outputs: of the model: with `logits`, or a tuple that begins with them.
            labels: hard or soft.
            num_items_in_batch: labels that count in all batches of the optimiser step, as the Trainer counts them. Where there
                is none, the loss is 0.

        Raises:
            ConfigError: when there are no labels, or shapes, lengths or classes do not fit. (On CUDA a label that is no class
                is a device-side assertion, as with torch's cross entropy: asking would wait for the device.)
        """
        if labels is None:
            raise ConfigError(
                "the batches have no labels",
                where="labels",
                found="None",
                allowed="a column of classes",
                next_step="name the column labels, or see label_names and remove_unused_columns of TrainingArguments",
            )
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        soft = labels.is_floating_point()
        if not soft and logits.dim() == 3:
            logits, labels = logits.flatten(0, 1), labels.flatten()
        if not soft:
            _check_classes(labels, logits.shape[-1], self.loss.ignore_index)
        mean: Tensor = self.loss.to(logits.device)(logits, labels)
        if num_items_in_batch is None:
            return mean
        here = len(labels) if soft else (labels != self.loss.ignore_index).sum()
        # The Trainer counts the numbers in its labels, and a distribution is C of them.
        whole = num_items_in_batch / logits.shape[-1] if soft else num_items_in_batch
        return mean * (
            torch.as_tensor(here, device=mean.device)
            / torch.as_tensor(whole, device=mean.device).clamp_min(1)
        ).to(mean.dtype)


def _check_classes(labels: Tensor, classes: int, ignore_index: int) -> None:
    """Whether every label is a class or to be ignored. The usual cause of one that is not is a `num_labels` left as it was."""
    known = ((labels >= 0) & (labels < classes)) | (labels == ignore_index)
    if labels.device.type != "cpu":
        torch._assert_async(known.all())  # noqa: SLF001 - torch's own losses assert in this way
    elif not known.all():
        found = int(labels[~known][0])
        raise ConfigError(
            f"the label {found} is no class",
            where="labels",
            found=str(found),
            allowed=f"0 … {classes - 1}, or {ignore_index} for what counts for nothing",
            next_step="give the model as many num_labels as there are classes",
        )


@dataclass
class FocalTrainingArguments(TrainingArguments):  # type: ignore[misc]
    """What a Trainer is told, and the focal loss's own numbers. `label_smoothing_factor` takes effect.

    Attributes:
        gamma: focusing exponent; 0 is cross entropy.
        alpha: one factor for every class; a single one is for all of them.
        class_counts: training samples of every class, in place of alpha: alpha_c ∝ f_c^(−tau).
        tau: class_counts only: 0 uniform, 0.5 square root, 1 inverse frequency.
    """

    gamma: float = 2.0
    alpha: list[float] | None = field(
        default=None,
        metadata={"help": "one factor for every class, or a single one for all of them"},
    )
    class_counts: list[int] | None = field(
        default=None, metadata={"help": "training samples of every class, in place of alpha"}
    )
    tau: float = 1.0

    def __post_init__(self) -> None:
        """A single number is taken, too."""
        if isinstance(self.alpha, (int, float)):
            self.alpha = [float(self.alpha)]
        super().__post_init__()


class FocalLossTrainer(Trainer):  # type: ignore[misc]
    """A Trainer with the focal loss of its `FocalTrainingArguments`."""

    _focal: tuple[str, FocalLossFunction] | None = None

    @property
    def compute_loss_func(self) -> FocalLossFunction:
        """The loss of the arguments as they are now: a hyperparameter search of transformers changes them between two trials."""
        names = ("gamma", "alpha", "class_counts", "tau", "label_smoothing_factor")
        told = repr([getattr(self.args, name, None) for name in names])
        if self._focal is None or self._focal[0] != told:
            self._focal = (told, _from_arguments(self.args))
        return self._focal[1]

    @compute_loss_func.setter
    def compute_loss_func(self, given: Any) -> None:
        if given is not None:
            raise ConfigError(
                "a FocalLossTrainer has a loss of its own",
                where="compute_loss_func",
                found=repr(given)[:100],
                allowed="None",
                next_step="give it to a plain Trainer",
            )


def _from_arguments(args: Any) -> FocalLossFunction:
    """The loss that the arguments describe."""
    if not isinstance(args, FocalTrainingArguments):
        raise ConfigError(
            "the loss's numbers are missing",
            where="args",
            found=type(args).__name__,
            allowed="FocalTrainingArguments",
            next_step="build the arguments as FocalTrainingArguments(…)",
        )
    alpha: float | list[float] | None = (
        args.alpha[0] if args.alpha is not None and len(args.alpha) == 1 else args.alpha
    )
    if args.class_counts is not None:
        if alpha is not None:
            raise ConfigError(
                "alpha and class_counts exclude each other",
                where="args",
                found="both",
                allowed="one of them",
                next_step="set one of them to None",
            )
        names = tuple(str(index) for index in range(len(args.class_counts)))
        alpha = focal_alpha(ClassCounts(names, tuple(args.class_counts)), args.tau).tolist()
    return FocalLossFunction(args.gamma, alpha, label_smoothing=args.label_smoothing_factor)
