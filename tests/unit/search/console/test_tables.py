"""Studies as tables, at a set width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import pytest

from search.console import tables
from search.report.study_report import study_report
from spaces.loader import load_study, shipped_studies
from spaces.records import ClassCounts, Diagnosis, Evidence, Remedy
from storage.rows import Outcome

if TYPE_CHECKING:
    from tests.unit.search.conftest import Demo, Width


def squeezed(text: str) -> str:
    """Text without the places where lines were broken."""
    return re.sub(r"\s+", " ", text)


@pytest.mark.usefixtures("width")
class TestStudy:
    def test_states(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """The heading shows the metric and how many trials are in which state; states without a trial are left out."""
        demo.filled()

        tables.print_study(study_report(demo.store, "focal_gamma"))

        out = squeezed(capsys.readouterr().out)
        assert "Study focal_gamma: segmentation, miou (maximize, best epoch)" in out
        assert (
            "5 of 6 trials ended: 2 complete, 1 pruned, 1 diverged, 1 failed; 1 running (4 epochs each)"
            in out
        )

    def test_empty(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A study that has not begun says so."""
        tables.print_study(study_report(demo.store, "focal_gamma"))

        out = capsys.readouterr().out
        assert "0 of 6 trials ended; 6 left (4 epochs each)" in out
        assert "no trial is complete yet" in out
        assert "Stopped trials" not in out

    @pytest.mark.parametrize("columns", [30, 60, 80, 140])
    def test_leaderboard(
        self, demo: Demo, width: Width, capsys: pytest.CaptureFixture[str], columns: int
    ) -> None:
        """At any width the rows show score, best epoch, what was sampled with the rate beside its multiple, and the preset."""
        width(columns)
        demo.filled()

        tables.print_leaderboard(study_report(demo.store, "focal_gamma"))

        out = squeezed(capsys.readouterr().out)
        first, second = out.index("0.3712"), out.index("0.2500")
        assert first < second
        for reported in ("3/4", "2.5", "3.0e-02", "none", "safe"):
            assert reported in out[first:second]
        assert re.search(r"3\.0e-02 (\()?0\.3", out[first:second])
        assert "a suggestion, not a verdict" in out

    @pytest.mark.parametrize(("columns", "lines"), [(50, 3), (64, 2), (80, 1)])
    def test_packed(
        self, demo: Demo, width: Width, capsys: pytest.CaptureFixture[str], columns: int, lines: int
    ) -> None:
        """A trial takes one line as long as its columns fit, closer together if need be; then what was sampled goes below."""
        width(columns)
        demo.filled()

        tables.print_leaderboard(study_report(demo.store, "focal_gamma"))

        shown = capsys.readouterr().out.splitlines()
        assert (
            next(i for i, line in enumerate(shown) if "0.2500" in line)
            - next(i for i, line in enumerate(shown) if "0.3712" in line)
            == lines
        )

    @pytest.mark.parametrize(
        ("columns", "shown"), [(120, "digit_4 0.000 +1"), (70, "digit_4"), (50, "digit_4 0.000 +1")]
    )
    def test_worst_class(
        self,
        demo: Demo,
        width: Width,
        capsys: pytest.CaptureFixture[str],
        columns: int,
        shown: str,
    ) -> None:
        """The worst class has a column: its name alone where the screen is narrow."""
        width(columns)
        used = {"environment.classes": ["digit_1", "digit_4", "digit_0"]}
        claim = demo.start([0.1, 0.2])
        demo.epochs(claim, [0.3], first=3, class_metric=(0.5, 0.0, 0.0), used=used)
        demo.epochs(claim, [0.2], first=4, class_metric=(0.5, 0.0, 0.0), used=used)
        demo.finish(claim, "complete", 0.3)

        tables.print_leaderboard(study_report(demo.store, "focal_gamma"))

        out = squeezed(capsys.readouterr().out)
        assert shown in out
        assert ("0.000" in out) == ("0.000" in shown)

    @pytest.mark.parametrize("columns", [60, 80, 140])
    def test_within_the_width(
        self, demo: Demo, width: Width, capsys: pytest.CaptureFixture[str], columns: int
    ) -> None:
        """No line is wider than the screen."""
        width(columns)
        demo.filled()

        tables.print_study(study_report(demo.store, "focal_gamma"))

        assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= columns

    def test_top(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Only the top rows are shown; the rest is said to be elsewhere."""
        for score in (0.41, 0.42, 0.43):
            demo.finish(demo.start([score]), "complete", score)

        tables.print_leaderboard(study_report(demo.store, "focal_gamma"), top=2)

        out = capsys.readouterr().out
        assert "0.4300" in out
        assert "0.4100" not in out
        assert "1 more in `search show --study focal_gamma --json`" in out

    def test_tied(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Rows within noise of the first are marked and counted."""
        for score in (0.30, 0.30, 0.1):
            demo.finish(demo.start([score]), "complete", score)

        tables.print_leaderboard(study_report(demo.store, "focal_gamma"))

        out = capsys.readouterr().out
        assert [line.split()[:2] for line in out.splitlines() if "≈" in line] == [
            ["2", "≈"],
            ["1", "trial"],
        ]
        assert "1 trial within noise of the first row" in out

    def test_kills(self, demo: Demo, width: Width, capsys: pytest.CaptureFixture[str]) -> None:
        """Failed trials first, then diverged, then pruned, each with its numbers, cause and remedy; then the causes."""
        width(140)
        demo.filled()

        tables.print_stopped_trials(study_report(demo.store, "focal_gamma"))

        lines = [squeezed(line).strip() for line in capsys.readouterr().out.splitlines()]
        failed, diverged, pruned = (
            next(i for i, line in enumerate(lines) if line.startswith(number))
            for number in ("4 ", "3 ", "2 ")
        )
        assert failed < diverged < pruned
        assert lines[failed] == "4 - error ValueError: no [b]class[/b] ü"
        assert lines[diverged : diverged + 3] == [
            f"3 2 gradient_explosion {demo.statement}",
            "likely cause: learning rate too high (over 99% sure)",
            "try: clip: the norm at 1: optimizer.grad_clip_norm none → 1",
        ]
        assert lines[pruned] == "2 1 pruned median: best metric 0.1 by epoch 1"
        assert (
            lines[-1]
            == "By cause: 1 × worse than its peers, 1 × learning rate too high, 1 × ValueError"
        )

    def test_pruned_with_evidence(
        self, demo: Demo, width: Width, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A pruned trial with evidence has its pruner, a clear cause and a remedy."""
        width(140)
        evidence = Evidence("median", 1, None, "best metric 0.1 by epoch 1", {}, 0.0)
        remedy = Remedy("the base rate", {"optimizer.lr_multiple": 1.0})
        diagnosis = Diagnosis("learning rate too low", (), (remedy,), 0.7)
        demo.store.leases.finish_trial(
            demo.start([0.1]), Outcome("pruned", 0.1, "…", "median", evidence, diagnosis)
        )

        tables.print_stopped_trials(study_report(demo.store, "focal_gamma"))

        out = squeezed(capsys.readouterr().out)
        assert "0 1 median best metric 0.1 by epoch 1 likely cause: learning rate too low" in out
        assert "(70% sure) try: the base rate: optimizer.lr_multiple 0.3 → 1" in out

    @pytest.mark.parametrize(("confidence", "named"), [(0.39, False), (0.4, True)])
    def test_clear_from_40_percent(
        self, demo: Demo, capsys: pytest.CaptureFixture[str], confidence: float, named: bool
    ) -> None:
        """Below 40% neither a row nor the totals name a cause, and nothing is prescribed."""
        evidence = Evidence("loss_rising", 1, None, "it rose", {}, 1.0)
        remedy = Remedy("a lower rate", {"optimizer.lr_multiple": 0.1})
        diagnosis = Diagnosis("learning rate too high", (), (remedy,), confidence)
        demo.store.leases.finish_trial(
            demo.start([0.1]), Outcome("diverged", 0.1, "…", "loss_rising", evidence, diagnosis)
        )

        tables.print_study(study_report(demo.store, "focal_gamma"))

        out = squeezed(capsys.readouterr().out)
        cause = "learning rate too high" if named else "no clear cause"
        assert f"By cause: 1 × {cause}" in out
        assert ("learning rate too high" in out, "try:" in out) == (named, named)

    def test_warnings(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """What was found in a complete trial is listed with its likely cause."""
        evidence = Evidence("class_collapse", 3, None, "spared: 4 of 7 classes", {}, 0.0)
        cause = Diagnosis("imbalance too strong", (), ())
        demo.store.leases.finish_trial(
            demo.start([0.1]), Outcome("complete", 0.1, evidence=evidence, diagnosis=cause)
        )

        tables.print_study(study_report(demo.store, "focal_gamma"))

        assert (
            "Warnings trial 0, epoch 3: class_collapse: spared: 4 of 7 classes; "
            "likely cause: imbalance too strong"
        ) in squeezed(capsys.readouterr().out)

    def test_unnumbered_kill(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A trial that failed before it was given a number is listed without one."""
        demo.store.leases.finish_trial(
            demo.claim(), Outcome("failed", reason="given up: 3 workers vanished")
        )

        tables.print_stopped_trials(study_report(demo.store, "focal_gamma"))

        assert re.search(
            r"^ +-  +-  error +given up: 3 workers", capsys.readouterr().out, re.MULTILINE
        )


@pytest.mark.usefixtures("width")
class TestStudies:
    def test_all(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Every shipped study is shown with its ranges, its length, its presets and its conditions."""
        tables.print_studies([load_study(name) for name in shipped_studies()])

        out = squeezed(capsys.readouterr().out)
        assert all(name in out for name in shipped_studies())
        assert "optimizer.lr_multiple 0.03 … 30, log" in out
        assert (
            "24 trials × 12 epochs; presets first: recommended, untuned, safe, progressive" in out
        )
        assert "loss.gamma 0 … 5, when loss.kind is focal" in out
        assert "none · 100 · 25 · 10 · 4, when weights.method is not uniform" in out


@pytest.mark.usefixtures("width")
class TestWeights:
    COUNTS = ClassCounts(("road", "car", "[b]ghost[/b]"), (900_000, 100_000, 0))
    WEIGHTS: ClassVar[dict[str, Sequence[float]]] = {
        "uniform": (1.0, 1.0, 1.0),
        "inverse_freq": (0.2, 1.8, 1.0),
    }

    def test_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Pixels, shares, a column a method, and max/min below; a class without pixels is warned of."""
        tables.print_weights(self.COUNTS, self.WEIGHTS)

        out, err = capsys.readouterr()
        rows = [line.split() for line in out.splitlines()]
        assert ["road", "900,000", "90", "1.0000", "0.2000"] in rows
        assert ["[b]ghost[/b]", "0", "0", "1.0000", "1.0000"] in rows
        assert rows[-1] == ["max/min", "1", "9"]
        assert "warning: no pixel of [b]ghost[/b]" in err

    @pytest.mark.parametrize(("columns", "parts"), [(140, 1), (60, 2), (40, 6), (10, 6)])
    def test_narrow(
        self, width: Width, capsys: pytest.CaptureFixture[str], columns: int, parts: int
    ) -> None:
        """Where the methods do not fit side by side, they follow each other in tables of their own."""
        width(columns)

        tables.print_weights(
            self.COUNTS, {f"method_{index}": (0.2, 1.8, 1.0) for index in range(6)}
        )

        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= columns
        assert len(re.findall("^─+$", out, re.MULTILINE)) == parts
