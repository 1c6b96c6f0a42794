"""The table of confirmed trials, and the sentence on how sure the first one is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from search.console.confirmed_tables import describe_confirmation, format_chance, print_confirmation
from search.report.search_models import Confirmation, ConfirmedTrial

if TYPE_CHECKING:
    from tests.unit.search.conftest import Width

FIRST = ConfirmedTrial(7, 5, 0, 0.4123, 0.4011, 0.4235, 0.934, 0.3951)
SECOND = ConfirmedTrial(3, 2, 1, 0.39, 0.37, 0.41, 0.001, None)
FOUND = Confirmation("demo.confirm", "miou", (FIRST, SECOND))


class TestPrintConfirmation:
    def test_rows(self, width: Width, capsys: pytest.CaptureFixture[str]) -> None:
        """A row per trial: seeds, mean, interval, chance and test; a figure that is missing is a dash."""
        width(100)
        print_confirmation(FOUND)
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["7", "5", "0.4123", "0.4011", "…", "0.4235", "93%", "0.3951"] in rows
        assert [
            "3",
            "2",
            "(1",
            "diverged)",
            "0.3900",
            "0.3700",
            "…",
            "0.4100",
            "<",
            "1%",
            "-",
        ] in rows

    def test_nothing(self, width: Width, capsys: pytest.CaptureFixture[str]) -> None:
        """Before any training has ended, that is what it says."""
        print_confirmation(Confirmation("demo.confirm", "miou", ()))
        assert "no training has ended yet" in capsys.readouterr().out


class TestDescribeConfirmation:
    def test_winner(self) -> None:
        """The winner is named with its chance, and nothing else where nothing is missing."""
        assert describe_confirmation(FOUND) == (
            "Trial 7 is the best of 2 trials with a chance of 93%; the scores that selected them "
            "do not count."
        )

    def test_missing(self) -> None:
        """Trainings that are not finished, failed ones and later trials are counted."""
        found = Confirmation("demo.confirm", "miou", (FIRST,), 1, 2, 3)
        assert describe_confirmation(found).endswith(
            "1 training in demo.confirm is not finished. 2 trainings in demo.confirm failed. "
            "3 trials completed after that and are not in it."
        )

    def test_no_winner(self) -> None:
        """Where every training diverged there is no winner."""
        diverged = ConfirmedTrial(7, 2, 2, None, None, None, 1.0, None)
        assert "No training has a score" in describe_confirmation(
            Confirmation("demo.confirm", "miou", (diverged,))
        )


def test_format_chance() -> None:
    """No chance is printed as certain."""
    assert [format_chance(chance) for chance in (1.0, 0.5, 0.0)] == ["> 99%", "50%", "< 1%"]
