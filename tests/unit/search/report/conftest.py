"""A study in a real store, with trials as a test makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from search.report.models import StudyReport
from search.report.study_report import study_report
from spaces.config_tree import ConfigTree
from spaces.records import Diagnosis, EpochRecord, Evidence, Remedy
from spaces.study import StudySpec
from storage.location import StoreLocation
from storage.rows import Claim, Outcome
from storage.store import Store

NAN, INF = float("nan"), float("inf")
Make = Callable[..., EpochRecord]

SPACE = {
    "loss.kind": {"kind": "choice", "choices": ["ce", "focal"]},
    "loss.gamma": {"kind": "float", "low": 0, "high": 5, "when": {"loss.kind": "focal"}},
    "optimizer.lr_multiple": {"kind": "float", "low": 0.01, "high": 30, "log": True},
}
FOCAL = {
    "loss.kind": "focal",
    "loss.gamma": 2.0,
    "optimizer.lr_multiple": 0.5,
    "optimizer.base_lr": 0.1,
    "batch_size": 8,
}
PLAIN = FOCAL | {"loss.kind": "ce"}

EVIDENCE = Evidence(
    "gradient_explosion",
    2,
    13,
    "the gradient norm was 2011",
    {"grad_norm_max": 2011.0, "lr": NAN},
    severity=1.5,
)
DIAGNOSIS = Diagnosis(
    "learning rate too high",
    ("it was 30 times the base rate",),
    (Remedy("halve it", {"optimizer.lr_multiple": 15.0}), Remedy("clip", {})),
)


class Demo:
    """A store with one study in it."""

    def __init__(self, store: Store, make_record: Make, **changes: Any) -> None:
        self.store, self.make = store, make_record
        given: dict[str, Any] = {
            "name": "demo",
            "epochs": 8,
            "trials": 10,
            "space": SPACE,
            **changes,
        }
        self.spec = StudySpec.model_validate(given)
        self.id = store.studies.register_study(1, "demo", self.spec.model_dump(mode="json")).id
        self.number = -1

    def start(
        self,
        metrics: Sequence[float] = (),
        config: Mapping[str, Any] = FOCAL,
        preset: str | None = None,
        **changes: Any,
    ) -> Claim:
        """The next trial, with an epoch for every metric."""
        claim = self.store.leases.claim_trial(self.id, 1000, "box:1", 600)
        assert claim is not None
        self.number += 1
        claim = self.store.leases.bind_trial(
            claim, self.number, self.number, ConfigTree.from_paths(config).nested, preset
        )
        for epoch, metric in enumerate(metrics, 1):
            self.store.epochs.append_epoch(claim, self.make(epoch, metric=metric, **changes), 600)
        return claim

    def complete(
        self, score: float | None, metrics: Sequence[float] = (0.1, 0.2), **changes: Any
    ) -> Claim:
        """A complete trial."""
        claim = self.start(metrics, **changes)
        self.store.leases.finish_trial(claim, Outcome("complete", score=score))
        return claim

    def report(self) -> StudyReport:
        """The report on the study."""
        return study_report(self.store, "demo")


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    """A fresh store."""
    with StoreLocation.parse(sqlite_url).open() as opened:
        yield opened


@pytest.fixture
def demo(store: Store, make_record: Make) -> Demo:
    """A study without a trial."""
    return Demo(store, make_record)
