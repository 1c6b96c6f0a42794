"""The verdict after an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from search.pruners.verdict import judge
from spaces.records import CONTINUE, EpochRecord
from spaces.study import StudySpec

Make = Callable[..., EpochRecord]

SPEC = StudySpec.model_validate(
    {"name": "demo", "epochs": 12, "space": {"loss.gamma": {"kind": "float", "low": 0, "high": 5}}}
)


class Peers:
    """A peer pruner with a fixed answer, which counts its calls."""

    def __init__(self, answer: str | None = None) -> None:
        self.answer, self.asked = answer, 0

    def __call__(self) -> str | None:
        self.asked += 1
        return self.answer


class TestJudge:
    def test_continue(self, make_record: Make) -> None:
        """A healthy trial that is not worse than its peers continues."""
        peers = Peers()
        assert judge([make_record(1)], SPEC, peers) is CONTINUE
        assert peers.asked == 1

    def test_prune(self, make_record: Make) -> None:
        """A trial that is worse than its peers is pruned, with the pruner's reason."""
        verdict = judge([make_record(5)], SPEC, Peers("median: worse"))
        assert (verdict.action, verdict.reason, verdict.evidence) == (
            "prune",
            "median: worse",
            None,
        )

    def test_last_epoch(self, make_record: Make) -> None:
        """At the last epoch no epochs are left to save, and the peers are not asked."""
        peers = Peers("median: worse")
        assert judge([make_record(11), make_record(12)], SPEC, peers) is CONTINUE
        assert peers.asked == 0

    def test_diverged_first(self, make_record: Make) -> None:
        """A trial that diverged ends for that, and its peers are not asked."""
        peers = Peers("median: worse")
        verdict = judge([make_record(5, grad_norm_max=2000.0, broken_step=3)], SPEC, peers)
        assert (verdict.action, peers.asked) == ("diverged", 0)
        assert (
            verdict.reason
            == "gradient_explosion: the gradient norm was 2000 at step 3 of epoch 5, over 1000"
        )
        assert verdict.evidence is not None
        assert (verdict.evidence.signal, verdict.evidence.epoch, verdict.evidence.step) == (
            "gradient_explosion",
            5,
            3,
        )

    def test_diverged_at_the_end(self, make_record: Make) -> None:
        """A trial can diverge in its last epoch, too."""
        assert judge([make_record(12, train_loss=float("nan"))], SPEC, Peers()).action == "diverged"

    def fall(self, make_record: Make, **changes: Any) -> list[EpochRecord]:
        """Records of a metric that falls five times in a row."""
        return [make_record(epoch, metric=0.5 - 0.02 * epoch, **changes) for epoch in range(1, 7)]

    def test_warning(self, make_record: Make) -> None:
        """A signal that spares the trial is a warning, and the peer pruner decides."""
        records = self.fall(make_record)
        peers = Peers()
        verdict = judge(records, SPEC, peers, lambda epoch: [0.1, 0.2, 0.3])
        assert (verdict.action, peers.asked) == ("continue", 1)
        assert verdict.evidence is not None
        assert (verdict.evidence.is_warning, verdict.evidence.severity) == (True, 0.0)
        reason = "its score so far, 0.4800, is among the best 33% of its 3 peers"
        assert verdict.evidence.numbers["spared"] == reason
        assert verdict.reason.startswith("metric_falling: the metric got worse over 5 epochs")
        assert verdict.reason.endswith(f"; spared: {reason}")
        pruned = judge(records, SPEC, Peers("median: worse"), lambda epoch: [0.1, 0.2, 0.3])
        assert (pruned.action, pruned.reason, pruned.evidence) == ("prune", "median: worse", None)

    def test_peers_at(self, make_record: Make) -> None:
        """The peers are read at the epoch of the signal, and only where one fires."""
        asked: list[int] = []

        def peers_at(epoch: int) -> list[float]:
            asked.append(epoch)
            return [0.9] * 3

        assert judge([make_record(1)], SPEC, Peers(), peers_at) is CONTINUE
        assert asked == []
        verdict = judge(self.fall(make_record), SPEC, Peers(), peers_at)
        assert (verdict.action, asked) == ("diverged", [6])
        assert verdict.evidence is not None
        assert not verdict.evidence.is_warning

    def test_almost_over(self, make_record: Make) -> None:
        """A trial with fewer than two epochs left continues, and its peers are not read."""
        records = self.fall(make_record)
        short = SPEC.model_copy(update={"epochs": 7})
        verdict = judge(records, short, Peers(), lambda epoch: pytest.fail("read"))
        assert verdict.evidence is not None
        assert verdict.evidence.numbers["spared"] == "only 1 of 7 epochs is left"

    def test_slow(self, make_record: Make) -> None:
        """A trial that learns nothing is pruned with evidence; it has not diverged."""
        records = [make_record(epoch, class_metric=(0.9, 0.0, 0.0)) for epoch in range(1, 6)]
        verdict = judge(records, SPEC, Peers(), lambda epoch: [0.9] * 3)
        assert verdict.action == "prune"
        assert verdict.evidence is not None
        assert verdict.evidence.signal == "not_learning"
        assert verdict.reason == f"not_learning: {verdict.evidence.statement}"

    @pytest.mark.parametrize(
        ("epoch", "severity"), [(12, 1.0), (6, 1.5), (3, 1.75), (1, 1 + 11 / 12)]
    )
    def test_severity(self, make_record: Make, epoch: int, severity: float) -> None:
        """The severity is 1 at the end and rises to 2 at the start of a trial."""
        verdict = judge([make_record(epoch, grad_norm_max=2000.0)], SPEC, Peers())
        assert verdict.evidence is not None
        assert verdict.evidence.severity == pytest.approx(severity)

    def test_thresholds(self, make_record: Make) -> None:
        """The study's own thresholds count."""
        lenient = SPEC.model_copy(
            update={
                "signals": SPEC.signals.model_validate({"gradient_explosion": {"max_norm": 5000}})
            }
        )
        assert judge([make_record(5, grad_norm_max=2000.0)], lenient, Peers()) is CONTINUE

    def test_direction(self, make_record: Make) -> None:
        """The study's own direction counts."""
        rising = [make_record(epoch, metric=0.1 * epoch) for epoch in range(1, 7)]
        minimizing = SPEC.model_copy(
            update={
                "metric": SPEC.metric.model_validate({"name": "val_ce", "direction": "minimize"})
            }
        )
        assert judge(rising, SPEC, Peers()) is CONTINUE
        assert judge(rising, minimizing, Peers()).reason.startswith("metric_falling")
