"""A study as the tests of the console need it: a real store, trials as a test makes them, a screen of a set width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from search.console import terminal
from search.planning.plan import Plan, make_plan
from spaces.loader import load_study
from spaces.parameters import Scalar
from spaces.records import Diagnosis, EpochRecord, Evidence, Remedy
from storage.location import StoreLocation
from storage.rows import Claim, Outcome, StoredStudy
from storage.store import Store

NAN = float("nan")
Make = Callable[..., EpochRecord]
Width = Callable[[int], None]

PARAMS: dict[str, Scalar] = {
    "loss.gamma": 2.5,
    "optimizer.lr_multiple": 0.3,
    "optimizer.grad_clip_norm": None,
}
STATEMENT = "the gradient norm was 2011 at step 13 of epoch 2, over 1000"
EVIDENCE = Evidence(
    "gradient_explosion", 2, 13, STATEMENT, {"grad_norm_max": 2011.3, "lr": 0.03}, severity=1.5
)
DIAGNOSIS = Diagnosis(
    "learning rate too high",
    ("it was [30] times the base rate",),
    (
        Remedy("clip: the norm at 1", {"optimizer.grad_clip_norm": 1.0}),
        Remedy("look at the masks", {}),
    ),
)


class Demo:
    """A store with the shipped study `focal_gamma` in it, and trials as a test makes them."""

    def __init__(self, store: Store, make_record: Make) -> None:
        self.store, self.make = store, make_record
        self.plan: Plan = make_plan(load_study("focal_gamma", {"trials": 6, "epochs": 4}))
        self.stored: StoredStudy = store.studies.register_study(
            1, "focal_gamma", self.plan.spec.model_dump(mode="json")
        )
        self.count = 0

    @property
    def statement(self) -> str:
        """What the signal of every diverged trial says."""
        return STATEMENT

    def claim(self, worker: str = "box:1") -> Claim:
        """A trial to work on."""
        claim = self.store.leases.claim_trial(self.stored.id, 1000, worker, 600)
        assert claim is not None
        return claim

    def start(
        self,
        metrics: Sequence[float] = (),
        preset: str | None = None,
        worker: str = "box:1",
        **params: Scalar,
    ) -> Claim:
        """The next trial, with an epoch for every metric."""
        given = PARAMS | {path.replace("__", "."): value for path, value in params.items()}
        config = self.plan.make_config(given, self.count, preset).model_dump(mode="json")
        claim = self.store.leases.bind_trial(
            self.claim(worker), self.count, self.count, config, preset
        )
        self.count += 1
        self.epochs(claim, metrics)
        return claim

    def epochs(
        self, claim: Claim, metrics: Sequence[float], first: int = 1, **changes: Any
    ) -> None:
        """Epochs of a trial."""
        for epoch, metric in enumerate(metrics, first):
            self.store.epochs.append_epoch(claim, self.make(epoch, metric=metric, **changes), 600)

    def finish(
        self, claim: Claim, state: Any, score: float | None = None, reason: str = ""
    ) -> None:
        """The end of a trial."""
        signals = {"pruned": "median", "diverged": EVIDENCE.signal}
        diverged = state == "diverged"
        outcome = Outcome(
            state,
            score,
            reason,
            signals.get(state, ""),
            EVIDENCE if diverged else None,
            DIAGNOSIS if diverged else None,
        )
        self.store.leases.finish_trial(claim, outcome)

    def filled(self) -> None:
        """A trial of every kind: 0 and 1 complete, 2 pruned, 3 diverged, 4 failed, 5 running."""
        self.finish(self.start([0.1, 0.2, 0.3712, 0.3], preset="safe"), "complete", 0.3712)
        self.finish(self.start([0.1, 0.2, 0.2, 0.25], loss__gamma=0.125), "complete", 0.25)
        self.finish(self.start([0.1]), "pruned", 0.1, "median: best metric 0.1 by epoch 1")
        claim = self.start([0.1])
        broken = {
            "broken_step": 13,
            "train_loss": NAN,
            "val_loss": NAN,
            "grad_norm_max": 2011.3,
            "class_metric": (None,) * 3,
        }
        self.epochs(claim, [NAN], first=2, **broken)
        self.finish(claim, "diverged", 0.1, f"gradient_explosion: {STATEMENT}")
        self.store.leases.finish_trial(
            self.start(),
            Outcome(
                "failed",
                reason="ValueError: no [b]class[/b] ü",
                signal="ValueError",
                error="Traceback\n  [b]x[/b]\nValueError",
            ),
        )
        self.start([0.1, 0.2])


@pytest.fixture
def demo(sqlite_url: str, make_record: Make) -> Iterator[Demo]:
    """A study without a trial, in a fresh store."""
    with StoreLocation.parse(sqlite_url).open() as store:
        yield Demo(store, make_record)


@pytest.fixture
def width(monkeypatch: pytest.MonkeyPatch) -> Width:
    """Sets the width of the screen, which is 80 columns at first, and without colour whatever the environment says."""

    def choose(columns: int) -> None:
        for console in (terminal._out, terminal._err):
            monkeypatch.setattr(console, "_width", columns)

    for console in (terminal._out, terminal._err):
        monkeypatch.setattr(console, "_force_terminal", False)
        monkeypatch.setattr(console, "_color_system", None)
    choose(80)
    return choose
