"""What the terminal shows, in every encoding: text, numbers, errors."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from search.console import curves, formatting, live, tables
from search.console import terminal as screen
from search.report.study_report import study_report
from search.report.trial_report import trial_report
from spaces.errors import InputError, SearchError
from spaces.loader import load_study, shipped_studies
from spaces.records import ClassCounts

if TYPE_CHECKING:
    from tests.unit.search.conftest import Demo, Width

NAN, INF = float("nan"), float("inf")


class Terminal(io.StringIO):
    """An interactive terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Yes."""
        return True


def only_ascii(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """From here on, standard output takes ASCII only, as under PYTHONIOENCODING=ascii; returns what was written."""
    written = io.BytesIO()
    monkeypatch.setattr(
        sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True)
    )
    return lambda: written.getvalue().decode("ascii")


def squeezed(text: str) -> str:
    """Text without the places where lines were broken."""
    return re.sub(r"\s+", " ", text)


class TestWords:
    @pytest.mark.parametrize(
        ("value", "reported"),
        [
            (0.37124, "0.3712"),
            (-0.5, "-0.5000"),
            (12.3456, "12.3456"),
            (123.456, "123.5"),
            (NAN, "-"),
            (None, "-"),
        ],
    )
    def test_score(self, value: float | None, reported: str) -> None:
        """Scores have four digits after the point as long as they are small."""
        assert formatting.format_score(value) == reported

    @pytest.mark.parametrize(
        ("value", "reported"),
        [
            (3e-5, "3.0e-05"),
            (0.347, "0.347"),
            (2.0, "2"),
            (2011.33, "2011"),
            (0.0, "0"),
            (1e5, "1.0e+05"),
            (INF, "inf"),
            (NAN, "nan"),
        ],
    )
    def test_number(self, value: float, reported: str) -> None:
        """Other numbers have the digits that matter."""
        assert formatting.format_number(value) == reported

    @pytest.mark.parametrize(
        ("value", "reported"),
        [
            (None, "none"),
            (True, "true"),
            (5, "5"),
            (0.25, "0.25"),
            ("ce", "ce"),
            ([0.1, None], "[0.1, none]"),
            ({"a": 1, "b": None}, "a 1"),
        ],
    )
    def test_setting(self, value: Any, reported: str) -> None:
        """Values of a configuration read as people write them."""
        assert formatting.format_setting(value) == reported

    @pytest.mark.parametrize(
        ("seconds", "reported"),
        [(0.9, "0 s"), (59.9, "59 s"), (65, "1 min 05 s"), (7620, "2 h 07 min")],
    )
    def test_duration(self, seconds: float, reported: str) -> None:
        """Durations have units."""
        assert formatting.format_duration(seconds) == reported

    def test_short_names(self) -> None:
        """A path is named by its last step, unless that is another's, too, or says nothing alone."""
        paths = ["loss.gamma", "loss.kind", "a.same", "b.same"]

        assert list(formatting.shorten_paths(paths).values()) == [
            "gamma",
            "loss.kind",
            "a.same",
            "b.same",
        ]

    def test_joined(self) -> None:
        """Lines break between pieces and not within them, unless a piece is too long for a line."""
        assert formatting.wrap_pieces(["gamma 2", "clip none", "lr 1"], 18) == [
            "gamma 2,",
            "clip none, lr 1",
        ]
        assert max(map(len, formatting.wrap_pieces(["a" * 30], 10))) == 10


@pytest.mark.usefixtures("width")
class TestScreen:
    def test_as_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Markup, emoji codes and long lines in a text are left alone."""
        text = "[red]alpha[/red] [0.11, 0.45] :smile: " + "x" * 200

        screen.print_line(text)
        screen.print_raw(text)

        assert capsys.readouterr().out == f"{text}\n{text}\n"

    def test_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        """An error goes to standard error whole: what, where, found, allowed, next."""
        screen.print_error(
            InputError(
                "no [b]such[/b] key",
                where="a.yaml, line 3",
                found="gama",
                allowed="gamma",
                next_step="fix it",
            )
        )

        out, err = capsys.readouterr()
        assert out == ""
        assert (
            err
            == "error: no [b]such[/b] key\n  where:   a.yaml, line 3\n  found:   gama\n  allowed: gamma\n  next:    fix it\n"
        )

    def test_error_in_red(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a terminal the word is red, and no other text is."""
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(
            screen, "_err", Console(stderr=True, color_system="standard", no_color=False, width=80)
        )

        screen.print_error(SearchError("it broke"))

        assert re.fullmatch(r"\x1b\[[\d;]*31[\d;]*merror:\x1b\[0m it broke\n", terminal.getvalue())

    def test_paragraph(self, width: Width, capsys: pytest.CaptureFixture[str]) -> None:
        """A sentence breaks between words, and keeps its indentation."""
        width(12)

        screen.print_paragraph("one two three four", indent=2)

        assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
            "  one two",
            "  three four",
        ]

    def test_ascii(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What cannot be shown has a stand-in: a known one, the letter without its accents, or the number."""
        out = only_ascii(monkeypatch)

        screen.print_line("2 × 3 → 6 … ß ü 字")
        screen.print_raw("→")

        assert out() == "2 x 3 -> 6 ... ss u \\u5b57\n->\n"

    def test_latin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An encoding that has a character shows it."""
        written = io.BytesIO()
        monkeypatch.setattr(
            sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True)
        )

        screen.print_line("× →")

        assert written.getvalue().decode("latin-1") == "× ->\n"

    def test_half_a_surrogate(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A path that is no Unicode is shown all the same."""
        screen.print_line("data/\udcff.png")

        assert capsys.readouterr().out == "data/\\udcff.png\n"


@pytest.mark.usefixtures("width")
class TestAscii:
    def test_everything(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        """All that can be printed can be printed in ASCII, arrows and frames included."""
        demo.filled()
        printed = only_ascii(monkeypatch)

        tables.print_study(study_report(demo.store, "focal_gamma"))
        tables.print_studies([load_study(name) for name in shipped_studies()])
        tables.print_weights(ClassCounts(("Füße",), (3,)), {"uniform": (1.0,)})
        for number in range(6):
            curves.print_trial(trial_report(demo.store, "focal_gamma", number))
        live.watch_study(demo.store, demo.stored, demo.plan, until=lambda: True)

        out = printed()
        assert "optimizer.grad_clip_norm none -> 1" in squeezed(out)
        assert "Fusse" in out
        assert "\\u" not in out
