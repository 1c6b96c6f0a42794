"""The report on a trial, read from a real store."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from search.report.trial_report import trial_report
from spaces.config_tree import ConfigTree
from spaces.errors import StoreError
from spaces.records import Remedy
from storage.rows import Outcome
from storage.store import Store
from tests.unit.search.report.conftest import DIAGNOSIS, EVIDENCE, FOCAL, INF, NAN, Demo, Make


class TestTrialReport:
    def test_whole(self, demo: Demo) -> None:
        """A report has everything that the store has of a trial."""
        claim = demo.start(
            [0.1],
            preset="safe",
            used={"environment.classes": ["road", "sky", "car"], "loss.gamma": 2.0},
        )
        demo.store.epochs.append_epoch(claim, demo.make(2, metric=NAN, broken_step=13), 600)
        demo.store.leases.finish_trial(
            claim,
            Outcome(
                "diverged", 0.1, "gradient_explosion: …", evidence=EVIDENCE, diagnosis=DIAGNOSIS
            ),
        )

        report = trial_report(demo.store, "demo", 0)

        assert (
            report.study,
            report.number,
            report.state,
            report.preset,
            report.score,
            report.attempts,
        ) == (
            "demo",
            0,
            "diverged",
            "safe",
            0.1,
            1,
        )
        assert report.config == ConfigTree.from_paths(FOCAL).nested
        assert report.params["loss.gamma"] == 2.0
        assert report.lr == pytest.approx(0.05)
        assert [record.epoch for record in report.records] == [1, 2]
        assert report.findings[0][1] == DIAGNOSIS
        assert report.findings[0][0].statement == EVIDENCE.statement
        assert report.class_names == ("road", "sky", "car")
        assert report.used["loss.gamma"] == 2.0
        assert (report.worker, report.reason) == ("box:1", "gradient_explosion: …")

    def test_former_signal(self, demo: Demo) -> None:
        """Evidence stored under a former name of its signal has the name of now."""
        evidence = replace(EVIDENCE, signal="loss_metric_divorce")
        demo.store.leases.finish_trial(
            demo.start([0.1]),
            Outcome(
                "diverged", 0.1, "loss_metric_divorce: …", evidence=evidence, diagnosis=DIAGNOSIS
            ),
        )

        report = trial_report(demo.store, "demo", 0)

        assert report.findings[0][0].signal == "loss_metric_decoupling"
        assert report.reason == "loss_metric_decoupling: …"
        assert [kill.signal for kill in demo.report().kills] == ["loss_metric_decoupling"]

    def test_failed(self, demo: Demo) -> None:
        """A report has the full text of an error."""
        demo.store.leases.finish_trial(
            demo.start(),
            Outcome("failed", reason="ValueError: x", error="Traceback\nValueError: x"),
        )

        assert trial_report(demo.store, "demo", 0).error == "Traceback\nValueError: x"

    def test_just_started(self, demo: Demo) -> None:
        """A trial without an epoch has a report."""
        demo.start()

        report = trial_report(demo.store, "demo", 0)

        assert (report.state, report.records, report.class_names, report.score) == (
            "running",
            (),
            (),
            None,
        )

    def test_nameless_classes(self, demo: Demo) -> None:
        """Classes without recorded names are numbered."""
        demo.start([0.1])

        assert trial_report(demo.store, "demo", 0).class_names == ("0", "1", "2")

    def test_json(self, demo: Demo) -> None:
        """A report is JSON with records, evidence and remedies; NaN and infinity are null."""
        claim = demo.start([0.1, NAN], grad_norm_max=INF)
        demo.store.leases.finish_trial(
            claim, Outcome("diverged", 0.1, "…", evidence=EVIDENCE, diagnosis=DIAGNOSIS)
        )

        payload = json.loads(
            json.dumps(trial_report(demo.store, "demo", 0).as_dict(), allow_nan=False)
        )

        assert [record["metric"] for record in payload["records"]] == [0.1, None]
        assert payload["records"][0]["grad_norm_max"] is None
        assert payload["findings"][0]["evidence"]["numbers"] == {
            "grad_norm_max": 2011.0,
            "lr": None,
        }
        assert payload["findings"][0]["diagnosis"]["remedies"][0]["patch"] == {
            "optimizer.lr_multiple": 15.0
        }

    def test_unknown_number(self, demo: Demo) -> None:
        """An unknown number is an error with the known ones and the next step."""
        demo.start()

        with pytest.raises(StoreError) as caught:
            trial_report(demo.store, "demo", 7)

        assert (caught.value.found, caught.value.allowed) == ("trial 7", "0")
        assert caught.value.where
        assert "search show --study demo" in caught.value.next_step

    def test_noise_is_finite(self, demo: Demo) -> None:
        """A metric that is NaN does not count for the noise of a complete trial."""
        demo.complete(0.3, [0.1, 0.1, 0.1, 0.2, 0.3, 0.2, NAN])

        (row,) = demo.report().leaderboard

        assert row.noise is not None
        assert math.isfinite(row.noise)


class TestCustomObjective:
    def test_not_imported(self, store: Store, make_record: Make) -> None:
        """The objective's module is not imported, as a store is data only."""
        demo = Demo(store, make_record, objective="missing_module:train")
        remedies = (
            Remedy("slower", {"optimizer.lr_multiple": 0.5}),
            Remedy("slowest", {"optimizer.lr_multiple": 1e-9}),
            Remedy("other", {"width": 3}),
            Remedy("look", {}),
        )
        outcome = Outcome(
            "diverged",
            0.1,
            "…",
            EVIDENCE.signal,
            EVIDENCE,
            replace(DIAGNOSIS, remedies=remedies),
        )
        demo.store.leases.finish_trial(demo.start([0.1]), outcome)

        offers = trial_report(demo.store, "demo", 0).remedies

        assert [offer.in_space for offer in offers] == [True, False, True, False]
        assert offers[1].options

    def test_no_remedy(self, store: Store, make_record: Make) -> None:
        """A complete trial, with no remedy that changes anything, is shown as well."""
        demo = Demo(store, make_record, objective="missing_module:train")
        demo.complete(0.2)
        assert not any(offer.patch for offer in trial_report(demo.store, "demo", 0).remedies)
