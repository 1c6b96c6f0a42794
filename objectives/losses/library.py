"""Further losses, by segmentation_models_pytorch's own code behind the same configuration. Speed is not the point of these.

What they mean there: Tversky and Jaccard run over the whole batch and leave a class that the target lacks in the mean
at 0; Jaccard is Tversky with alpha = beta = 1, whose code knows an ignored label; Lovász-softmax averages over the
classes in the target and waits for the device; soft cross entropy divides by all elements, ignored ones too, and knows
no class weights. Under gradient accumulation each is the mean over the batches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from objectives.losses import checks, functional
from objectives.losses.softmax import elements

OVERLAPS = ("jaccard", "tversky", "lovasz")
NAMES = (*OVERLAPS, "soft_ce")


class LibraryLoss(nn.Module):
    """One of the library's losses, in float32 whatever autocast says, and 0 with zero gradient where nothing is valid.

    Args:
        name: of `NAMES`.
        smooth: smoothing constant of Tversky and Jaccard.
        tversky_alpha: weight of false positives.
        tversky_beta: weight of false negatives.
        label_smoothing: of soft cross entropy.

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
        checks.one_of("loss", name, NAMES)
        for what, value in (
            ("smooth", smooth),
            ("tversky_alpha", tversky_alpha),
            ("tversky_beta", tversky_beta),
        ):
            checks.not_negative(what, value)
        checks.share("label_smoothing", label_smoothing)
        self.name, self.ignore_index, self.label_smoothing = name, ignore_index, label_smoothing
        self.tversky_alpha, self.tversky_beta = tversky_alpha, tversky_beta
        self.register_buffer("smooth", torch.tensor(smooth, dtype=torch.float64), persistent=False)

    smooth: Tensor

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The scalar loss of logits (N, C, …) and target (N, …).

        Raises:
            ConfigError: when the shapes do not fit.
        """
        checks.hard_target(logits, target)
        z_NCL1, classes = (
            elements(logits).float().unsqueeze(3),
            logits.shape[1],
        )  # of images, as not every loss there takes lines
        row_NL1 = functional.rows(target, classes, self.ignore_index).unsqueeze(2)
        nothing = z_NCL1.sum() * 0
        if classes == 1 or target.numel() == 0:
            return nothing
        with torch.autocast(logits.device.type, enabled=False):
            value = self._made(classes)(z_NCL1, row_NL1)
        return (
            torch.where((row_NL1 < classes).any(), value.sum(), nothing)
            if value.numel()
            else nothing
        )

    def used(self) -> dict[str, Any]:
        """Dotted path → value of what takes part."""
        if self.name == "soft_ce":
            return {"loss.kind": "soft_ce", "loss.label_smoothing": self.label_smoothing}
        used: dict[str, Any] = {"loss.overlap": self.name}
        if self.name == "lovasz":
            return used
        used["loss.smooth"] = self.smooth.item()
        return used | (
            {"loss.tversky_alpha": self.tversky_alpha, "loss.tversky_beta": self.tversky_beta}
            if self.name == "tversky"
            else {}
        )

    def _made(self, classes: int) -> nn.Module:
        """The library's module; made anew, as the smoothing constant may follow a schedule. C is the ignored label."""
        from segmentation_models_pytorch import losses

        if self.name == "lovasz":
            made: nn.Module = losses.LovaszLoss("multiclass", ignore_index=classes)
        elif self.name == "soft_ce":
            made = losses.SoftCrossEntropyLoss(
                smooth_factor=self.label_smoothing, ignore_index=classes
            )
        else:
            alpha, beta = (
                (1.0, 1.0) if self.name == "jaccard" else (self.tversky_alpha, self.tversky_beta)
            )
            made = losses.TverskyLoss(
                "multiclass", smooth=self.smooth, ignore_index=classes, alpha=alpha, beta=beta
            )
        return made
