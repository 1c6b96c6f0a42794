"""The losses that can be searched. The names below are the public ones."""

from objectives.losses.build import build_criterion
from objectives.losses.combined import Balance, CombinedLoss, LossParts, NormalizedCombinedLoss
from objectives.losses.functional import cross_entropy, dice, focal
from objectives.losses.modules import CrossEntropyLoss, DiceLoss, FocalLoss

__all__ = [
    "Balance",
    "CombinedLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "LossParts",
    "NormalizedCombinedLoss",
    "build_criterion",
    "cross_entropy",
    "dice",
    "focal",
]
