"""Class weights (mean 1, bounded ratio) and focal alphas from class frequencies, in numpy.

f_c is the frequency of class c among the valid (not ignored) pixels or samples. Sums use
`math.fsum`, which rounds once whatever the order: permuting the classes permutes the weights and
changes no bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from spaces.config import WeightMethod, WeightsConfig
from spaces.errors import ConfigError, nearest
from spaces.records import ClassCounts

Floats = NDArray[np.float64]
Float = TypeVar("Float", np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class ClassWeights:
    """Class weights, and which classes had no pixel.

    Attributes:
        names: of the classes.
        weights: one per class, (C,).
        ratio: largest over smallest weight.
        absent: names of the classes without a pixel, about which a caller warns.
    """

    names: tuple[str, ...]
    weights: Floats
    ratio: float
    absent: tuple[str, ...]


def class_weights(counts: ClassCounts, config: WeightsConfig) -> ClassWeights:
    """Compute weights by `config.method`, with mean 1 and max/min at most `config.clip_ratio`.

    A class without a pixel has no frequency: its weight is 1 and it is left out of the mean. The
    ratio is bounded exactly, also after a conversion to float32; the mean is then 1 to within
    float32's rounding.

    Args:
        counts: valid pixels, or samples, of every class.
        config: method and clip ratio.

    Raises:
        ConfigError: when there is not one count per name, or one is negative.
    """
    present = _present_classes(counts)
    weights = np.ones(len(present))
    if present.any():
        raw = _RAW[config.method](np.array(counts.counts, dtype=np.float64)[present], config.beta)
        weights[present] = _clip_ratio(_scale_to_mean_one(raw), config.clip_ratio)
    if config.clip_ratio is not None:
        weights = _bound_exactly(weights, config.clip_ratio)
    return ClassWeights(
        counts.names, weights, float(weights.max() / weights.min()), absent_classes(counts)
    )


def focal_alpha(
    counts: ClassCounts, tau: float, factors: Mapping[str, float] = MappingProxyType({})
) -> Floats:
    """Compute alpha_c ∝ f_c^(−tau)·factor_c of the focal loss, with Σ f_c·alpha_c = 1; shape (C,).

    That sum is the mean over the pixels. It is fixed, and not the mean over the classes, because
    the focal loss averages over pixels: tau then changes the balance of the classes and not the
    scale of the loss, hence not the meaning of the learning rate. Classes without a pixel get 1.

    Factors by name search alpha on the simplex: the logarithms of their ratios to a class that is
    not named, whose factor is 1, are its additive log-ratio coordinates (Aitchison 1982).

    Args:
        counts: valid pixels, or samples, of every class.
        tau: 0 uniform, 0.5 square root, 1 inverse frequency.
        factors: class → factor; 1 for a class that is not named.

    Raises:
        ConfigError: when tau is negative or not finite, a factor's class is unknown, or the counts
            are unusable.
    """
    unknown = [name for name in factors if name not in counts.names]
    if unknown:
        raise ConfigError(
            f"there is no class {unknown[0]!r}{nearest(unknown[0], counts.names)}",
            where="loss.class_alpha",
            found=unknown[0],
            allowed=", ".join(counts.names),
            next_step="name classes of the data set",
        )
    if not 0 <= tau < math.inf:
        raise ConfigError(
            f"alpha_tau must not be negative, but is {tau}",
            where="loss.alpha_tau",
            found=str(tau),
            allowed="0 … 1",
        )
    present = _present_classes(counts)
    alpha = np.ones(len(present))
    if present.any():
        frequencies = _class_frequencies(np.array(counts.counts, dtype=np.float64)[present])
        raw = (
            frequencies**-tau * np.array([factors.get(name, 1.0) for name in counts.names])[present]
        )
        alpha[present] = raw / math.fsum(frequencies * raw)
    return alpha


def absent_classes(counts: ClassCounts) -> tuple[str, ...]:
    """Return the names of the classes without a pixel."""
    return tuple(
        name for name, count in zip(counts.names, counts.counts, strict=True) if count == 0
    )


def _present_classes(counts: ClassCounts) -> NDArray[np.bool_]:
    """Return which classes have a pixel, after checking the counts."""
    names = len(counts.names)
    numbers = len(counts.counts)
    if names != numbers or names == 0:
        raise ConfigError(
            "every class needs one count",
            where="class counts",
            found=f"{names} names and {numbers} counts",
            allowed=f"{names or 1} of each",
        )
    if min(counts.counts) < 0:
        lowest = min(counts.counts)
        raise ConfigError(
            f"a class count must not be negative, but one is {lowest}",
            where="class counts",
            found=str(lowest),
            allowed="0 or more",
        )
    return np.array([count > 0 for count in counts.counts])


def _class_frequencies(counts: Floats) -> Floats:
    return counts / math.fsum(counts)


def _scale_to_mean_one(weights: Floats) -> Floats:
    """Divide by the mean; equal weights become exactly 1, without the rounding of a division."""
    if weights.max() == weights.min():
        return np.ones_like(weights)
    scaled: Floats = weights / (math.fsum(weights) / len(weights))
    return scaled


def _clip_ratio(weights: Floats, ratio: float | None) -> Floats:
    """Clamp to [1/√r, √r] and divide by the mean again, so that max/min ≤ r up to rounding."""
    if ratio is None:
        return weights
    bound = math.sqrt(ratio)
    return _scale_to_mean_one(np.clip(weights, 1 / bound, bound))


def _bound_exactly(weights: Floats, ratio: float) -> Floats:
    """Lower the largest weights by the last bits that rounding added above the ratio.

    The bound then applies without a tolerance to the numbers, to the numbers in float32, and to
    their quotient in float32: hence the largest float32 below `ratio` for rounded weights.
    """
    narrow = weights.astype(np.float32)
    cap = _largest_within(weights.min(), ratio)
    narrow_cap = _largest_within(narrow.min(), _round_down(ratio))
    if weights.max() <= cap and narrow.max() <= narrow_cap:
        return weights
    return np.minimum(weights, min(float(cap), float(narrow_cap)))


def _largest_within(lowest: Float, ratio: float) -> Float:
    """Return the largest number of `lowest`'s type that is at most ratio·lowest, exactly."""
    kind = type(lowest)
    limit = Fraction(ratio) * Fraction(float(lowest))
    cap = kind(float(limit))
    while Fraction(float(cap)) > limit:
        cap = np.nextafter(cap, kind(0))
    return cap


def _round_down(ratio: float) -> float:
    """Return the largest float32 that is at most `ratio`."""
    return float(_largest_within(np.float32(1), ratio))


def _weigh_uniform(counts: Floats, _: float) -> Floats:
    return np.ones_like(counts)


def _inverse_freq(counts: Floats, _: float) -> Floats:
    return 1 / _class_frequencies(counts)


def _sqrt_inv_freq(counts: Floats, _: float) -> Floats:
    return 1 / np.sqrt(_class_frequencies(counts))


def _median_freq(counts: Floats, _: float) -> Floats:
    """Compute median(f)/f (Eigen & Fergus 2015), f over the whole split."""
    frequencies = _class_frequencies(counts)
    return np.median(frequencies) / frequencies


def _effective_number(counts: Floats, beta: float) -> Floats:
    """Compute (1−β)/(1−β^n) (Cui et al. 2019)."""
    # expm1 keeps the digits that 1 − β^n loses for β near 1 and few samples.
    log_beta = math.log(beta) if beta > 0 else -math.inf
    return (1 - beta) / -np.expm1(counts * log_beta)


def _log_inv_freq(counts: Floats, _: float) -> Floats:
    """Compute 1/ln(1.02 + f) (ENet, Paszke et al. 2016)."""
    return 1 / np.log(1.02 + _class_frequencies(counts))


_RAW: dict[WeightMethod, Callable[[Floats, float], Floats]] = {
    "uniform": _weigh_uniform,
    "inverse_freq": _inverse_freq,
    "sqrt_inv_freq": _sqrt_inv_freq,
    "median_freq": _median_freq,
    "effective_number": _effective_number,
    "log_inv_freq": _log_inv_freq,
}
