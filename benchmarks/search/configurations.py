"""Configurations of a space: drawn at random, and as coordinates of the unit cube."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from spaces.parameters import Choice, FloatRange, IntRange, Parameter, Scalar, is_active

INACTIVE = 0.5
"""The coordinate of a numeric dimension that is not active."""


def draw_params(
    space: Mapping[str, Parameter], generator: np.random.Generator
) -> dict[str, Scalar]:
    """Draw a configuration: each active dimension uniformly, or log-uniformly where it is log.

    Args:
        space: dimensions, parents before those that depend on them.
        generator: of NumPy.
    """
    params: dict[str, Scalar] = {}
    for name, dimension in space.items():
        unit = float(generator.random())  # also for inactive ones: the stream stays aligned
        if is_active(dimension.when, params):
            params[name] = from_unit(dimension, unit)
    return params


def from_unit(dimension: Parameter, unit: float) -> Scalar:
    """The value of a dimension at a coordinate in [0, 1)."""
    if isinstance(dimension, Choice):
        index = min(int(unit * len(dimension.choices)), len(dimension.choices) - 1)
        return dimension.choices[index]
    low, high = dimension.low, dimension.high
    if isinstance(dimension, IntRange):  # each whole number has the same share of the axis
        return _whole_from_unit(dimension, unit)
    value = math.exp(math.log(low) + unit * math.log(high / low)) if dimension.log else None
    value = low + unit * (high - low) if value is None else value
    if dimension.step:
        value = low + round((value - low) / dimension.step) * dimension.step
    return min(max(value, low), high)


def _whole_from_unit(dimension: IntRange, unit: float) -> int:
    if dimension.log:
        low, high = math.log(dimension.low - 0.5), math.log(dimension.high + 0.5)
        value = round(math.exp(low + unit * (high - low)))
        return min(max(value, dimension.low), dimension.high)
    count = (dimension.high - dimension.low) // dimension.step + 1
    return dimension.low + dimension.step * min(int(unit * count), count - 1)


def to_unit(dimension: FloatRange | IntRange, value: Scalar) -> float:
    """The coordinate of a value of a numeric dimension, in [0, 1]; log where the dimension is."""
    low, high, number = float(dimension.low), float(dimension.high), float(value)  # type: ignore[arg-type]
    if low == high:
        return INACTIVE
    if dimension.log:
        low, high, number = math.log(low), math.log(high), math.log(number)
    return (number - low) / (high - low)


def nearest_value(dimension: Parameter, value: Scalar) -> Scalar:
    """The value itself where the dimension has it, else its nearest bound or its first choice."""
    if dimension.contains(value):
        return value
    if isinstance(dimension, Choice):
        return dimension.choices[0]
    return min(max(value or 0, dimension.low), dimension.high)


class Encoding:
    """Coordinates of configurations: numbers in [0, 1], choices one-hot.

    Two different choices are at distance 1. An inactive number is at 0.5, an inactive choice at 0.

    Args:
        space: the dimensions.
    """

    def __init__(self, space: Mapping[str, Parameter]) -> None:
        self.space = dict(space)
        widths = [
            len(dimension.choices) if isinstance(dimension, Choice) else 1
            for dimension in self.space.values()
        ]
        self.starts = np.concatenate([[0], np.cumsum(widths)]).astype(int)
        self.groups = np.repeat(np.arange(len(widths)), widths)
        """Column → the index of its dimension."""

    def encode(self, params: Mapping[str, Scalar]) -> np.ndarray:
        """The coordinates of a configuration, shape (columns,)."""
        row = np.zeros(self.starts[-1])
        for index, (name, dimension) in enumerate(self.space.items()):
            start = self.starts[index]
            if isinstance(dimension, Choice):
                if name in params:
                    row[start + _index_of(dimension, params[name])] = math.sqrt(0.5)
            else:
                row[start] = to_unit(dimension, params[name]) if name in params else INACTIVE
        return row

    def encode_all(self, many: list[Mapping[str, Scalar]]) -> np.ndarray:
        """The coordinates of configurations, shape (configurations, columns)."""
        return np.stack([self.encode(params) for params in many])


def _index_of(dimension: Choice, value: Scalar) -> int:
    for index, choice in enumerate(dimension.choices):
        if value == choice and isinstance(value, bool) == isinstance(choice, bool):
            return index
    raise ValueError(f"{value!r} is none of {dimension}")


def mutate_params(
    space: Mapping[str, Parameter],
    params: Mapping[str, Scalar],
    generator: np.random.Generator,
    *,
    chance: float,
    spread: float,
) -> dict[str, Scalar]:
    """Change some of the values of a configuration.

    Args:
        space: dimensions, parents before those that depend on them.
        params: the active values.
        generator: of NumPy.
        chance: that a dimension changes; one that has become active is drawn.
        spread: standard deviation of a change, in units of the axis; a choice is drawn again.
    """
    changed: dict[str, Scalar] = {}
    for name, dimension in space.items():
        if not is_active(dimension.when, changed):
            continue
        unit = float(generator.random())
        if name not in params:
            changed[name] = from_unit(dimension, unit)
        elif generator.random() >= chance:
            changed[name] = params[name]
        elif isinstance(dimension, Choice):
            changed[name] = from_unit(dimension, unit)
        else:
            moved = to_unit(dimension, params[name]) + spread * float(generator.normal())
            changed[name] = from_unit(dimension, min(max(moved, 0.0), 1 - 1e-9))
    return changed
