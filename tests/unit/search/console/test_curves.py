"""One trial, explained."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from search.console import curves
from search.console.explanation import print_end
from search.report.trial_report import trial_report
from spaces.records import Diagnosis, Evidence, Remedy, TestScore
from storage.rows import Outcome

if TYPE_CHECKING:
    from tests.unit.search.conftest import Demo

NAN, INF = float("nan"), float("inf")


def squeezed(text: str) -> str:
    """Text without the places where lines were broken."""
    return re.sub(r"\s+", " ", text)


@pytest.mark.usefixtures("width")
class TestTrial:
    def shown(self, demo: Demo, capsys: pytest.CaptureFixture[str], number: int) -> str:
        """A trial as it is explained."""
        curves.print_trial(trial_report(demo.store, "focal_gamma", number))
        return capsys.readouterr().out

    def test_config(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Sections of the configuration, what was searched marked, the learning rate beside its multiple."""
        demo.filled()

        out = squeezed(self.shown(demo, capsys, 0))

        assert "Trial 0 of focal_gamma (preset safe)" in out
        assert "complete after 4 of 4 epochs, miou 0.3712" in out
        assert "*gamma 2.5" in out
        assert "*lr_multiple 0.3, lr 3.0e-02 (0.3 × base)" in out
        assert "*grad_clip_norm none" in out
        assert ", dice_weight 0.4," in out

    def test_why(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A stopped trial shows its numbers, the likely cause, what speaks for it, and each remedy with old and new value, once."""
        demo.filled()

        out = squeezed(self.shown(demo, capsys, 3))

        assert "Why it diverged" in out
        assert f"gradient_explosion at epoch 2, step 13: {demo.statement}" in out
        assert "grad_norm_max 2011" in out
        assert "likely cause: learning rate too high" in out
        assert (
            "likely cause: learning rate too high (over 99% sure) + it was [30] times the base rate"
            in out
        )
        assert (
            "1. clip: the norm at 1: optimizer.grad_clip_norm none → 1 "
            "search run --study focal_gamma --enqueue-remedy 3:1 2. look at the masks"
        ) in out

    def test_outside_the_space(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A remedy outside the space is offered with what the space lacks, and not as a command."""
        remedy = Remedy("a low rate", {"optimizer.lr_multiple": 0.01})
        evidence = Evidence("loss_rising", 1, None, "it rose", {}, 1.0)
        diagnosis = Diagnosis("learning rate too high", (), (remedy,))
        demo.store.leases.finish_trial(
            demo.start([0.1]),
            Outcome("diverged", 0.1, "…", "loss_rising", evidence, diagnosis),
        )

        out = squeezed(self.shown(demo, capsys, 0))

        assert "search run --study focal_gamma" in out
        assert "--name focal_gamma_wider --set space.optimizer.lr_multiple.low=0.01" in out
        assert "(space.optimizer.lr_multiple: low 0.03 → 0.01)" in out
        assert "--enqueue-remedy" not in out

    def test_more_epochs(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """More epochs are offered with the command of a new study."""
        remedy = Remedy("more epochs per trial: 24 instead of 12", {})
        evidence = Evidence("loss_rising", 1, None, "it rose", {}, 1.0)
        diagnosis = Diagnosis("too few epochs", (), (remedy,))
        demo.store.leases.finish_trial(
            demo.start([0.1]),
            Outcome("diverged", 0.1, "…", "loss_rising", evidence, diagnosis),
        )

        out = squeezed(self.shown(demo, capsys, 0))

        assert "1. more epochs per trial: 24 instead of 12 needs a new study" in out
        assert "--name focal_gamma_24_epochs --epochs 24" in out

    def test_unclear(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a clear cause the possible ones are listed, and nothing is prescribed."""
        evidence = Evidence("loss_rising", 1, None, "it rose", {}, 1.0)
        remedy = Remedy("a lower rate", {"optimizer.lr_multiple": 0.5})
        unclear = Diagnosis(
            "learning rate too high", ("it was",), (remedy,), 0.39, (), (("labels broken", 0.2),)
        )
        demo.store.leases.finish_trial(
            demo.start([0.1]), Outcome("diverged", 0.1, "…", "loss_rising", evidence, unclear)
        )

        out = squeezed(self.shown(demo, capsys, 0))

        assert ("no clear cause possible: learning rate too high (39%), labels broken (20%)") in out
        assert "to try" not in out
        assert "likely cause" not in out

    def test_nothing_possible(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Where no cause is likely at all, none is listed."""
        evidence = Evidence("loss_rising", 1, None, "it rose", {}, 1.0)
        unclear = Diagnosis("learning rate too high", (), (), 0.06, (), (("labels broken", 0.05),))
        demo.store.leases.finish_trial(
            demo.start([0.1]), Outcome("diverged", 0.1, "…", "loss_rising", evidence, unclear)
        )

        out = squeezed(self.shown(demo, capsys, 0))

        assert "no clear cause" in out
        assert "possible" not in out

    def test_warning(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """What was found in a complete trial is a warning, not why it ended."""
        evidence = Evidence("loss_rising", 1, None, "spared: it rose", {}, 0.0)
        demo.store.leases.finish_trial(
            demo.start([0.1]), Outcome("complete", 0.1, evidence=evidence)
        )

        out = squeezed(self.shown(demo, capsys, 0))

        assert "Warnings loss_rising at epoch 1: spared: it rose" in out
        assert "Why it" not in out

    def test_curves(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A letter marks every epoch of a curve: both losses together, the metric, the gradient norm."""
        demo.filled()

        loss, metric, norm = re.split(r"\n.* by epoch\n", self.shown(demo, capsys, 0))[1:]

        assert (len(re.findall("t", loss)), len(re.findall("v", loss))) == (4, 4)
        assert len(re.findall("m", metric)) == 4
        assert len(re.findall("g", norm.partition("Classes")[0])) == 4

    def test_broken(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """An epoch without numbers leaves a gap, is named, and has no classes."""
        demo.filled()

        out = self.shown(demo, capsys, 3)

        assert "epoch 2 stopped at step 13 and was not validated" in out
        assert "2011" in out.partition("largest gradient norm")[2]
        assert "last: 1" in out

    def test_nothing_finite(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A trial of which no number is finite is shown without curves."""
        claim = demo.start()
        demo.epochs(
            claim, [NAN, NAN], train_loss=NAN, val_loss=INF, grad_norm_max=INF, grad_norm_median=NAN
        )

        assert "Classes" in self.shown(demo, capsys, 0)

    @pytest.mark.parametrize("norms", [[1.0, NAN], [1.0, 1.0], [0.0, 0.0], [5e-324, 1.7e308]])
    def test_flat(self, demo: Demo, capsys: pytest.CaptureFixture[str], norms: list[float]) -> None:
        """A curve of one value, of equal values, or of absurd ones can be drawn, and the marks beside it differ."""
        claim = demo.start()
        for epoch, norm in enumerate(norms, 1):
            demo.epochs(claim, [0.1], first=epoch, grad_norm_max=norm)

        out = self.shown(demo, capsys, 0)

        charts = re.split(r"\n.* by epoch\n", out)[2:]
        for chart in charts if norms[0] == 1 else charts[:1]:
            marks = re.findall("^(.*)┤", chart, re.MULTILINE)
            assert len(set(marks)) == len(marks) == 5
        assert "plotext" not in out

    def test_classes(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Each class by name at the first, the best and the last epoch and on the test split; absent ones have no value."""
        claim = demo.start()
        used = {"environment.classes": ["road", "[b]sky[/b]", "car"]}
        demo.epochs(claim, [0.1, 0.4, 0.3], class_metric=(0.2, None, 0.0), used=used)
        demo.epochs(
            claim,
            [0.2],
            first=4,
            class_metric=(0.9, None, 0.5),
            used=used,
            test=TestScore(0.21, (0.8, None, 0.4)),
        )

        out = self.shown(demo, capsys, 0)
        rows = [line.split() for line in out.splitlines()]

        assert "epoch 1  best: 2  last: 4    test   change" in out
        assert ["0", "road", "0.2000", "0.2000", "0.9000", "0.8000", "+0.7000"] in rows
        assert ["1", "[b]sky[/b]", "-", "-", "-", "-", "-"] in rows
        assert "miou on the test split (used for no decision): 0.2100" in out

    def test_failed(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A failed trial shows its error in full, as it is."""
        demo.filled()

        out = self.shown(demo, capsys, 4)

        assert (
            "Why it failed\n  ValueError: no [b]class[/b] ü\n\n  Traceback\n    [b]x[/b]\n  ValueError\n"
            in out
        )
        assert "no epoch is recorded yet" in out

    @pytest.mark.parametrize(
        ("metrics", "reported"),
        [
            ([], "no epoch is recorded yet"),
            ([0.1], "miou 0.1000, gradient norm 1.5 (median), 9 (largest)"),
        ],
    )
    def test_young(
        self, demo: Demo, capsys: pytest.CaptureFixture[str], metrics: list[float], reported: str
    ) -> None:
        """A trial that has hardly begun is shown with what there is; it has not ended, so there is no why."""
        demo.start(metrics)

        out = squeezed(self.shown(demo, capsys, 0))

        assert reported in out
        assert "Why it" not in out

    def test_released(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """What is stored of a trial that has not ended is the report of its last worker."""
        claim = demo.start([0.1])
        demo.store.leases.release_trial(claim)
        report = trial_report(demo.store, "focal_gamma", 0)

        print_end(replace(report, reason="a worker stopped responding"), "")

        assert squeezed(capsys.readouterr().out).strip() == (
            "What its last worker reported a worker stopped responding"
        )

    @pytest.mark.parametrize(("tried", "shown"), [((31,), "trial 31"), ((31, 40), "trials 31, 40")])
    def test_tried(
        self,
        demo: Demo,
        capsys: pytest.CaptureFixture[str],
        tried: tuple[int, ...],
        shown: str,
    ) -> None:
        """The trials that tried a remedy are named next to it."""
        demo.filled()
        report = trial_report(demo.store, "focal_gamma", 3)
        offer = replace(report.remedies[0], tried=tried)

        print_end(replace(report, remedies=(offer,)), "")

        assert f"tried in {shown}" in squeezed(capsys.readouterr().out)

    def test_attempts(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A trial that changed hands says so."""
        demo.store.leases.release_trial(demo.start([0.1]))
        demo.claim("box:2")

        assert "worker box:2" in self.shown(demo, capsys, 0)
        assert "2 attempts" in self.shown(demo, capsys, 0)

    def test_within_the_width(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """No line is wider than 80 columns."""
        demo.filled()

        assert all(
            len(line) <= 80
            for number in (0, 3)
            for line in self.shown(demo, capsys, number).splitlines()
        )
