"""The kinds of dimension that a study can search; `search.sampling` turns them into Optuna's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from spaces.frozen import Frozen

Scalar = bool | int | float | str | None
"""What a sampled hyperparameter can be."""

Condition = dict[str, Scalar | tuple[Scalar, ...]]
"""Path of another value → the values under which the dimension exists: `{loss.kind: focal}`."""


class FloatRange(Frozen):
    """A real number between `low` and `high`, both included."""

    kind: Literal["float"]
    low: float
    high: float
    log: bool = Field(
        default=False, description="sample the logarithm uniformly; low must be above 0"
    )
    step: float | None = Field(default=None, gt=0, description="grid width; not together with log")
    when: Condition = Field(default={}, description="the dimension exists only under these choices")

    @model_validator(mode="after")
    def _validate_bounds(self) -> FloatRange:
        _check_bounds(self.low, self.high, log=self.log, stepped=self.step is not None)
        return self

    def contains(self, value: object) -> bool:
        """Return whether `value` is in the range, and on the grid if there is one."""
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not self.low <= value <= self.high
        ):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-8  # the tolerance of Optuna

    def __str__(self) -> str:
        return (
            f"{self.low:g} … {self.high:g}"
            + (", log" if self.log else "")
            + (f", step {self.step:g}" if self.step else "")
        )


class IntRange(Frozen):
    """A whole number between `low` and `high`, both included."""

    kind: Literal["int"]
    low: int
    high: int
    log: bool = Field(
        default=False, description="sample the logarithm uniformly; low must be above 0"
    )
    step: int = Field(default=1, ge=1, description="grid width; 1 when log")
    when: Condition = Field(default={}, description="the dimension exists only under these choices")

    @model_validator(mode="after")
    def _validate_bounds(self) -> IntRange:
        _check_bounds(self.low, self.high, log=self.log, stepped=self.step != 1)
        return self

    def contains(self, value: object) -> bool:
        """Return whether `value` is a whole number in the range, on the grid."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        on_grid = self.log or (value - self.low) % self.step == 0
        return self.low <= value <= self.high and on_grid

    def __str__(self) -> str:
        return (
            f"{self.low} … {self.high}"
            + (", log" if self.log else "")
            + (f", step {self.step}" if self.step != 1 else "")
        )


class Choice(Frozen):
    """One of several values without an order."""

    kind: Literal["choice"]
    choices: tuple[Scalar, ...] = Field(min_length=1)
    when: Condition = Field(default={}, description="the dimension exists only under these choices")

    @model_validator(mode="after")
    def _validate_distinct(self) -> Choice:
        if len({repr(choice) for choice in self.choices}) < len(self.choices):
            raise PydanticCustomError(
                "repeated_choice",
                "the same choice is given twice in {choices}",
                {"choices": str(list(self.choices))},
            )
        return self

    def contains(self, value: object) -> bool:
        """Return whether `value` is a choice; `1` differs from `True`, but not from `1.0`."""
        return any(
            value == choice and isinstance(value, bool) == isinstance(choice, bool)
            for choice in self.choices
        )

    def __str__(self) -> str:
        return " · ".join(map(_format_choice, self.choices))


def _format_choice(choice: Scalar) -> str:
    if choice is None:
        return "none"
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


Parameter = Annotated[FloatRange | IntRange | Choice, Field(discriminator="kind")]


def extremes(dimension: Parameter) -> tuple[Scalar, ...]:
    """Return every choice, or the lowest and the highest value that can be sampled."""
    if isinstance(dimension, Choice):
        return dimension.choices
    if isinstance(dimension, IntRange):
        return dimension.low, dimension.high - (dimension.high - dimension.low) % dimension.step
    return dimension.low, dimension.high


def _check_bounds(low: float, high: float, *, log: bool, stepped: bool) -> None:
    context = {"low": f"{low:g}", "high": f"{high:g}"}
    if low > high:
        raise PydanticCustomError("low_above_high", "low {low} is above high {high}", context)
    if log and low <= 0:
        raise PydanticCustomError(
            "log_through_zero", "a log range must be above 0, but low is {low}", context
        )
    if log and stepped:
        raise PydanticCustomError("log_with_step", "a log range has no step", context)


def is_active(when: Condition, values: Mapping[str, Scalar]) -> bool:
    """Return whether a dimension with the condition `when` exists under the chosen `values`."""
    return all(
        path in values and values[path] in (wanted if isinstance(wanted, tuple) else (wanted,))
        for path, wanted in when.items()
    )
