"""How the workers of a study come to its base learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from objectives.contract import Trainer
from objectives.segmentation import train as segmentation
from search.planning.base_rate import AUTO, BASE_LR
from search.report.study_report import study_report
from search.session import Session, open_session
from search.stored_study import find_study, stored_plan
from search.worker.promotion import read_budget
from search.worker.rate_probe import ProbeSetup, resolve_base_lr
from search.worker.stop import StopNow, StopRequest
from spaces.config_tree import ConfigTree
from spaces.errors import OutOfMemoryError, StudyError
from spaces.loader import load_study
from spaces.rate_probe import ProbeStep
from spaces.records import ClassCounts
from storage.location import StoreLocation

SMALL = {
    f"base.{path}": value
    for path, value in {
        "data": {"size": 32, "train_scenes": 16, "val_scenes": 8, "test_scenes": 8},
        "batch_size": 4,
        BASE_LR: AUTO,
    }.items()
}


@pytest.fixture
def session(sqlite_url: str) -> Iterator[Session]:
    """A study of small scenes whose base rate is to be found."""
    spec = load_study("lr_clip", {**SMALL, "epochs": 2, "epochs_budget": 40})
    with open_session(spec, StoreLocation.parse(sqlite_url)) as opened:
        yield opened


def setup_of(session: Session, trainer: Any = segmentation) -> ProbeSetup:
    """Load what a worker has loaded when it comes to the probe."""
    config = session.plan.first_config()
    counts = segmentation.count_classes(config)  # type: ignore[arg-type]
    prepared = segmentation.prepare(config, "cpu")  # type: ignore[arg-type]
    store, stored = session.store, session.stored
    return ProbeSetup(store, stored, trainer, prepared, counts, "cpu", StopRequest())


class Scripted(Trainer):
    """A trainer whose probe yields these steps, or runs out of memory above a size of the batch."""

    def __init__(self, steps: list[ProbeStep], most: int = 1000, stop: Any = None) -> None:
        self.steps, self.most, self.stop = steps, most, stop
        self.batches: list[tuple[int, int]] = []

    def probe_rates(
        self, config: Any, prepared: Any, counts: ClassCounts, device: str
    ) -> Iterator[ProbeStep]:
        self.batches.append((config.batch_size, config.optimizer.accumulate))
        if config.batch_size > self.most:
            raise OutOfMemoryError(device)
        for step in self.steps:
            if self.stop is not None:
                self.stop.stop_after_epoch()
            yield step


RISING = [
    ProbeStep(10.0 ** (index - 5), loss, 0.5) for index, loss in enumerate([2, 2, 2, 2, 1, 9])
]
BROKEN = [ProbeStep(1e-5, float("nan"), 0.5, is_usable=False)]


class TestFirstWorker:
    def test_found_and_stored(self, session: Session) -> None:
        """A real probe finds a rate; it is stored with the study, and every trial is given it."""
        setup = setup_of(session)
        plan = resolve_base_lr(session.plan, session.plan.first_config(), setup)
        stored = find_study(session.store, session.stored.name)
        probe = stored.rate_probe
        assert probe is not None
        assert plan.base_lr == probe.base_lr
        assert 1e-3 < probe.base_lr < probe.stable_lr
        assert len(probe.curve) > 50
        assert stored_plan(stored).base_lr == probe.base_lr
        with open_session(session.plan.spec, session.location) as resumed:
            assert resumed.plan == plan
        config = ConfigTree(plan.make_config({}, 0, "recommended").model_dump())
        assert config[BASE_LR] == probe.base_lr
        report = study_report(session.store, stored.name)
        assert report.rate_probe == probe
        assert report.as_dict()["rate_probe"]["curve"][0] == list(probe.curve[0])

    def test_deterministic(self, session: Session) -> None:
        """The same study gives the same probe, to the last digit."""
        setup = setup_of(session)
        config = session.plan.first_config()
        steps = [
            list(segmentation.probe_rates(config, setup.prepared, setup.counts, "cpu"))  # type: ignore[arg-type]
            for _ in range(2)
        ]
        assert steps[0] == steps[1]

    def test_counts_against_budget(self, session: Session) -> None:
        """The epochs of the probe are no longer left to the trials, rounded up to whole ones."""
        before = read_budget(session.store, session.stored).epochs
        resolve_base_lr(
            session.plan, session.plan.first_config(), setup_of(session, Scripted(RISING))
        )
        after = read_budget(session.store, session.stored).epochs
        assert before is not None
        assert after == replace(before, epochs=39)

    def test_out_of_memory(self, session: Session) -> None:
        """A probe without enough memory accumulates smaller batches, as a trial does."""
        trainer = Scripted(RISING, most=1)
        resolve_base_lr(session.plan, session.plan.first_config(), setup_of(session, trainer))
        assert trainer.batches == [(4, 1), (2, 2), (1, 4)]


class TestOtherWorkers:
    def test_read(self, session: Session) -> None:
        """A worker that comes later reads the result and runs no probe."""
        first = Scripted(RISING)
        plan = resolve_base_lr(session.plan, session.plan.first_config(), setup_of(session, first))
        later = Scripted(BROKEN)
        again = resolve_base_lr(session.plan, session.plan.first_config(), setup_of(session, later))
        assert again.base_lr == plan.base_lr
        assert later.batches == []

    def test_worker_died(self, session: Session) -> None:
        """A worker that waits for a probe whose worker died runs the probe itself."""
        assert session.store.rate_probes.claim_probe(session.stored.id, 0.001)
        trainer = Scripted(RISING)
        plan = resolve_base_lr(
            session.plan, session.plan.first_config(), setup_of(session, trainer)
        )
        assert plan.base_lr is not None
        assert len(trainer.batches) == 1

    def test_stopped_while_waiting(self, session: Session) -> None:
        """A worker that waits for another one's probe ends when it is asked to stop."""
        assert session.store.rate_probes.claim_probe(session.stored.id, 600)
        setup = setup_of(session, Scripted(RISING))
        setup.stop.stop_after_epoch()
        with pytest.raises(StopNow):
            resolve_base_lr(session.plan, session.plan.first_config(), setup)


class TestWithoutResult:
    def test_unstable_everywhere(self, session: Session) -> None:
        """A training that breaks at every rate is refused, with the smallest rate, and not stored."""
        setup = setup_of(session, Scripted(BROKEN))
        with pytest.raises(StudyError, match="breaks at every learning rate") as caught:
            resolve_base_lr(session.plan, session.plan.first_config(), setup)
        assert "1e-05" in caught.value.found
        assert session.store.rate_probes.find_probe(session.stored.id) is None
        assert session.store.rate_probes.claim_probe(session.stored.id, 600)

    def test_stopped(self, session: Session) -> None:
        """A worker that is asked to stop leaves the probe to the next one."""
        setup = setup_of(session, Scripted([]))
        setup = replace(setup, trainer=Scripted(RISING, stop=setup.stop))
        with pytest.raises(StopNow):
            resolve_base_lr(session.plan, session.plan.first_config(), setup)
        assert session.store.rate_probes.claim_probe(session.stored.id, 600)

    def test_number(self, session: Session) -> None:
        """A study with a number as its base rate has no probe."""
        spec = load_study("lr_clip", {**SMALL, f"base.{BASE_LR}": 0.2})
        plan = replace(session.plan, spec=spec)
        trainer = Scripted(BROKEN)
        assert resolve_base_lr(plan, plan.first_config(), setup_of(session, trainer)) == plan
        assert trainer.batches == []
