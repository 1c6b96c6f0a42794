"""Errors: what they print, and where they say that the problem is."""

from __future__ import annotations

import pytest

from spaces.errors import InputError, StudyError, nearest


class TestInputError:
    ERROR = StudyError(
        "low is above high",
        where="mine.yaml, line 3, space → loss.gamma",
        place=("space", "loss.gamma"),
        found="9",
        allowed="0 … 5",
        next_step="fix it",
    )

    def test_printed(self) -> None:
        """An error prints its parts, one a line, and leaves out those that are empty."""
        assert str(self.ERROR).splitlines() == [
            "low is above high",
            "  where:   mine.yaml, line 3, space → loss.gamma",
            "  found:   9",
            "  allowed: 0 … 5",
            "  next:    fix it",
        ]
        assert str(InputError("no", found="x")) == "no\n  found:   x"

    def test_place(self) -> None:
        """The place is empty where the error is about no single value."""
        assert self.ERROR.place == ("space", "loss.gamma")
        assert InputError("no").place == ()

    def test_relocated(self) -> None:
        """A relocated error is of the same type and differs in what is given alone."""
        moved = self.ERROR.relocated(where="--set", next_step="stop")
        assert type(moved) is StudyError
        assert vars(moved) == {**vars(self.ERROR), "where": "--set", "next_step": "stop"}
        assert self.ERROR.relocated(place=("base",)).place == ("base",)
        assert self.ERROR.where.startswith("mine.yaml")


class TestNearest:
    @pytest.mark.parametrize(
        ("word", "allowed", "found"),
        [
            ("gama", ("alpha", "gamma"), " (did you mean 'gamma'?)"),
            ("resnet35", ("resnet50", "resnet34", "resnet18"), " (did you mean 'resnet34'?)"),
            ("inverse", ("sqrt_inv_freq", "inverse_freq"), " (did you mean 'inverse_freq'?)"),
            ("xyz", ("alpha", "gamma"), ""),
            ("gamma", (), ""),
        ],
    )
    def test_each(self, word: str, allowed: tuple[str, ...], found: str) -> None:
        """The closest word is proposed, by its longest common prefix, or none if none is close."""
        assert nearest(word, allowed) == found
