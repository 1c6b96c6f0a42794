"""Losses of segmentation_models_pytorch, by its own code and behind the same configuration.

How it defines them: Tversky and Jaccard run over the whole batch and keep a class that the target
does not contain in the mean at 0; Jaccard is Tversky with alpha = beta = 1, whose code supports an
ignored label; Lovász-softmax averages over the classes in the target and waits for the device; soft
cross entropy divides by all elements, also ignored ones, and has no class weights. Under gradient
accumulation each is the mean over the batches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from objectives.losses import checks
from objectives.losses.batch_sums import label_rows
from objectives.losses.softmax import flatten_elements

OVERLAPS = ("jaccard", "tversky", "lovasz")
NAMES = (*OVERLAPS, "soft_ce")


class LibraryLoss(nn.Module):
    """One of the library's losses, in float32 whatever autocast is, and 0 if nothing is valid.

    Args:
        name: of `NAMES`.
        smooth: smoothing constant of Tversky and Jaccard.
        tversky_alpha: weight of false positives.
        tversky_beta: weight of false negatives.
        label_smoothing: of soft cross entropy.
        ignore_index: label of the elements that are left out.

    Raises:
        ConfigError: for an unknown name, or a number outside its range.
    """

    def __init__(
        self,
        name: str,
        *,
        smooth: float = 0.0,
        tversky_alpha: float = 0.5,
        tversky_beta: float = 0.5,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        checks.check_choice("loss", name, NAMES)
        for what, value in (
            ("smooth", smooth),
            ("tversky_alpha", tversky_alpha),
            ("tversky_beta", tversky_beta),
        ):
            checks.check_not_negative(what, value)
        checks.check_share("label_smoothing", label_smoothing)
        self.name = name
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.tversky_alpha = tversky_alpha
        self.tversky_beta = tversky_beta
        self.register_buffer("smooth", torch.tensor(smooth, dtype=torch.float64), persistent=False)

    smooth: Tensor

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the scalar loss of logits (N, C, …) and target (N, …).

        Raises:
            ConfigError: when the shapes do not match.
        """
        checks.check_hard_target(logits, target)
        classes = logits.shape[1]
        z_NCL1 = (
            flatten_elements(logits).float().unsqueeze(3)
        )  # images, as some losses accept nothing else
        row_NL1 = label_rows(target, classes, self.ignore_index).unsqueeze(2)
        nothing = z_NCL1.sum() * 0
        if classes == 1 or target.numel() == 0:
            return nothing
        with torch.autocast(logits.device.type, enabled=False):
            value = self._build_loss(classes)(z_NCL1, row_NL1)
        if not value.numel():
            return nothing
        return torch.where((row_NL1 < classes).any(), value.sum(), nothing)

    def used(self) -> dict[str, Any]:
        """Return dotted path → value of what has an effect."""
        if self.name == "soft_ce":
            return {"loss.kind": "soft_ce", "loss.label_smoothing": self.label_smoothing}
        used: dict[str, Any] = {"loss.overlap": self.name}
        if self.name == "lovasz":
            return used
        used["loss.smooth"] = self.smooth.item()
        if self.name == "tversky":
            used["loss.tversky_alpha"] = self.tversky_alpha
            used["loss.tversky_beta"] = self.tversky_beta
        return used

    def _build_loss(self, classes: int) -> nn.Module:
        """Build the library's module; for every call, as a schedule may change the smoothing.

        The ignored label is C.
        """
        from segmentation_models_pytorch import losses

        loss: nn.Module
        if self.name == "lovasz":
            loss = losses.LovaszLoss("multiclass", ignore_index=classes)
        elif self.name == "soft_ce":
            loss = losses.SoftCrossEntropyLoss(
                smooth_factor=self.label_smoothing, ignore_index=classes
            )
        else:
            jaccard = self.name == "jaccard"
            loss = losses.TverskyLoss(
                "multiclass",
                smooth=self.smooth,
                ignore_index=classes,
                alpha=1.0 if jaccard else self.tversky_alpha,
                beta=1.0 if jaccard else self.tversky_beta,
            )
        return loss
