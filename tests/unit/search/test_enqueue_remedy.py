"""Enqueuing a remedy: its place in the search space, its changes outside, and that it is tried next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.cli.run_study import load_stored_spec
from search.enqueue_remedy import RemedyChoice, enqueue_remedy, parse_choice
from search.planning.plan import Plan
from search.sampling.connection import open_trials
from search.sampling.sampler import start_from_attributes
from search.sampling.worker_study import WorkerStudy
from search.session import Session, open_session
from spaces.errors import InputError, StoreError, StudyError
from spaces.records import Diagnosis, Evidence, Remedy
from spaces.study import StudySpec
from storage.location import StoreLocation
from storage.rows import Outcome, StoredTrial, TriedRemedy

SPACE = {
    "optimizer.lr_multiple": {"kind": "float", "low": 0.01, "high": 100, "log": True},
    "weights.method": {"kind": "choice", "choices": ["uniform", "sqrt_inv_freq"]},
    "weights.clip_ratio": {
        "kind": "choice",
        "choices": [100, 25],
        "when": {"weights.method": "sqrt_inv_freq"},
    },
}
PARAMS = {"optimizer.lr_multiple": 30.0, "weights.method": "uniform"}


@pytest.fixture
def session(sqlite_url: str) -> Iterator[Session]:
    """A study whose budget is one trial."""
    spec = StudySpec.model_validate(
        {
            "name": "demo",
            "trials": 1,
            "epochs": 4,
            "space": SPACE,
            "base": {"loss": {"dice_weight": 0.2}},
        }
    )
    opened = open_session(spec, StoreLocation.parse(sqlite_url))
    with opened:
        yield opened


def killed(
    session: Session,
    *remedies: Remedy,
    preset: str | None = None,
    make_record: Any = None,
    confidence: float = 1.0,
) -> StoredTrial:
    """Trial 0, which diverged, with these remedies."""
    store, stored = session.store, session.stored
    claim = store.leases.claim_trial(stored.id, 1000, "w", 600)
    assert claim is not None
    config = session.plan.make_config(PARAMS, 0, preset).model_dump(mode="json")
    claim = store.leases.bind_trial(
        claim, claim.number or 0, claim.optuna_trial_id or 0, config, preset
    )
    store.epochs.append_epoch(claim, make_record(1), 600)
    diagnosis = Diagnosis("learning rate too high", ("it was",), remedies, confidence)
    store.leases.finish_trial(
        claim,
        Outcome(
            "diverged",
            0.1,
            "loss_rising: it rose",
            evidence=Evidence("loss_rising", 1, None, "it rose", {}, 1.0),
            diagnosis=diagnosis,
        ),
    )
    trial = store.trials.find_trial(stored.id, claim.number or 0)
    assert trial is not None
    return trial


def slower(value: float = 0.5) -> Remedy:
    """A lower rate."""
    return Remedy("learning rate × 0.5", {"optimizer.lr_multiple": value})


class TestChoice:
    @pytest.mark.parametrize(("text", "choice"), [("7", (7, 1)), ("7:2", (7, 2)), (" 0 ", (0, 1))])
    def test_read(self, text: str, choice: tuple[int, int]) -> None:
        """A trial's number, and which of its remedies."""
        assert parse_choice(text) == choice

    @pytest.mark.parametrize("text", ["", "x", "7:", "7:0", "-1", "7:2:3", "1.5"])
    def test_refused(self, text: str) -> None:
        """Anything else is refused with the option's name and what is allowed."""
        with pytest.raises(InputError, match="does not name a trial's remedy") as caught:
            parse_choice(text)
        assert caught.value.where == "--enqueue-remedy"


class TestStoredSpec:
    def test_as_stored(self, session: Session) -> None:
        """A remedy uses the study as stored, found by its name in the store; only the budget may change."""
        assert load_stored_spec("demo", session.location, None) == session.plan.spec
        assert load_stored_spec("demo", session.location, 9) == session.plan.spec.model_copy(
            update={"trials": 9}
        )

    def test_unknown(self, session: Session) -> None:
        """A study that the store does not have is refused with those that it has, and not made."""
        with pytest.raises(StoreError, match="no study 'lr_clip'") as caught:
            load_stored_spec("lr_clip", session.location, None)
        assert caught.value.allowed == "demo"
        assert [study.name for study in session.store.studies.list_studies()] == ["demo"]

    def test_no_store(self, tmp_path: Path) -> None:
        """Without a store none is made."""
        with pytest.raises(StoreError):
            load_stored_spec("demo", StoreLocation.parse(f"sqlite:///{tmp_path / 'none.db'}"), None)
        assert list(tmp_path.iterdir()) == []


class TestEnqueue:
    def waiting(self, session: Session) -> list[optuna.trial.FrozenTrial]:
        """Optuna's trials that wait."""
        storage = open_trials(session.location)
        study = WorkerStudy(storage, session.plan, "demo", lambda: 0)
        found = [trial for trial in study.get_trials() if trial.state == TrialState.WAITING]
        storage.remove_session()
        storage.engine.dispose()
        return found

    def test_next(self, session: Session, make_record: Any) -> None:
        """The remedied configuration waits as the next trial, and the spent budget grows by it."""
        killed(session, slower(), make_record=make_record)
        grown, described = enqueue_remedy(session, RemedyChoice(0))
        (waiting,) = self.waiting(grown)
        assert described == "learning rate × 0.5: optimizer.lr_multiple 30 → 0.5"
        assert waiting.system_attrs["fixed_params"] == {
            "optimizer.lr_multiple": 0.5,
            "weights.method": "uniform",
        }
        assert grown.plan.spec.trials == 2
        assert grown.stored.definition["trials"] == 2

    def test_room(self, session: Session, make_record: Any) -> None:
        """A budget that has room is left as it is."""
        killed(session, slower(), make_record=make_record)
        wide = replace(
            session,
            plan=replace(session.plan, spec=session.plan.spec.model_copy(update={"trials": 9})),
        )
        assert enqueue_remedy(wide, RemedyChoice(0))[0].plan.spec.trials == 9

    def test_second(self, session: Session, make_record: Any) -> None:
        """Remedies can be chosen by their place."""
        clip = Remedy("clip", {"optimizer.grad_clip_norm": 1.0})
        killed(session, slower(), clip, make_record=make_record)
        grown, described = enqueue_remedy(session, RemedyChoice(0, 2))
        assert described == "clip: optimizer.grad_clip_norm none → 1"
        (waiting,) = self.waiting(grown)
        start = start_from_attributes(waiting.user_attrs)
        assert start.label == "remedy of 0"
        config: Any = self.configured(grown.plan, waiting)
        assert (
            config.optimizer.grad_clip_norm,
            config.optimizer.lr_multiple,
            config.loss.dice_weight,
        ) == (1.0, 30.0, 0.2)

    def configured(self, plan: Plan, waiting: optuna.trial.FrozenTrial) -> Any:
        """The configuration that a worker gives a trial that waits."""
        start = start_from_attributes(waiting.user_attrs)
        return plan.make_config(
            waiting.system_attrs["fixed_params"], waiting.number, start.preset, start.patch
        )

    def test_none_there(self, session: Session) -> None:
        """A trial that is not there is refused by its number."""
        with pytest.raises(StoreError, match="no trial 5"):
            enqueue_remedy(session, RemedyChoice(5))

    @pytest.mark.parametrize("state", ["complete", "pruned"])
    def test_nothing_prescribed(self, session: Session, make_record: Any, state: Any) -> None:
        """A trial that is healthy, or merely worse than its peers, has no remedy; `explain` lists none, either."""
        store, stored = session.store, session.stored
        claim = store.leases.claim_trial(stored.id, 1000, "w", 600)
        assert claim is not None
        claim = store.leases.bind_trial(
            claim,
            claim.number or 0,
            claim.optuna_trial_id or 0,
            session.plan.make_config(PARAMS, 0).model_dump(mode="json"),
        )
        for epoch in range(1, 5):
            store.epochs.append_epoch(
                claim,
                make_record(
                    epoch,
                    train_loss=1 / epoch,
                    ce_loss=1 / epoch,
                    dice_loss=1 / epoch,
                    metric=0.1 * epoch,
                    class_metric=(0.5, None, 0.1 * epoch),
                ),
                600,
            )
        store.leases.finish_trial(claim, Outcome(state, 0.4))
        with pytest.raises(StudyError, match="trial 0 has no remedies") as caught:
            enqueue_remedy(session, RemedyChoice(0))
        assert caught.value.found == f"it is {state}"

    def test_unclear(self, session: Session, make_record: Any) -> None:
        """A trial without a clear cause has nothing to enqueue."""
        killed(session, slower(), make_record=make_record, confidence=0.39)
        with pytest.raises(StudyError, match="no clear cause") as caught:
            enqueue_remedy(session, RemedyChoice(0))
        assert caught.value.found == "the likeliest cause: learning rate too high (39% sure)"
        assert self.waiting(session) == []

    def test_recorded(self, session: Session, make_record: Any) -> None:
        """What is tried is recorded with its origin, title and cause."""
        killed(session, slower(), make_record=make_record)
        enqueue_remedy(session, RemedyChoice(0))
        (tried,) = session.store.remedies.list_tried(session.stored.id)
        assert tried == TriedRemedy(1, 0, 1, "learning rate × 0.5", "learning rate too high")

    def test_not_searched_there(self, session: Session, make_record: Any) -> None:
        """A value outside its dimension is refused with the range and how to widen it."""
        killed(session, slower(1e-6), make_record=make_record)
        with pytest.raises(StudyError, match="outside the study's search space") as caught:
            enqueue_remedy(session, RemedyChoice(0))
        assert "0.01" in caught.value.allowed
        assert "search run --study" in caught.value.next_step
        assert "--set space.optimizer.lr_multiple.low=1.0e-06" in caught.value.next_step

    def test_more_epochs(self, session: Session, make_record: Any) -> None:
        """More epochs are no change of a trial's configuration; the command for them is named."""
        longer = Remedy("more epochs per trial: 24 instead of 12", {})
        killed(session, longer, make_record=make_record)
        with pytest.raises(StudyError, match="no change of its configuration") as caught:
            enqueue_remedy(session, RemedyChoice(0))
        assert "--epochs 24" in caught.value.next_step

    def test_no_configuration(self, session: Session, make_record: Any) -> None:
        """A patch that does not fit the rest of the configuration is refused by its path."""
        killed(session, Remedy("odd", {"loss.gamma": -1.0}), make_record=make_record)
        with pytest.raises(StudyError) as caught:
            enqueue_remedy(session, RemedyChoice(0))
        assert "gamma" in caught.value.where

    def test_too_many(self, session: Session, make_record: Any) -> None:
        """A remedy that the trial does not have is refused with how many it has."""
        killed(session, slower(), make_record=make_record)
        with pytest.raises(StudyError, match="no remedy 2") as caught:
            enqueue_remedy(session, RemedyChoice(0, 2))
        assert caught.value.allowed == "1 … 1"

    def test_data_at_fault(self, session: Session, make_record: Any) -> None:
        """Where no configuration helps, the remedy's words say what does."""
        killed(session, Remedy("look at the masks", {}), make_record=make_record)
        with pytest.raises(StudyError, match="is no change of its configuration") as caught:
            enqueue_remedy(session, RemedyChoice(0))
        assert caught.value.next_step == "look at the masks"
