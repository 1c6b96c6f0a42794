"""What limited complete trials that are clearly worse than their peers."""

from __future__ import annotations

from typing import Any

import pytest

from search.console.curves import print_trial
from search.console.stopped_tables import print_limited_trials
from search.report.trial_report import trial_report
from spaces.records import UNCLEAR_CAUSE
from storage.rows import Outcome
from tests.unit.search.diagnosis.trials import HEALTHY, configuration
from tests.unit.search.report.conftest import Demo

GOOD = [0.20 + 0.02 * epoch for epoch in range(8)]
SLOW = [0.10 + 0.01 * epoch for epoch in range(8)]
LOW_RATE = configuration(optimizer__lr_multiple=0.003)
USUAL = configuration()


def complete(demo: Demo, metrics: list[float], config: dict[str, Any], fall: float) -> None:
    """A complete trial with all signs of health, whose loss falls by a share in every epoch."""
    claim = demo.start(config=config)
    for epoch, metric in enumerate(metrics, 1):
        loss = {"train_loss": 1.9 * (1 - fall) ** epoch, "ce_loss": 1.9 * (1 - fall) ** epoch}
        dice = {"dice_loss": 0.9 - 0.01 * epoch, "val_ce": 1.3 - 0.01 * epoch}
        classes = {"class_metric": (0.9, 0.2 + metric, metric, metric)}
        record = demo.make(epoch, **HEALTHY | loss | dice | classes | {"metric": metric})
        demo.store.epochs.append_epoch(claim, record, 600)
    demo.store.leases.finish_trial(claim, Outcome("complete", score=max(metrics)))


@pytest.fixture
def compared(demo: Demo) -> Demo:
    """Four usual trials, then one whose learning rate is far too low."""
    for _ in range(4):
        complete(demo, GOOD, USUAL, 0.1)
    complete(demo, SLOW, LOW_RATE, 0.005)
    return demo


class TestExplain:
    def test_named(self, compared: Demo) -> None:
        """A complete trial far below its peers is diagnosed although it shows all signs of health."""
        report = trial_report(compared.store, "demo", 4)

        assert all(line.startswith(("present", "not judged")) for line in report.health)
        assert report.trouble is not None
        assert report.trouble.cause == "learning rate too low"
        assert report.remedies[0].patch["optimizer.lr_multiple"] > 0.003

    def test_usual(self, compared: Demo) -> None:
        """Its healthy peers get no diagnosis."""
        assert trial_report(compared.store, "demo", 0).trouble is None

    def test_without_peers(self, demo: Demo) -> None:
        """Alone in its study a healthy trial gets none."""
        complete(demo, SLOW, LOW_RATE, 0.005)

        assert trial_report(demo.store, "demo", 0).trouble is None

    def test_printed(self, compared: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """It is worded as what limited the trial, which did not diverge."""
        print_trial(trial_report(compared.store, "demo", 4))

        out = capsys.readouterr().out
        assert "What limited it" in out
        assert "likely limited by: learning rate too low" in out
        assert "diverged" not in out.partition("What limited it")[2]

    def test_unclear(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Where no cause is clear, that is said, and no remedy changes the configuration."""
        for _ in range(4):
            complete(demo, GOOD, USUAL, 0.1)
        complete(demo, SLOW, USUAL, 0.1)

        report = trial_report(demo.store, "demo", 4)

        assert report.trouble is not None
        assert report.trouble.cause == UNCLEAR_CAUSE
        assert not any(offer.patch for offer in report.remedies)
        print_trial(report)
        assert UNCLEAR_CAUSE in capsys.readouterr().out


class TestShow:
    def test_listed(self, compared: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """The report on the study names it with its score, the median, cause and remedy."""
        (limited,) = compared.report().limited

        assert (limited.number, limited.score) == (4, max(SLOW))
        assert limited.usual == max(GOOD)
        assert limited.cause == "learning rate too low"
        print_limited_trials(compared.report())
        out = " ".join(capsys.readouterr().out.split())
        assert "trial 4: 0.1700, where the median is 0.3400" in out
        assert "likely limited by: learning rate too low" in out
        assert "try: learning rate ×" in out

    def test_nothing(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Where all are alike, nothing is printed."""
        for _ in range(5):
            complete(demo, GOOD, USUAL, 0.1)

        print_limited_trials(demo.report())

        assert capsys.readouterr().out == ""
