"""A study's space as arrays: many configurations at once, conditional dimensions included."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.sampling.freeze_thaw.curves import Floats
from spaces.parameters import Choice, FloatRange, IntRange, Parameter, Scalar, is_active

Booleans = NDArray[np.bool_]

INACTIVE = 0.5
"""Unit coordinate of a numeric dimension that does not exist for a configuration."""


@dataclass(frozen=True)
class Points:
    """Configurations as rows. P points, D dimensions.

    Attributes:
        unit_PD: coordinate in [0, 1] of a range; index of a choice.
        active_PD: whether the dimension exists for the configuration.
    """

    unit_PD: Floats
    active_PD: Booleans

    def __len__(self) -> int:
        return len(self.unit_PD)

    def take(self, rows: NDArray[np.int64] | Sequence[int]) -> Points:
        """Return some of the points."""
        return Points(self.unit_PD[rows], self.active_PD[rows])


def join_points(parts: Iterable[Points]) -> Points:
    """Join several sets of points into one."""
    listed = list(parts)
    return Points(
        np.concatenate([part.unit_PD for part in listed]),
        np.concatenate([part.active_PD for part in listed]),
    )


class EncodedSpace:
    """Turns configurations into coordinates and back.

    Args:
        dimensions: dotted path → dimension; each after those that its condition names.
        fixed: values of the configuration that a condition may name, by dotted path.
    """

    def __init__(
        self, dimensions: Mapping[str, Parameter], fixed: Mapping[str, Scalar] | None = None
    ) -> None:
        self.dimensions = dict(dimensions)
        self.paths = tuple(dimensions)
        self._fixed = dict(fixed or {})
        self._columns = {path: column for column, path in enumerate(self.paths)}

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def category_counts(self) -> tuple[int, ...]:
        """The number of choices of each dimension; 0 for a range."""
        return tuple(
            len(dimension.choices) if isinstance(dimension, Choice) else 0
            for dimension in self.dimensions.values()
        )

    def sample(self, generator: np.random.Generator, count: int) -> Points:
        """Sample configurations uniformly over the space."""
        unit_PD = generator.random((count, len(self)))
        for column, categories in enumerate(self.category_counts):
            if categories:
                unit_PD[:, column] = generator.integers(categories, size=count)
        return self._complete(unit_PD)

    def mutate(
        self, generator: np.random.Generator, points: Points, share: float, deviation: float
    ) -> Points:
        """Change about a `share` of the coordinates of each point.

        A range moves by a normal step of this standard deviation, a choice is drawn again.
        """
        count = len(points)
        unit_PD = points.unit_PD.copy()
        moves_PD = generator.random(unit_PD.shape) < share
        steps_PD = generator.normal(0.0, deviation, unit_PD.shape)
        for column, categories in enumerate(self.category_counts):
            if categories:
                moved = generator.integers(categories, size=count).astype(float)
            else:
                moved = np.clip(unit_PD[:, column] + steps_PD[:, column], 0.0, 1.0)
            unit_PD[:, column] = np.where(moves_PD[:, column], moved, unit_PD[:, column])
        return self._complete(unit_PD)

    def move(self, points: Points, other: Points, column: int) -> Points:
        """Return the points with one dimension of other points."""
        unit_PD = points.unit_PD.copy()
        unit_PD[:, column] = other.unit_PD[:, column]
        return self._complete(unit_PD)

    def encode(self, configurations: Sequence[Mapping[str, Scalar]]) -> Points:
        """Encode sampled values by dotted path; a dimension without a value is inactive.

        A value outside its dimension, as a remedy's may be, gets the nearest coordinate.
        """
        unit_PD = np.full((len(configurations), len(self)), INACTIVE)
        active_PD = np.zeros(unit_PD.shape, dtype=bool)
        for row, params in enumerate(configurations):
            for column, (path, dimension) in enumerate(self.dimensions.items()):
                if path in params:
                    coordinate = _encode_value(dimension, params[path])
                    active_PD[row, column] = coordinate is not None
                    unit_PD[row, column] = INACTIVE if coordinate is None else coordinate
        return Points(unit_PD, active_PD)

    def decode(self, points: Points, row: int) -> dict[str, Scalar]:
        """Return the values of one configuration, without inactive dimensions."""
        return {
            path: _decode_value(dimension, points.unit_PD[row, column])
            for column, (path, dimension) in enumerate(self.dimensions.items())
            if points.active_PD[row, column]
        }

    def _complete(self, unit_PD: Floats) -> Points:
        """Move coordinates to values that exist, and find out which dimensions are active."""
        active_PD = np.ones(unit_PD.shape, dtype=bool)
        for column, (path, dimension) in enumerate(self.dimensions.items()):
            unit_PD[:, column] = _snap_column(dimension, unit_PD[:, column])
            if dimension.when:
                active_PD[:, column] = self._find_active(path, unit_PD, active_PD)
        return Points(unit_PD, active_PD)

    def _find_active(self, path: str, unit_PD: Floats, active_PD: Booleans) -> Booleans:
        when = self.dimensions[path].when
        found = np.ones(len(unit_PD), dtype=bool)
        for parent, wanted in when.items():
            under_fixed = is_active({parent: wanted}, self._fixed)
            column = self._columns.get(parent)
            if column is None:
                found &= under_fixed
                continue
            of_parent = self.dimensions[parent]
            fits = np.array(
                [
                    is_active({parent: wanted}, {parent: _decode_value(of_parent, unit)})
                    for unit in np.unique(unit_PD[:, column])
                ]
            )
            _, index = np.unique(unit_PD[:, column], return_inverse=True)
            found &= np.where(active_PD[:, column], fits[index], under_fixed)
        return found

    def features(self, points: Points) -> tuple[Floats, NDArray[np.int64]]:
        """Return coordinates whose squared distances the kernel sums, and each one's dimension.

        A range is one column, a choice one column per category, scaled so that two different
        categories are at distance 1.
        """
        columns: list[Floats] = []
        owners: list[int] = []
        for column, categories in enumerate(self.category_counts):
            active = points.active_PD[:, column]
            unit = points.unit_PD[:, column]
            if not categories:
                columns.append(np.where(active, unit, INACTIVE))
                owners.append(column)
                continue
            for category in range(categories):
                columns.append(np.where(active & (unit == category), math.sqrt(0.5), 0.0))
                owners.append(column)
        return np.stack(columns, axis=1), np.array(owners, dtype=np.int64)


def _encode_value(dimension: Parameter, value: Scalar) -> float | None:
    if isinstance(dimension, Choice):
        for index, choice in enumerate(dimension.choices):
            if value == choice and isinstance(value, bool) == isinstance(choice, bool):
                return float(index)
        return None
    if not isinstance(value, (int, float)):
        return None
    low, width = _bounds(dimension)
    if dimension.log and value <= 0:
        return 0.0
    position = math.log(value) if dimension.log else float(value)
    return min(1.0, max(0.0, (position - low) / width)) if width else INACTIVE


def _decode_value(dimension: Parameter, unit: float) -> Scalar:
    if isinstance(dimension, Choice):
        return dimension.choices[int(unit)]
    low, width = _bounds(dimension)
    position = low + float(unit) * width
    value = math.exp(position) if dimension.log else position
    if dimension.step and not dimension.log:
        value = dimension.low + round((value - dimension.low) / dimension.step) * dimension.step
    if isinstance(dimension, IntRange):
        return int(min(_highest(dimension), max(dimension.low, round(value))))
    return float(min(_highest(dimension), max(dimension.low, value)))


def _snap_column(dimension: Parameter, units: Floats) -> Floats:
    """Move the coordinates of a range with steps to the nearest value that exists."""
    if isinstance(dimension, Choice) or (isinstance(dimension, FloatRange) and not dimension.step):
        return units
    snapped = [_encode_value(dimension, _decode_value(dimension, unit)) for unit in units]
    return np.array(snapped, dtype=np.float64)


def _bounds(dimension: FloatRange | IntRange) -> tuple[float, float]:
    """The lowest position and the width of a range, in logarithms if it is sampled so."""
    low, high = float(dimension.low), float(dimension.high)
    if dimension.log:
        low, high = math.log(low), math.log(high)
    return low, high - low


def _highest(dimension: FloatRange | IntRange) -> float:
    """The highest value on the grid of a range."""
    if not dimension.step or dimension.log:
        return float(dimension.high)
    steps = math.floor((dimension.high - dimension.low) / dimension.step + 1e-8)
    return float(dimension.low + steps * dimension.step)
