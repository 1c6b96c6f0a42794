"""The divergence signals as a pruner of Optuna's, in plain scripts."""

from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner, ThresholdPruner
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from search.planning.plan import make_plan
from search.pruners.divergence import DivergencePruner, store_log
from spaces.errors import InputError, StudyError
from spaces.loader import load_study
from spaces.records import EpochRecord
from spaces.thresholds import SignalsConfig
from storage.location import StoreLocation

PAGE = Path(__file__).parents[4] / "docs" / "pruner.md"


@pytest.fixture(params=["memory", "sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage]:
    """Any storage of Optuna's."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if request.param == "memory":
        yield InMemoryStorage()
    elif request.param == "journal":
        yield JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    else:
        made = RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
        yield made
        made.remove_session()
        made.engine.dispose()


def ended(
    pruner: DivergencePruner,
    storage: BaseStorage,
    losses: list[float],
    metrics: list[float],
    direction: str = "maximize",
    **figures: Any,
) -> FrozenTrial:
    """A trial that logs these epochs for as long as it may."""
    study = optuna.create_study(storage=storage, pruner=pruner, direction=direction)

    def objective(trial: Trial) -> float:
        for epoch, (loss, metric) in enumerate(zip(losses, metrics, strict=True), 1):
            pruner.log(trial, epoch, loss=loss, metric=metric, **figures)
            if trial.should_prune():
                raise optuna.TrialPruned
        return metrics[-1]

    study.optimize(objective, n_trials=1)
    return study.trials[0]


def constraint(trial: FrozenTrial) -> float:
    """The constraint of the trial for the sampler; 0 or less is feasible."""
    return max(
        (value for key, value in trial.system_attrs.items() if key.startswith("constraints:")),
        default=0.0,
    )


FALLING = [0.5, 0.49, 0.45, 0.4, 0.35, 0.3, 0.29]


class TestSparing:
    def end_after(
        self, peers: list[float], metrics: list[float], epochs: int | None = None, **figures: Any
    ) -> FrozenTrial:
        """A trial that logs these metrics after complete ones with constant metrics."""
        pruner = DivergencePruner(epochs=epochs)
        study = optuna.create_study(storage=InMemoryStorage(), pruner=pruner, direction="maximize")
        for peer in peers:
            done = optuna.trial.create_trial(
                value=peer, intermediate_values=dict.fromkeys(range(1, len(metrics) + 1), peer)
            )
            study.add_trial(done)
        trial = study.ask()
        for epoch, metric in enumerate(metrics, 1):
            pruner.log(trial, epoch, loss=1.0, metric=metric, **figures)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return study.trials[-1]
        study.tell(trial, metrics[-1])
        return study.trials[-1]

    def test_almost_over(self) -> None:
        """A trial with fewer than two epochs left is spared, where the number is known."""
        assert self.end_after([], FALLING, None).state == TrialState.PRUNED
        assert self.end_after([], FALLING, 7).state == TrialState.COMPLETE
        assert self.end_after([], FALLING, 8).state == TrialState.PRUNED

    def test_among_the_best(self) -> None:
        """A trial that is among the best of the complete ones is spared."""
        assert self.end_after([0.4, 0.3, 0.2], FALLING).state == TrialState.COMPLETE
        assert self.end_after([0.9, 0.8, 0.2], FALLING).state == TrialState.PRUNED

    def test_slow(self) -> None:
        """A trial that learns nothing is pruned without a constraint, once there are peers."""
        dead = {"class_metric": [0.9, 0.0, 0.0]}
        found = self.end_after([0.5] * 3, [0.3] * 7, **dead)
        assert found.state == TrialState.PRUNED
        assert found.user_attrs["killed"].startswith("not_learning: 2 of 3 classes")
        assert constraint(found) <= 0
        assert self.end_after([0.5] * 2, [0.3] * 7, **dead).state == TrialState.COMPLETE


class TestPrune:
    def test_diverged(self, storage: BaseStorage) -> None:
        """A loss that is NaN ends the trial as pruned and infeasible, with the reason in words."""
        trial = ended(DivergencePruner(epochs=10), storage, [1.0, math.nan, 1.0], [0.3, 0.4, 0.5])
        assert trial.state == TrialState.PRUNED
        assert len(trial.intermediate_values) == 2
        assert trial.user_attrs["killed"].startswith("nonfinite_loss: the loss was not finite")
        assert constraint(trial) > 0

    def test_earlier_is_worse(self, storage: BaseStorage) -> None:
        """The earlier a trial diverged, the larger its constraint."""
        found = [
            constraint(
                ended(
                    DivergencePruner(epochs=10),
                    storage,
                    [1.0] * good + [math.nan],
                    [0.3] * (good + 1),
                )
            )
            for good in (0, 4, 8)
        ]
        assert found == sorted(found, reverse=True)
        assert found[0] > found[1] > found[2] > 0

    def test_healthy(self, storage: BaseStorage) -> None:
        """A trial that does not diverge completes, feasible and without a reason."""
        trial = ended(
            DivergencePruner(),
            storage,
            [1 / epoch for epoch in range(1, 13)],
            [0.05 * epoch for epoch in range(1, 13)],
        )
        assert trial.state == TrialState.COMPLETE
        assert "killed" not in trial.user_attrs
        assert constraint(trial) <= 0

    def test_wrapped(self, storage: BaseStorage) -> None:
        """What does not diverge is left to the wrapped pruner, and its prune is no divergence."""
        trial = ended(DivergencePruner(ThresholdPruner(lower=0.2)), storage, [1.0, 0.9], [0.3, 0.1])
        assert trial.state == TrialState.PRUNED
        assert "killed" not in trial.user_attrs
        assert constraint(trial) <= 0

    def test_thresholds(self, storage: BaseStorage) -> None:
        """A threshold that is set is the one that counts."""
        pruner = DivergencePruner(signals={"gradient_explosion": {"max_norm": 5.0}})
        trial = ended(pruner, storage, [1.0, 0.9], [0.3, 0.4], grad_norm_max=8.0)
        assert trial.user_attrs["killed"].startswith("gradient_explosion")

    @pytest.mark.parametrize(("direction", "pruned"), [("maximize", True), ("minimize", False)])
    def test_direction(self, storage: BaseStorage, direction: str, pruned: bool) -> None:
        """A metric that falls and falls is a fault only where more is better."""
        metrics = [0.5, *(0.5 - 0.04 * epoch for epoch in range(1, 12))]
        trial = ended(DivergencePruner(), storage, [1.0] * 12, metrics, direction)
        assert (trial.state == TrialState.PRUNED) == pruned

    def test_two_studies(self) -> None:
        """One pruner in two studies keeps their trials apart, though both count from 0."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = DivergencePruner()
        first, second = (optuna.create_study(pruner=pruner, direction="maximize") for _ in range(2))
        sick, healthy = first.ask(), second.ask()
        pruner.log(sick, 1, loss=math.nan, metric=0.1)
        pruner.log(healthy, 1, loss=1.0, metric=0.1)
        assert [sick.should_prune(), healthy.should_prune()] == [True, False]

    def test_numpy(self) -> None:
        """Numbers as NumPy has them are numbers; a metric that was not measured is not reported."""
        trial = ended(
            DivergencePruner(),
            InMemoryStorage(),
            [np.float32(1.0), np.float64(0.9)],
            [np.float32(0.3), None],
            class_metric=[np.float32(0.5), None],
        )  # type: ignore[list-item]
        assert trial.intermediate_values == {1: pytest.approx(0.3)}


class TestRecords:
    def test_reported_alone(self, storage: BaseStorage) -> None:
        """Without a log the reported values are judged, whatever their first step."""
        study = optuna.create_study(
            storage=storage, pruner=DivergencePruner(), direction="maximize"
        )
        trial = study.ask()
        asked = []
        for step in range(12):
            trial.report(0.6 - 0.04 * step, step)
            asked.append(trial.should_prune())
        assert asked[:3] == [False] * 3
        assert asked[-1]

    def test_store_log(self, sqlite_url: str, make_record: Any) -> None:
        """The epochs of a worker are read from the store, by Optuna's id of the trial."""
        plan = make_plan(load_study("focal_gamma"))
        with StoreLocation.parse(sqlite_url).open() as store:
            stored = store.studies.register_study(1, "s", plan.spec.model_dump(mode="json"))
            claim = store.leases.claim_trial(stored.id, 10, "w", 60)
            assert claim is not None
            claim = store.leases.bind_trial(claim, 0, 77, {})
            store.epochs.append_epoch(claim, make_record(1, train_loss=math.inf), 60)
        found: list[EpochRecord] = list(store_log(sqlite_url)(77))
        assert [record.train_loss for record in found] == [math.inf]
        assert list(store_log(sqlite_url)(78)) == []

    def test_log_first(self, storage: BaseStorage) -> None:
        """What was logged here counts before what a log elsewhere has."""
        pruner = DivergencePruner(epoch_log=lambda trial_id: pytest.fail("asked"))
        assert ended(pruner, storage, [1.0], [0.5]).state == TrialState.COMPLETE


class TestBadInput:
    @pytest.mark.parametrize(
        ("signals", "words"),
        [
            ({"gradient_explosio": {}}, "gradient_explosion"),
            ({"loss_rising": {"epochs": 0}}, "loss_rising"),
            ({"loss_rising": {"epoch": 3}}, "epoch"),
        ],
    )
    def test_signals(self, signals: dict[str, Any], words: str) -> None:
        """An unknown signal or threshold, or one out of range, is refused by name."""
        with pytest.raises(StudyError) as caught:
            DivergencePruner(signals=signals)
        assert words in str(caught.value)

    def test_former_name(self) -> None:
        """A former name of a signal sets its thresholds."""
        signals = DivergencePruner(signals={"loss_metric_divorce": {"drop": 0.4}}).signals
        assert signals.loss_metric_decoupling.drop == 0.4

    @pytest.mark.parametrize(
        ("arguments", "where"),
        [
            ({"wrapped": "median"}, "wrapped"),
            ({"epochs": 0}, "epochs"),
            ({"epochs": "x"}, "epochs"),
            ({"signals": ["x"]}, "signals"),
        ],
    )
    def test_arguments(self, arguments: dict[str, Any], where: str) -> None:
        """Arguments of the wrong type are refused at once, by name."""
        with pytest.raises(InputError) as caught:
            DivergencePruner(**arguments)
        assert caught.value.where == f"DivergencePruner, {where}"

    @pytest.mark.parametrize(
        ("name", "near"), [("valloss", "val_loss"), ("grad_norm", "grad_norm_max")]
    )
    def test_unknown_figure(self, name: str, near: str) -> None:
        """An unknown figure is refused with the nearest name, as its signal would never judge."""
        trial = optuna.create_study().ask()
        with pytest.raises(InputError, match=f"unknown figure '{name}'.*{near}"):
            DivergencePruner().log(trial, 1, loss=1.0, metric=0.1, **{name: 3.0})

    def test_figure(self, storage: BaseStorage) -> None:
        """A figure of another type is refused with trial, epoch and name."""
        with pytest.raises(InputError, match="val_loss") as caught:
            ended(DivergencePruner(), storage, [1.0], [0.5], val_loss="low")
        assert "trial 0, epoch 1" in str(caught.value)


def test_is_a_pruner() -> None:
    """Optuna's own type, so that it can be wrapped in turn."""
    assert isinstance(DivergencePruner(), BasePruner)


@pytest.mark.docs
def test_page(tmp_path: Path) -> None:
    """The page's example of at most 25 lines runs and stops trials of absurd rates."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    script = tmp_path / "script.py"
    script.write_text(code.replace("n_trials=30", "n_trials=12"), encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    killed = ast.literal_eval(answer.stdout)
    assert killed
    assert {reason.partition(":")[0] for reason in killed.values()} <= set(
        SignalsConfig.model_fields
    )
