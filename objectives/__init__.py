"""Objectives: a configuration in, epoch records out; and the losses, for any training loop.

The names below are the public ones. They are imported at first use: `import objectives` loads no
torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objectives.contract import Checkpoints, NoCheckpoints, Objective, Trainer
    from objectives.losses import (
        CombinedLoss,
        Criterion,
        CrossEntropyLoss,
        DiceLoss,
        FocalLoss,
        GradientShares,
        LibraryLoss,
        LossParts,
        NormalizedCombinedLoss,
        build_criterion,
        cross_entropy,
        dice,
        focal,
        gradient_shares,
    )
    from objectives.losses.class_weights import ClassWeights, class_weights, focal_alpha
    from objectives.registry import OBJECTIVES, objective
    from objectives.schedules import EpochValues, values_at
    from objectives.testing import ObjectiveContract
    from objectives.text.trainer import FocalLossFunction, FocalLossTrainer, FocalTrainingArguments
else:
    from spaces.lazy_exports import lazy_exports

    __getattr__ = lazy_exports(
        __name__,
        {
            "objectives.contract": ("Checkpoints", "NoCheckpoints", "Objective", "Trainer"),
            "objectives.losses": (
                "CombinedLoss",
                "Criterion",
                "CrossEntropyLoss",
                "DiceLoss",
                "FocalLoss",
                "GradientShares",
                "LibraryLoss",
                "LossParts",
                "NormalizedCombinedLoss",
                "build_criterion",
                "cross_entropy",
                "dice",
                "focal",
                "gradient_shares",
            ),
            "objectives.losses.class_weights": ("ClassWeights", "class_weights", "focal_alpha"),
            "objectives.registry": ("OBJECTIVES", "objective"),
            "objectives.schedules": ("EpochValues", "values_at"),
            "objectives.testing": ("ObjectiveContract",),
            "objectives.text.trainer": (
                "FocalLossFunction",
                "FocalLossTrainer",
                "FocalTrainingArguments",
            ),
        },
    )

__all__ = [
    "OBJECTIVES",
    "Checkpoints",
    "ClassWeights",
    "CombinedLoss",
    "Criterion",
    "CrossEntropyLoss",
    "DiceLoss",
    "EpochValues",
    "FocalLoss",
    "FocalLossFunction",
    "FocalLossTrainer",
    "FocalTrainingArguments",
    "GradientShares",
    "LibraryLoss",
    "LossParts",
    "NoCheckpoints",
    "NormalizedCombinedLoss",
    "Objective",
    "ObjectiveContract",
    "Trainer",
    "build_criterion",
    "class_weights",
    "cross_entropy",
    "dice",
    "focal",
    "focal_alpha",
    "gradient_shares",
    "objective",
    "values_at",
]
