"""The report on a study, read from a real store."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from search.report.models import LeaderboardRow, metric_noise
from search.report.study_report import study_report
from spaces.config import MetricConfig
from spaces.errors import StoreError
from spaces.records import Evidence, TestScore
from storage.rows import Outcome
from storage.store import Store
from tests.unit.search.report.conftest import (
    DIAGNOSIS,
    EVIDENCE,
    FOCAL,
    NAN,
    PLAIN,
    SPACE,
    Demo,
    Make,
)


def numbers(rows: Sequence[LeaderboardRow]) -> list[int]:
    """Trial numbers in order."""
    return [row.number for row in rows]


class TestStudyReport:
    def test_empty(self, demo: Demo) -> None:
        """A study that has not begun has all of its budget left, and no leaderboard."""
        report = demo.report()

        assert (report.name, report.metric, report.direction, report.score_rule, report.epochs) == (
            "demo",
            "miou",
            "maximize",
            "best",
            8,
        )
        assert report.states == {
            "complete": 0,
            "pruned": 0,
            "diverged": 0,
            "failed": 0,
            "running": 0,
            "paused": 0,
            "reserved": 0,
            "left": 10,
        }
        assert (report.leaderboard, report.kills, report.causes, report.health) == ((), (), {}, ())

    def test_states(self, demo: Demo) -> None:
        """Every trial is counted in its state; what the budget still allows is left."""
        demo.complete(0.2)
        for state in ("pruned", "pruned", "failed"):
            demo.store.leases.finish_trial(demo.start(), Outcome(state))
        paused = demo.start()
        demo.start([0.1])
        demo.store.leases.claim_trial(demo.id, 1000, "box:2", 600)
        demo.store.leases.release_trial(paused)

        assert demo.report().states == {
            "complete": 1,
            "pruned": 2,
            "diverged": 0,
            "failed": 1,
            "running": 1,
            "paused": 1,
            "reserved": 1,
            "left": 3,
        }

    def test_budget_overspent(self, demo: Demo) -> None:
        """A budget below the number of trials leaves 0."""
        for _ in range(2):
            demo.start()
        demo.store.studies.redefine_study(
            demo.id, demo.spec.model_copy(update={"trials": 1}).model_dump(mode="json")
        )

        assert demo.report().states["left"] == 0

    def test_unknown(self, demo: Demo) -> None:
        """An unknown study is an error with the nearest name."""
        with pytest.raises(StoreError, match="did you mean 'demo'"):
            study_report(demo.store, "dmeo")

    def test_few_queries(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        """The report needs no query per trial."""
        demo.complete(0.2)
        for method in (
            "epochs.EpochRepository.trial_records",
            "findings.FindingRepository.trial_evidence",
            "trials.TrialRepository.find_trial",
        ):
            monkeypatch.setattr(f"storage.repositories.{method}", None)

        assert len(demo.report().leaderboard) == 1

    def test_json(self, demo: Demo) -> None:
        """A report is JSON: NaN is null, and tuples are lists."""
        claim = demo.start([0.1, NAN])
        demo.store.leases.finish_trial(
            claim,
            Outcome("diverged", score=NAN, evidence=Evidence("loss_rising", 2, None, "", {}, NAN)),
        )
        demo.complete(0.2)

        payload = json.loads(json.dumps(demo.report().as_dict(), allow_nan=False))

        assert payload["kills"][0]["severity"] is None
        assert payload["leaderboard"][0]["params"] == {
            "loss.kind": "focal",
            "loss.gamma": 2.0,
            "optimizer.lr_multiple": 0.5,
        }
        assert payload["states"]["complete"] == 1


class TestLeaderboard:
    def test_best_first(self, demo: Demo) -> None:
        """Complete trials by score, ranked from 1; of equal ones the earlier comes first."""
        for score in (0.2, 0.4, 0.3, 0.4):
            demo.complete(score)

        rows = demo.report().leaderboard

        assert numbers(rows) == [1, 3, 2, 0]
        assert [row.rank for row in rows] == [1, 2, 3, 4]

    def test_minimized(self, store: Store, make_record: Make) -> None:
        """A minimized metric ranks ascending, and its best epoch is the lowest one."""
        demo = Demo(store, make_record, metric=MetricConfig(name="val_ce", direction="minimize"))
        demo.complete(0.5, [0.7, 0.5, 0.6])
        demo.complete(0.4, [0.4, 0.5, 0.6])

        rows = demo.report().leaderboard

        assert numbers(rows) == [1, 0]
        assert [(row.best_epoch, row.epochs) for row in rows] == [(1, 3), (2, 3)]

    def test_complete_only(self, demo: Demo) -> None:
        """A trial that was stopped, is running, or has no score is not ranked."""
        demo.complete(0.2)
        demo.complete(NAN)
        demo.complete(None)
        demo.store.leases.finish_trial(demo.start([0.9]), Outcome("pruned", score=0.9))
        demo.store.leases.finish_trial(demo.start([0.9]), Outcome("diverged", score=0.9))
        demo.start([0.9])

        assert numbers(demo.report().leaderboard) == [0]

    def test_params(self, demo: Demo) -> None:
        """A row has the sampled values without excluded dimensions, and the rate of a multiple."""
        demo.complete(0.4, config=FOCAL)
        demo.complete(0.3, config=PLAIN)

        focal, plain = demo.report().leaderboard

        assert focal.params == {
            "loss.kind": "focal",
            "loss.gamma": 2.0,
            "optimizer.lr_multiple": 0.5,
        }
        assert plain.params == {"loss.kind": "ce", "optimizer.lr_multiple": 0.5}
        assert focal.lr == pytest.approx(0.05)

    def test_rate_not_searched(self, store: Store, make_record: Make) -> None:
        """No learning rate is shown where none was searched."""
        demo = Demo(store, make_record, space={"loss.kind": SPACE["loss.kind"]})
        demo.complete(0.4)

        assert demo.report().leaderboard[0].lr is None

    def test_preset_and_test(self, demo: Demo) -> None:
        """A row has the preset, and the test metric of the last epoch with one."""
        claim = demo.start([0.1, 0.3], preset="safe")
        demo.store.epochs.append_epoch(
            claim, demo.make(3, metric=0.2, test=TestScore(0.25, ())), 600
        )
        demo.store.leases.finish_trial(claim, Outcome("complete", score=0.3))
        demo.complete(0.2)

        rows = demo.report().leaderboard

        assert [(row.preset, row.test, row.best_epoch) for row in rows] == [
            ("safe", 0.25, 2),
            ("", None, 2),
        ]

    @pytest.mark.parametrize(("behind", "tied"), [(0.036, True), (0.037, False)])
    def test_tied(self, demo: Demo, behind: float, tied: bool) -> None:
        """A row is tied within the combined noise of its own run and the first row's."""
        noisy, calm = [0.30, 0.33] * 3, [0.1] * 6  # noise 0.0363 and 0
        demo.complete(0.4, noisy)
        demo.complete(0.4 - behind, calm)

        assert [row.tied for row in demo.report().leaderboard] == [False, tied]

    def test_short_trials_tie_when_equal(self, demo: Demo) -> None:
        """Trials too short to show noise are tied only when their scores are the same."""
        for score in (0.4, 0.4, 0.399):
            demo.complete(score)

        assert [(row.noise, row.tied) for row in demo.report().leaderboard] == [
            (None, False),
            (None, True),
            (None, False),
        ]


class TestNoise:
    def test_by_hand(self, make_record: Make) -> None:
        """Constant second differences give a known noise; NaN and old epochs are left out."""
        metrics = [0, 9] * 20 + [0.30, 0.33, NAN] + [0.30, 0.33] * 9
        records = [make_record(epoch, metric=metric) for epoch, metric in enumerate(metrics, 1)]

        assert metric_noise(records) == pytest.approx(0.06 / (0.6745 * math.sqrt(6)))

    def test_trend_is_no_noise(self, make_record: Make) -> None:
        """A metric that rises evenly has no noise."""
        assert metric_noise(
            [make_record(epoch, metric=0.01 * epoch) for epoch in range(1, 11)]
        ) == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("metrics", [[], [0.1], [0.1, 0.2, 0.4], [0.1, 0.2, NAN, 0.3]])
    def test_too_few(self, make_record: Make, metrics: list[float]) -> None:
        """Fewer than two second differences give no noise."""
        assert (
            metric_noise(
                [make_record(epoch, metric=metric) for epoch, metric in enumerate(metrics, 1)]
            )
            is None
        )


class TestKills:
    def test_diverged(self, demo: Demo) -> None:
        """A diverged trial has its signal, place, cause and first remedy."""
        claim = demo.start([0.1, NAN])
        demo.store.leases.finish_trial(
            claim,
            Outcome(
                "diverged",
                0.1,
                "gradient_explosion: the gradient norm was 2011",
                evidence=EVIDENCE,
                diagnosis=DIAGNOSIS,
            ),
        )

        (kill,) = demo.report().kills

        assert (kill.number, kill.state, kill.signal, kill.epoch, kill.step, kill.severity) == (
            0,
            "diverged",
            "gradient_explosion",
            2,
            13,
            1.5,
        )
        assert (kill.reason, kill.cause, kill.remedy) == (
            "gradient_explosion: the gradient norm was 2011",
            "learning rate too high",
            "halve it: optimizer.lr_multiple 0.5 → 15",
        )

    def test_pruned(self, demo: Demo) -> None:
        """A pruned trial has its pruner and its last epoch; its cause is its peers."""
        demo.store.leases.finish_trial(
            demo.start([0.1, 0.1, 0.1]),
            Outcome("pruned", 0.1, "median: best metric 0.1 by epoch 3", "median"),
        )

        (kill,) = demo.report().kills

        assert (kill.signal, kill.epoch, kill.step, kill.cause, kill.remedy) == (
            "median",
            3,
            None,
            "worse than its peers",
            "",
        )

    @pytest.mark.parametrize(
        ("signal", "cause"),
        [("not_learning", "no clear cause"), ("median", "worse than its peers")],
    )
    def test_unclear(self, demo: Demo, signal: str, cause: str) -> None:
        """A pruned trial without a clear cause is worse than its peers if they ended it."""
        demo.store.leases.finish_trial(
            demo.start([0.1, 0.1]),
            Outcome(
                "pruned",
                0.1,
                f"{signal}: …",
                signal,
                Evidence(signal, 2, None, "…", {}, 0.0),
                replace(DIAGNOSIS, confidence=0.2),
            ),
        )

        report = demo.report()

        assert (report.kills[0].cause, report.causes) == (cause, {cause: 1})

    def test_severity_zero(self, demo: Demo) -> None:
        """Neither a warning nor the evidence of the peer pruner counts as a divergence."""
        claim = demo.start([0.1, 0.1, 0.1])
        warning = Evidence("loss_rising", 2, None, "it rose", {"spared": "…"}, 0.0)
        demo.store.epochs.append_warning(claim, warning)
        demo.store.leases.finish_trial(
            claim,
            Outcome(
                "pruned",
                0.1,
                "median: …",
                "median",
                evidence=Evidence("median", 3, None, "…", {}, 0.0),
                diagnosis=DIAGNOSIS,
            ),
        )

        (kill,) = demo.report().kills

        assert (kill.signal, kill.severity, kill.cause) == ("median", None, DIAGNOSIS.cause)

    def test_failed(self, demo: Demo) -> None:
        """A failed trial has the type of its error, with or without an epoch."""
        demo.store.leases.finish_trial(
            demo.start(),
            Outcome(
                "failed",
                reason="ValueError: bad mask",
                signal="ValueError",
                error="Traceback …",
            ),
        )

        (kill,) = demo.report().kills

        assert (kill.state, kill.signal, kill.epoch, kill.cause, kill.reason) == (
            "failed",
            "error",
            None,
            "ValueError",
            "ValueError: bad mask",
        )

    def test_causes(self, demo: Demo) -> None:
        """Causes are counted, the most frequent first; complete trials do not count."""
        demo.complete(0.3)
        demo.store.leases.finish_trial(
            demo.start([0.1]), Outcome("pruned", 0.1, "median: …", "median")
        )
        for _ in range(2):
            demo.store.leases.finish_trial(
                demo.start([0.1, NAN]),
                Outcome(
                    "diverged",
                    0.1,
                    "gradient_explosion: …",
                    evidence=EVIDENCE,
                    diagnosis=DIAGNOSIS,
                ),
            )

        assert list(demo.report().causes.items()) == [
            ("learning rate too high", 2),
            ("worse than its peers", 1),
        ]


class TestStudyHealth:
    def test_distinguishing(self, demo: Demo) -> None:
        """A sign that some trials lack has their numbers; the others are in one line."""
        demo.complete(0.4, [0.1, 0.4], grad_norm_median=50.0)
        demo.complete(0.4, [0.4, 0.1], grad_norm_median=50.0)
        demo.store.leases.finish_trial(demo.start([0.4, 0.1]), Outcome("pruned"))

        first, *_, last = demo.report().health

        assert (
            first
            == "a metric that improved since the start: 1 of 2 complete trials; missing in trial 1"
        )
        assert last == (
            "none of the 2 shows: a steadily falling training loss, a gradient norm within 0.1 to 10, "
            "every part of the loss falls, rare classes gain while frequent ones hold"
        )

    def test_common(self, demo: Demo) -> None:
        """What all trials show takes one line."""
        for _ in range(2):
            demo.complete(0.4, [0.1, 0.4])

        line = demo.report().health[-1]

        assert line.startswith(
            "all 2 complete trials show: a metric that improved since the start, a gradient norm"
        )

    def test_dead_classes(self, demo: Demo) -> None:
        """Classes that were never found are named with their trials."""
        used = {"environment.classes": ["road", "sky", "car"]}
        for classes in ((0.5, 0.0, 0.0), (0.5, 0.0, 0.3)):
            demo.complete(0.4, [0.1, 0.4], class_metric=classes, used=used)

        report = demo.report()

        assert "never found: sky (in all 2 complete trials), car (in trial 0)" in report.health
        first, second = report.leaderboard
        assert (first.worst_class, first.never_found) == (("sky", 0.0), ("sky", "car"))
        assert (second.worst_class, second.never_found) == (("sky", 0.0), ("sky",))
        assert report.as_dict()["leaderboard"][0]["worst_class"] == {"name": "sky", "metric": 0.0}

    def test_lost_classes(self, demo: Demo) -> None:
        """A class that was learned and lost is named; the worst class is that of the best epoch."""
        claim = demo.start([0.4], class_metric=(0.5, 0.3, 0.2))
        demo.store.epochs.append_epoch(
            claim, demo.make(2, metric=0.2, class_metric=(0.4, 0.0, 0.2)), 600
        )
        demo.store.leases.finish_trial(claim, Outcome("complete", score=0.4))

        report = demo.report()

        assert "learned and lost: 1 (in trial 0)" in report.health
        assert report.leaderboard[0].worst_class == ("2", 0.2)
        assert report.leaderboard[0].lost == ("1",)
