"""Focal loss for transformers' Trainer, as its `compute_loss_func` or as a Trainer subclass.

A Trainer whose `compute_loss` is overridden ignores `label_smoothing_factor` silently, and so does
one with a `compute_loss_func`: the loss has to smooth the labels itself. Both forms here do, and
both divide by the number of labels in the batch of an optimizer step, which makes accumulated
batches equal to one large batch.

    args = FocalTrainingArguments(
        "out", gamma=2.0, class_counts=[900, 80, 20], label_smoothing_factor=0.1
    )
    trainer = FocalLossTrainer(model, args, …)

    focal = FocalLossFunction(gamma=2.0, alpha=[0.11, 0.45, 0.12, 0.32], label_smoothing=0.1)
    trainer = Trainer(model, args, compute_loss_func=focal, …)
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
    """Softmax focal loss of a model's outputs; formula: `objectives.losses.functional.focal`.

    Logits are (N, C) with labels (N,) or with distributions (N, C), or (N, L, C) with labels (N, L)
    for tokens; labels of `ignore_index` are left out. Labels are not shifted, as a causal language
    model would need.

    Args:
        gamma: focusing exponent; 0 is cross entropy.
        alpha: one factor, or one per class, or None.
        label_smoothing: ε in [0, 1).
        ignore_index: label of elements that are left out.

    Raises:
        ConfigError: when a number is outside its range.
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
        """Compute the mean over the valid labels, or this batch's share of a larger batch's mean.

        Args:
            outputs: of the model: with `logits`, or a tuple that begins with them.
            labels: hard or soft.
            num_items_in_batch: valid labels in all batches of the optimizer step, as the Trainer
                counts them. If there is none, the loss is 0.

        Raises:
            ConfigError: when there are no labels, or shapes, lengths or classes do not match. (On
                CUDA a label that is not a class is a device-side assertion, as with torch's cross
                entropy, because reading it would wait for the device.)
        """
        if labels is None:
            raise ConfigError(
                "the batches have no labels",
                where="labels",
                found="None",
                allowed="a column of classes",
                next_step="name the column labels, or see label_names and remove_unused_columns "
                "of TrainingArguments",
            )
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        soft = labels.is_floating_point()
        if not soft and logits.dim() == 3:
            logits = logits.flatten(0, 1)
            labels = labels.flatten()
        if not soft:
            _check_classes(labels, logits.shape[-1], self.loss.ignore_index)
        mean: Tensor = self.loss.to(logits.device)(logits, labels)
        if num_items_in_batch is None:
            return mean
        here = len(labels) if soft else (labels != self.loss.ignore_index).sum()
        # The Trainer counts the numbers in its labels; a distribution has C numbers.
        total = num_items_in_batch / logits.shape[-1] if soft else num_items_in_batch
        share = torch.as_tensor(here, device=mean.device) / torch.as_tensor(
            total, device=mean.device
        ).clamp_min(1)
        return mean * share.to(mean.dtype)


def _check_classes(labels: Tensor, classes: int, ignore_index: int) -> None:
    """Check that every label is a class or ignored; otherwise usually `num_labels` was not set."""
    known = ((labels >= 0) & (labels < classes)) | (labels == ignore_index)
    if labels.device.type != "cpu":
        torch._assert_async(known.all())  # noqa: SLF001 - torch's own losses assert in this way
    elif not known.all():
        found = int(labels[~known][0])
        raise ConfigError(
            f"the label {found} is not a class",
            where="labels",
            found=str(found),
            allowed=f"0 … {classes - 1}, or {ignore_index} to leave it out",
            next_step="set the model's num_labels to the number of classes",
        )


@dataclass
class FocalTrainingArguments(TrainingArguments):  # type: ignore[misc]
    """TrainingArguments with the focal loss's numbers. `label_smoothing_factor` has an effect.

    Attributes:
        gamma: focusing exponent; 0 is cross entropy.
        alpha: one factor per class; a single one applies to all of them.
        class_counts: training samples of every class, instead of alpha: alpha_c ∝ f_c^(−tau).
        tau: class_counts only: 0 uniform, 0.5 square root, 1 inverse frequency.
    """

    gamma: float = 2.0
    alpha: list[float] | None = field(
        default=None,
        metadata={"help": "one factor per class, or a single one for all of them"},
    )
    class_counts: list[int] | None = field(
        default=None, metadata={"help": "training samples of every class, instead of alpha"}
    )
    tau: float = 1.0

    def __post_init__(self) -> None:
        """Accept a single number as alpha, too."""
        if isinstance(self.alpha, (int, float)):
            self.alpha = [float(self.alpha)]
        super().__post_init__()


class FocalLossTrainer(Trainer):  # type: ignore[misc]
    """Trainer with the focal loss of its `FocalTrainingArguments`."""

    _focal: tuple[str, FocalLossFunction] | None = None

    @property
    def compute_loss_func(self) -> FocalLossFunction:
        """Loss of the current arguments; transformers' hyperparameter search changes them."""
        names = ("gamma", "alpha", "class_counts", "tau", "label_smoothing_factor")
        current = repr([getattr(self.args, name, None) for name in names])
        if self._focal is None or self._focal[0] != current:
            self._focal = (current, _build_loss(self.args))
        return self._focal[1]

    @compute_loss_func.setter
    def compute_loss_func(self, given: Any) -> None:
        if given is not None:
            raise ConfigError(
                "a FocalLossTrainer has a loss of its own",
                where="compute_loss_func",
                found=repr(given)[:100],
                allowed="None",
                next_step="pass it to a plain Trainer",
            )


def _build_loss(args: Any) -> FocalLossFunction:
    """Build the loss that the arguments describe."""
    if not isinstance(args, FocalTrainingArguments):
        raise ConfigError(
            "the loss's numbers are missing",
            where="args",
            found=type(args).__name__,
            allowed="FocalTrainingArguments",
            next_step="build the arguments as FocalTrainingArguments(…)",
        )
    alpha: float | list[float] | None = args.alpha
    if args.alpha is not None and len(args.alpha) == 1:
        alpha = args.alpha[0]
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
