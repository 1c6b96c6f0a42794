"""Losses that can be searched. The names below are the public ones."""

from objectives.losses.balance import Balance
from objectives.losses.build import Criterion, build_criterion
from objectives.losses.combined import CombinedLoss, LossParts
from objectives.losses.functional import cross_entropy, dice, focal
from objectives.losses.gradient import GradientShares, gradient_shares
from objectives.losses.library import LibraryLoss
from objectives.losses.modules import CrossEntropyLoss, DiceLoss, FocalLoss
from objectives.losses.normalized_combined import NormalizedCombinedLoss

__all__ = [
    "Balance",
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
]
