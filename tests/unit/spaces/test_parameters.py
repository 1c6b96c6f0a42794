"""The kinds of dimension: their bounds, their values, and when they exist."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from spaces.parameters import Choice, Condition, FloatRange, IntRange, Parameter, is_active

PARAMETER: TypeAdapter[Any] = TypeAdapter(Parameter)


def dimension(kind: str, **given: Any) -> Any:
    """Make a dimension as a study's YAML writes it."""
    return PARAMETER.validate_python({"kind": kind, **given})


class TestBounds:
    @pytest.mark.parametrize("kind", ["float", "int"])
    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            ({"low": 2, "high": 1}, "low 2 is above high 1"),
            ({"low": 0, "high": 1, "log": True}, "must be above 0, but low is 0"),
            ({"low": -3, "high": 1, "log": True}, "must be above 0, but low is -3"),
            ({"low": 1, "high": 9, "log": True, "step": 2}, "a log range has no step"),
            ({"low": 1, "high": 9, "step": 0}, "greater than"),
            ({"low": 1, "high": 9, "stpe": 1}, r"unknown key 'stpe' \(did you mean 'step'\?\)"),
            ({"low": 1}, "high\n  Field required"),
        ],
    )
    def test_refused(self, kind: str, given: dict[str, Any], complaint: str) -> None:
        """A range without any value is refused, with its bounds."""
        with pytest.raises(ValidationError, match=complaint):
            dimension(kind, **given)

    @pytest.mark.parametrize("bound", [float("inf"), float("nan"), "x"])
    def test_not_finite(self, bound: Any) -> None:
        """A bound that is not a finite number is refused."""
        with pytest.raises(ValidationError, match=r"finite|valid number"):
            dimension("float", low=0.0, high=bound)

    def test_fractional_int(self) -> None:
        """A range of whole numbers with a fractional bound is refused."""
        with pytest.raises(ValidationError, match="fractional part"):
            dimension("int", low=0.5, high=3)

    @pytest.mark.parametrize("kind", ["float", "int"])
    def test_single_value(self, kind: str) -> None:
        """A range of one value is accepted."""
        assert dimension(kind, low=3, high=3).contains(3)

    def test_unknown_kind(self) -> None:
        """A fourth kind is refused."""
        with pytest.raises(ValidationError, match="'float', 'int', 'choice'"):
            dimension("categorical", choices=[1])


class TestFloatRange:
    @pytest.mark.parametrize(
        ("value", "contained"),
        [
            (0.5, True),
            (2.0, True),
            (1, True),
            (0.499, False),
            (2.001, False),
            (True, False),
            (None, False),
            ("1", False),
            (float("nan"), False),
        ],
    )
    def test_contains(self, value: object, contained: bool) -> None:
        """Both bounds are in the range; a boolean is no number."""
        assert FloatRange(kind="float", low=0.5, high=2.0).contains(value) is contained

    def test_contains_log(self) -> None:
        """A log range contains the same values."""
        assert FloatRange(kind="float", low=1e-5, high=1.0, log=True).contains(1e-5)

    @pytest.mark.parametrize(
        ("value", "contained"), [(0.1, True), (0.3, True), (0.7, True), (0.4, False), (0.31, False)]
    )
    def test_contains_step(self, value: float, contained: bool) -> None:
        """With a step it contains the grid alone, up to a rounding error as of 0.1 + 0.2."""
        assert FloatRange(kind="float", low=0.1, high=0.9, step=0.2).contains(value) is contained

    @pytest.mark.parametrize(
        ("given", "said"),
        [({}, "0.5 … 20"), ({"log": True}, "0.5 … 20, log"), ({"step": 0.5}, "0.5 … 20, step 0.5")],
    )
    def test_words(self, given: dict[str, Any], said: str) -> None:
        """A range is printed with its settings."""
        assert str(FloatRange(kind="float", low=0.5, high=20.0, **given)) == said


class TestIntRange:
    @pytest.mark.parametrize(
        ("value", "contained"),
        [
            (1, True),
            (3, True),
            (9, True),
            (2, False),
            (11, False),
            (3.0, False),
            (True, False),
            (None, False),
        ],
    )
    def test_contains(self, value: object, contained: bool) -> None:
        """It contains only whole numbers on the grid."""
        assert IntRange(kind="int", low=1, high=9, step=2).contains(value) is contained

    def test_words(self) -> None:
        """A range is printed with its settings, without a step of 1."""
        assert str(IntRange(kind="int", low=1, high=9)) == "1 … 9"
        assert str(IntRange(kind="int", low=1, high=9, step=2)) == "1 … 9, step 2"
        assert str(IntRange(kind="int", low=1, high=9, log=True)) == "1 … 9, log"


class TestChoice:
    def test_empty(self) -> None:
        """A dimension without choices is refused."""
        with pytest.raises(ValidationError, match="at least 1 item"):
            dimension("choice", choices=[])

    @pytest.mark.parametrize("choices", [[1, 1], [None, 2, None], ["a", "a"], [True, True]])
    def test_repeated(self, choices: list[Any]) -> None:
        """A repeated choice is refused."""
        with pytest.raises(ValidationError, match="the same choice is given twice"):
            dimension("choice", choices=choices)

    def test_kinds_kept(self) -> None:
        """Each choice keeps its type."""
        assert list(map(repr, dimension("choice", choices=[True, 1, 1.5, "1", None]).choices)) == [
            "True",
            "1",
            "1.5",
            "'1'",
            "None",
        ]

    @pytest.mark.parametrize(
        ("choices", "value", "contained"),
        [
            ([None, 100], None, True),
            ([None, 100], 100.0, True),
            ([1, 2], True, False),
            ([True, False], 1, False),
            ([True, False], False, True),
            (["a"], "b", False),
            ([0], None, False),
        ],
    )
    def test_contains(self, choices: list[Any], value: object, contained: bool) -> None:
        """`1` and `1.0` are one value, `1` and `True` are two."""
        assert Choice(kind="choice", choices=tuple(choices)).contains(value) is contained

    def test_words(self) -> None:
        """Choices are printed as in YAML, but null as none."""
        assert (
            str(Choice(kind="choice", choices=(None, True, 0.5, "sgd")))
            == "none · true · 0.5 · sgd"
        )


class TestActive:
    @pytest.mark.parametrize(
        ("when", "exists"),
        [
            ({}, True),
            ({"loss.kind": "focal"}, True),
            ({"loss.kind": "ce"}, False),
            ({"loss.kind": ("ce", "focal")}, True),
            ({"loss.kind": "focal", "clip": None}, True),
            ({"loss.kind": "focal", "clip": 4}, False),
            ({"absent": None}, False),
        ],
    )
    def test_active(self, when: Condition, exists: bool) -> None:
        """Every condition must be met by one of its values; a missing path meets none."""
        assert is_active(when, {"loss.kind": "focal", "clip": None}) is exists
