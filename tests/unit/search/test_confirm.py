"""Confirming a study: its candidates, its companion, rounds that resume, and what is reported and exported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.confirm import ConfirmationRun, open_confirmation
from search.export import load_export, write_export
from search.report.confirmation import list_main_studies, read_confirmation
from search.report.confirmed_export import export_trial
from search.report.study_report import study_report
from search.retrain import Retraining
from search.session import Session, open_session
from search.worker.context import make_context
from search.worker.loop import train_trials
from search.worker.options import WorkerOptions
from search.worker.stop import StopRequest
from spaces.errors import StoreError, StudyError
from spaces.study import StudySpec
from storage.location import StoreLocation
from storage.rows import OptunaEnd, Outcome

OBJECTIVE = """
import random

from spaces.config import TrialConfig


class Config(TrialConfig):
    rate: float = 0.1
    size: int = 1


def train(config: Config):
    luck = random.Random(config.seed).gauss(0, 0.01)
    for epoch in range(1, config.epochs + 1):
        metric = config.rate + luck - 0.1 / epoch
        yield {"epoch": epoch, "loss": 1 / epoch, "metric": metric}
"""
RATES = [0.2, 0.5, 0.8]


@pytest.fixture
def session(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A study of six complete trials."""
    (tmp_path / "confirmed_objective.py").write_text(OBJECTIVE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    opened = open_session(make_spec(), StoreLocation.parse(sqlite_url))
    with opened:
        train(opened)
        yield opened


def make_spec(**changes: Any) -> StudySpec:
    """The study."""
    definition = {
        "name": "demo",
        "objective": "confirmed_objective:train",
        "metric": {"name": "gain"},
        "epochs": 5,
        "trials": 6,
        "space": {
            "rate": {"kind": "choice", "choices": RATES},
            "size": {"kind": "choice", "choices": [1, 2]},
        },
        "sampler": {"kind": "random"},
    }
    return StudySpec.model_validate({**definition, **changes})


def train(session: Session) -> None:
    """Train in this process what a worker would."""
    found = session.store.studies.find_study(session.stored.name)
    assert found is not None
    options = WorkerOptions(found.name)
    context = make_context(session.location, options, session.store, found, StopRequest())
    train_trials(context, found)


def finish(run: ConfirmationRun) -> list[int]:
    """Run all rounds, and return how many trainings each lacked."""
    rounds = []
    while (race := run.read_race()).missing:
        rounds.append(len(race.missing))
        run.enqueue_round(race)
        train(run.session)
    return rounds


class TestConfirm:
    def test_rounds(self, session: Session, tmp_path: Path) -> None:
        """An interrupted round is resumed; winner, report and export follow from the trainings alone."""
        run = open_confirmation(session.location, "demo", 2, 3)
        with run.session as companion:
            numbers = [trial.number for trial in run.candidates]
            run.enqueue_round(run.read_race())
            limit_trials(companion, 3)
            train(companion)
        half = read_confirmation(session.store, session.stored)
        assert half is not None
        assert half.unfinished == 1

        again = open_confirmation(session.location, "demo", 2, 3)
        with again.session as companion:
            assert [trial.number for trial in again.candidates] == numbers
            assert len(again.read_race().missing) == 1
            finish(again)
            trials = companion.store.trials.list_trials(companion.stored.id)
            check_trainings(again, trials)
        third = open_confirmation(session.location, "demo", 2, 3)
        with third.session:
            assert finish(third) == []

        report = study_report(session.store, "demo")
        found = report.confirmed
        assert found is not None
        assert (found.study, found.unfinished, found.failed) == ("demo.confirm", 0, 0)
        assert found.winner is not None
        assert {row.number for row in found.trials} == set(numbers)
        assert report.as_dict()["confirmed"]["trials"][0]["chance"] == found.trials[0].chance
        assert list_main_studies(session.store) == ["demo"]

        export = export_trial(session.store, session.stored, None)
        trial = session.store.trials.find_trial(session.stored.id, found.winner.number)
        assert trial is not None
        assert (export.provenance.trial, export.config) == (trial.number, trial.config)
        assert export.score.validation == trial.score
        assert export.confirmed is not None
        assert export.confirmed.mean == found.winner.mean
        write_export(export, tmp_path / "best.yaml")
        loaded = load_export(tmp_path / "best.yaml")
        assert loaded == export
        training = Retraining(loaded)
        list(training.train_epochs())
        assert training.compare_scores().is_equal

    def test_extended(self, session: Session) -> None:
        """Another top and more seeds train only what is missing, and the earlier seeds count."""
        first = open_confirmation(session.location, "demo", 1, 2)
        with first.session as companion:
            assert finish(first) == [2]
            assert companion.store.trials.count_completed(companion.stored.id) == 2
        second = open_confirmation(session.location, "demo", 1, 3)
        with second.session:
            assert finish(second) == [1]

    def test_failed(self, session: Session) -> None:
        """A training that failed is no score, and is enqueued again."""
        run = open_confirmation(session.location, "demo", 1, 2)
        with run.session as companion:
            race = run.read_race()
            run.enqueue_round(race)
            claim = companion.store.leases.claim_trial(companion.stored.id, 9, "w", 600)
            assert claim is not None
            companion.store.leases.finish_trial(claim, Outcome("failed"), OptunaEnd("FAIL"))
            train(companion)
            found = read_confirmation(session.store, session.stored)
            assert found is not None
            assert (found.failed, found.trials[0].seeds) == (1, 1)
            assert finish(run) == [1]
            assert (read_confirmation(session.store, session.stored) or found).failed == 0


class TestRefused:
    def test_running(self, session: Session) -> None:
        """A study with a running trial is refused."""
        assert session.store.leases.claim_trial(session.stored.id, 99, "w", 600)
        with pytest.raises(StudyError, match="is running"):
            open_confirmation(session.location, "demo", 3, 5)

    def test_companion(self, session: Session) -> None:
        """A companion is not confirmed in turn."""
        run = open_confirmation(session.location, "demo", 1, 1)
        with run.session:
            finish(run)
        with pytest.raises(StudyError, match="itself a confirmation"):
            open_confirmation(session.location, "demo.confirm", 1, 1)

    def test_unknown(self, session: Session) -> None:
        """A study that the store lacks is refused."""
        with pytest.raises(StoreError, match="there is no study"):
            open_confirmation(session.location, "dmeo", 3, 5)

    def test_nothing_complete(self, sqlite_url: str) -> None:
        """A study without a complete trial is refused, and no companion is created."""
        dimension = {"kind": "float", "low": 0.1, "high": 5}
        spec = {"name": "none", "space": {"optimizer.lr_multiple": dimension}}
        with open_session(
            StudySpec.model_validate(spec), StoreLocation.parse(sqlite_url)
        ) as session:
            with pytest.raises(StudyError, match="no trial of the study 'none' is complete"):
                open_confirmation(session.location, "none", 3, 5)
            assert session.store.studies.find_study("none.confirm") is None

    def test_fewer(self, session: Session) -> None:
        """Where fewer configurations are complete than asked for, those are used and that is noted."""
        run = open_confirmation(session.location, "demo", 50, 1)
        with run.session:
            assert 1 < len(run.candidates) <= 6
            assert run.notes == [
                f"only {len(run.candidates)} configurations are complete; --top asks for 50"
            ]

    def test_changed(self, session: Session) -> None:
        """A study that changed since it was confirmed is refused."""
        run = open_confirmation(session.location, "demo", 1, 1)
        with run.session:
            finish(run)
        changed = make_spec(epochs=6).model_dump(mode="json")
        session.store.studies.redefine_study(session.stored.id, changed)
        with pytest.raises(StudyError, match="with another definition"):
            open_confirmation(session.location, "demo", 1, 1)


def limit_trials(session: Session, trials: int) -> None:
    """Let a study end after a number of trials, as if it had been interrupted."""
    spec = session.plan.spec.model_copy(update={"trials": trials})
    session.store.studies.redefine_study(session.stored.id, spec.model_dump(mode="json"))


def check_trainings(run: ConfirmationRun, trials: Any) -> None:
    """Check that each candidate was trained with the same seeds, and with its own configuration."""
    seeds: dict[int, list[int]] = {}
    known = {trial.number: trial for trial in run.candidates}
    for each in run.session.store.confirmations.list_trainings(run.session.stored.id):
        config = dict(trials[each.number].config)
        origin = dict(known[each.of].config)
        seeds.setdefault(each.of, []).append(config.pop("seed"))
        assert origin.pop("seed") not in seeds[each.of]
        assert config == origin
    first, *others = seeds.values()
    assert all(other[:2] == first[:2] for other in others)
    assert len(set(first)) == len(first)
