"""How a trial ends, and with which diagnosis."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from search.worker import ending
from spaces.config import MetricConfig
from spaces.records import Diagnosis, EpochRecord, Evidence, Verdict
from storage.rows import Claim, Outcome

Make = Callable[..., EpochRecord]
PRUNED = Verdict("prune", "median: best metric 0.1 by epoch 2")


def judge(make_record: Make, verdict: Verdict) -> Outcome:
    """The outcome of a trial of two epochs."""
    spec = SimpleNamespace(
        metric=MetricConfig(), pruner=SimpleNamespace(kind="median"), objective="demo"
    )
    attempt = SimpleNamespace(
        context=SimpleNamespace(plan=SimpleNamespace(spec=spec), counts=None),
        claim=Claim(trial_id=1, study_id=1, attempt=1, number=7, config={"epochs": 9}),
        records=[make_record(1), make_record(2)],
    )
    return ending._judge_outcome(cast(Any, attempt), verdict)


class TestDiagnosis:
    def test_ended_by_peers(self, make_record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """The diagnosis knows that peers ended the trial, so that it ended early."""
        given: list[Evidence | None] = []

        def diagnose(evidence: Evidence | None, *_: Any) -> Diagnosis:
            given.append(evidence)
            return Diagnosis("…", (), ())

        monkeypatch.setattr(ending, "diagnose", diagnose)
        outcome = judge(make_record, PRUNED)
        assert given == [outcome.evidence]
        assert outcome.evidence is not None
        assert (outcome.evidence.signal, outcome.evidence.epoch) == ("median", 2)

    def test_any_pruner(self, make_record: Make) -> None:
        """The name of a pruner, which is no signal, makes no cause a suspect."""
        assert judge(make_record, PRUNED).diagnosis is not None

    def test_failed(
        self, make_record: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where the diagnosis fails the trial ends without one, and that is logged."""

        def diagnose(*_: Any) -> Diagnosis:
            raise ZeroDivisionError

        monkeypatch.setattr(ending, "diagnose", diagnose)
        outcome = judge(make_record, PRUNED)
        assert (outcome.state, outcome.signal, outcome.diagnosis) == ("pruned", "median", None)
        assert "trial 7: the diagnosis failed" in caplog.text
