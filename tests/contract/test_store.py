"""The contract of every store, on each kind of database."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from spaces.errors import EpochOrderError, LeaseLostError, StoreError
from spaces.records import ClassCounts, Diagnosis, EpochRecord, Evidence, Remedy, TestScore
from storage.database.database import now
from storage.location import StoreLocation
from storage.rows import Claim, FinalState, Outcome, TrialState
from storage.store import Store
from storage.tables.models import Trial
from tests.waiting import until

NAN, INF = float("nan"), float("inf")
Make = Callable[..., EpochRecord]

EVIDENCE = Evidence(
    "metric_falling",
    7,
    12,
    "mIoU fell five times",
    {"slope": -0.02, "losses": [1.0, NAN, -INF]},
    severity=0.5,
)
WARNING = Evidence("loss_rising", 2, None, "it rose", {"spared": "1 of 3 epochs"}, severity=0.0)
DIAGNOSIS = Diagnosis(
    "extreme class weights",
    ("ratio 500", "road lost 0.4"),
    (Remedy("clip them", {"weights.clip_ratio": 10}),),
)


@pytest.fixture
def study_id(store: Store) -> int:
    """A registered study."""
    return store.studies.register_study(11, "demo", {"space": {}}).id


@pytest.fixture
def claim(store: Store, study_id: int) -> Claim:
    """The first trial of the study, claimed by worker 'a' and bound."""
    return bound(store, study_id, "a")


def bound(
    store: Store, study_id: int, worker: str = "a", number: int = 0, lease_s: float = 600
) -> Claim:
    """A new trial, bound to a number."""
    claim = store.leases.claim_trial(study_id, 1000, worker, lease_s)
    assert claim is not None
    return store.leases.bind_trial(claim, number, 100 + number, {"loss": {"gamma": 2.0}}, "safe")


def let_lapse(store: Store, claim: Claim) -> None:
    """Wait until the lease of a claim has expired, on the database's clock."""
    store.leases.renew_lease(claim, 0.001)
    until(lambda: lease_left_s(store, claim) < 0, "the lease has expired")


def lease_left_s(store: Store, claim: Claim) -> float:
    """Seconds until a lease expires, on the database's clock; negative afterwards."""
    (left_s,) = [
        line.lease_left_s
        for line in store.trials.list_progress(claim.study_id)
        if line.trial_id == claim.trial_id
    ]
    assert left_s is not None
    return left_s


def taken_over(store: Store, claim: Claim) -> Claim:
    """The claim of worker 'b' on the same trial, after its lease has expired."""
    let_lapse(store, claim)
    taken = store.leases.claim_trial(claim.study_id, 0, "b", 600)
    assert taken is not None
    return taken


class TestClock:
    def test_moves(self, store_url: str) -> None:
        """The database's clock counts seconds since 1970, also within a transaction."""
        with (
            closing(StoreLocation.parse(store_url).open_database(create=True)) as database,
            database.writing() as connection,
        ):
            start = connection.execute(select(now())).scalar_one()
            until(lambda: connection.execute(select(now())).scalar_one() > start, "the clock moves")

        assert abs(start - time.time()) < 1800


class TestStudies:
    def test_found_again(self, store: Store) -> None:
        """A study is returned as registered, with NaN and nesting; another name finds none."""
        made = store.studies.register_study(11, "demo", {"space": {"lr": [1e-5, INF]}, "n": 3})

        assert store.studies.find_study("demo") == made
        assert (made.optuna_study_id, made.name, made.definition) == (
            11,
            "demo",
            {"space": {"lr": [1e-5, INF]}, "n": 3},
        )
        assert store.studies.find_study("other") is None

    def test_first_definition_stays(self, store: Store) -> None:
        """Registering again returns the stored definition, to be compared with a changed one."""
        store.studies.register_study(11, "demo", {"epochs": 30})

        assert store.studies.register_study(11, "demo", {"epochs": 5}).definition == {"epochs": 30}
        assert len(store.studies.list_studies()) == 1

    def test_redefined(self, store: Store) -> None:
        """An accepted change replaces the definition of that study only."""
        first, second = (
            store.studies.register_study(1, "a", {"epochs": 1}),
            store.studies.register_study(2, "b", {"epochs": 2}),
        )

        store.studies.redefine_study(first.id, {"epochs": 9})

        assert [study.definition for study in store.studies.list_studies()] == [
            {"epochs": 9},
            second.definition,
        ]

    @pytest.mark.parametrize(("optuna_study_id", "name"), [(12, "demo"), (11, "other")])
    def test_clash(self, store: Store, optuna_study_id: int, name: str) -> None:
        """A registered name, or study of Optuna's, cannot be registered with another one."""
        store.studies.register_study(11, "demo", {})

        with pytest.raises(StoreError, match="conflicts with a stored one"):
            store.studies.register_study(optuna_study_id, name, {})


class TestClaim:
    def test_new_trials_up_to_the_budget(self, store: Store, study_id: int) -> None:
        """A study gives out as many trials as its budget, and more once the budget grows."""
        claims = [store.leases.claim_trial(study_id, 2, "a", 600) for _ in range(3)]

        assert [claim and (claim.attempt, claim.resume, claim.number) for claim in claims] == [
            (1, False, None),
            (1, False, None),
            None,
        ]
        assert store.leases.claim_trial(study_id, 3, "a", 600) is not None

    def test_budget_of_each_study(self, store: Store, study_id: int) -> None:
        """The trials of another study do not count."""
        other = store.studies.register_study(12, "other", {}).id
        assert store.leases.claim_trial(study_id, 1, "a", 600)

        assert store.leases.claim_trial(other, 1, "a", 600)
        assert store.leases.claim_trial(other, 1, "a", 600) is None

    def test_paused_first(self, store: Store, claim: Claim) -> None:
        """A released trial is claimed before a new one, complete, and as the next attempt."""
        store.leases.release_trial(claim)
        assert [line.state for line in store.trials.list_progress(claim.study_id)] == ["paused"]

        taken = store.leases.claim_trial(claim.study_id, 1000, "b", 600)

        expected = Claim(
            claim.trial_id, claim.study_id, 2, True, 0, 100, {"loss": {"gamma": 2.0}}, "safe"
        )
        assert taken == expected
        assert [
            (trial.state, trial.worker, trial.attempt)
            for trial in store.trials.list_trials(claim.study_id)
        ] == [("running", "b", 2)]

    def test_lapsed_lease(self, store: Store, claim: Claim) -> None:
        """A trial cannot be claimed during its lease, and can be claimed after it has expired."""
        assert store.leases.claim_trial(claim.study_id, 1, "b", 600) is None

        taken = taken_over(store, claim)

        assert (taken.trial_id, taken.attempt, taken.resume, taken.number) == (
            claim.trial_id,
            2,
            True,
            0,
        )

    def test_never_bound(self, store: Store, study_id: int) -> None:
        """A trial whose worker vanished before it was bound has nothing to resume."""
        claim = store.leases.claim_trial(study_id, 1, "a", 600)
        assert claim is not None

        taken = taken_over(store, claim)

        assert (taken.trial_id, taken.attempt, taken.resume, taken.number) == (
            claim.trial_id,
            2,
            False,
            None,
        )
        assert store.trials.count_by_state(study_id) == {"reserved": 1}

    def test_database_clock(
        self, store: Store, claim: Claim, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A machine with a wrong clock neither claims too early nor loses its own leases."""
        monkeypatch.setattr(time, "time", lambda: 3e9 + 3e9)

        assert store.leases.claim_trial(claim.study_id, 1, "b", 600) is None
        store.leases.renew_lease(claim, 600)
        (line,) = store.trials.list_progress(claim.study_id)
        assert 0 < (line.lease_left_s or 0) <= 600

    def test_gives_up(self, store: Store, claim: Claim) -> None:
        """A trial that lost as many workers as it may have attempts is failed, with that reason."""
        taken = taken_over(store, claim)
        let_lapse(store, taken)

        assert store.leases.claim_trial(claim.study_id, 1, "c", 600, max_lost=2) is None
        (trial,) = store.trials.list_trials(claim.study_id)
        assert (trial.state, trial.attempt, trial.lease_until) == ("failed", 2, None)
        assert "2 workers died or stopped responding" in trial.reason
        assert trial.finished_at is not None

    def test_pauses_are_no_losses(self, store: Store, claim: Claim) -> None:
        """A trial may be released any number of times; only vanished workers count."""
        for _ in range(4):
            store.leases.release_trial(claim)
            again = store.leases.claim_trial(claim.study_id, 1, "a", 600, max_lost=2)
            assert again is not None
            claim = again

        assert claim.attempt == 5
        let_lapse(store, claim)
        assert store.leases.claim_trial(claim.study_id, 1, "b", 600, max_lost=2) is not None

    @pytest.mark.parametrize("lease_s", [0, -1, NAN])
    def test_lease_without_end(
        self, store: Store, claim: Claim, make_record: Make, lease_s: float
    ) -> None:
        """A lease of no seconds, or of NaN seconds, is refused by every method."""
        with pytest.raises(ValueError, match="more than 0 seconds"):
            store.leases.claim_trial(claim.study_id, 9, "a", lease_s)
        with pytest.raises(ValueError, match="more than 0 seconds"):
            store.leases.renew_lease(claim, lease_s)
        with pytest.raises(ValueError, match="more than 0 seconds"):
            store.epochs.append_epoch(claim, make_record(), lease_s)

        assert store.trials.count_by_state(claim.study_id) == {"running": 1}
        assert store.epochs.trial_records(claim.trial_id) == []

    def test_no_such_study(self, store: Store) -> None:
        """A study that is not registered has no trials to claim."""
        with pytest.raises(StoreError, match="no study with id 77"):
            store.leases.claim_trial(77, 1, "a", 600)

    def test_owner_at_work(self, postgresql_url: str) -> None:
        """On PostgreSQL a claim skips a trial whose late owner is writing at the same moment."""
        with (
            StoreLocation.parse(postgresql_url).open() as store,
            closing(StoreLocation.parse(postgresql_url).open_database(create=True)) as owner,
        ):
            claim = bound(store, store.studies.register_study(1, "a", {}).id)
            let_lapse(store, claim)
            with owner.writing() as connection:
                connection.execute(update(Trial).values(lease_until=9e9))
                assert store.leases.claim_trial(claim.study_id, 1, "b", 600) is None
            assert store.leases.claim_trial(claim.study_id, 1, "b", 600) is None


class TestBind:
    def test_bound(self, store: Store, study_id: int) -> None:
        """Binding stores number, configuration and start, and returns them in the claim."""
        claim = store.leases.claim_trial(study_id, 1, "a", 600)
        assert claim is not None

        now = store.leases.bind_trial(claim, 4, 104, {"lr": 1e-5, "alpha": (0.1, NAN)}, "text")

        assert (
            now.trial_id,
            now.attempt,
            now.resume,
            now.number,
            now.optuna_trial_id,
            now.preset,
        ) == (
            claim.trial_id,
            1,
            False,
            4,
            104,
            "text",
        )
        trial = store.trials.find_trial(study_id, 4)
        assert trial is not None
        assert (trial.state, trial.optuna_trial_id, trial.preset) == ("running", 104, "text")
        assert repr(trial.config) == "{'lr': 1e-05, 'alpha': [0.1, nan]}"
        assert (trial.started_at or 0) >= trial.created_at

    def test_number_taken(self, store: Store, claim: Claim) -> None:
        """Two trials of a study cannot have the same number; the second stays unbound."""
        second = store.leases.claim_trial(claim.study_id, 2, "b", 600)
        assert second is not None

        with pytest.raises(StoreError, match="another trial of the study has that number"):
            store.leases.bind_trial(second, 0, 200, {})

        assert [trial.number for trial in store.trials.list_trials(claim.study_id)] == [0, None]


class TestLostLease:
    WRITES: tuple[tuple[str, Callable[[Store, Claim, EpochRecord], None]], ...] = (
        ("bind", lambda store, claim, record: store.leases.bind_trial(claim, 5, 105, {}) and None),
        ("extend", lambda store, claim, record: store.leases.renew_lease(claim, 600)),
        ("append", lambda store, claim, record: store.epochs.append_epoch(claim, record, 600)),
        (
            "append_warning",
            lambda store, claim, record: store.epochs.append_warning(claim, WARNING),
        ),
        (
            "forget_epochs_after",
            lambda store, claim, record: store.epochs.forget_epochs_after(claim, 0),
        ),
        ("release", lambda store, claim, record: store.leases.release_trial(claim)),
        (
            "finish",
            lambda store, claim, record: store.leases.finish_trial(
                claim, Outcome("complete", 0.9, evidence=EVIDENCE)
            ),
        ),
    )

    @pytest.mark.parametrize(
        "write", [write for _, write in WRITES], ids=[name for name, _ in WRITES]
    )
    def test_cannot_write(
        self,
        store: Store,
        claim: Claim,
        make_record: Make,
        write: Callable[[Store, Claim, EpochRecord], None],
    ) -> None:
        """A worker that lost its trial cannot change it; the error names the current owner."""
        store.epochs.append_epoch(claim, make_record(1), 600)
        taken_over(store, claim)
        before = (
            store.trials.list_trials(claim.study_id),
            store.epochs.trial_records(claim.trial_id),
        )

        with pytest.raises(
            LeaseLostError,
            match="trial 0 is now running as attempt 2 on worker 'b'; attempt 1 can no longer write",
        ):
            write(store, claim, make_record(2, used={"lr": 1.0}))

        assert (
            store.trials.list_trials(claim.study_id),
            store.epochs.trial_records(claim.trial_id),
        ) == before
        assert store.findings.trial_evidence(claim.trial_id) == []

    @pytest.mark.parametrize(
        "write", [write for _, write in WRITES], ids=[name for name, _ in WRITES]
    )
    def test_ended(
        self,
        store: Store,
        claim: Claim,
        make_record: Make,
        write: Callable[[Store, Claim, EpochRecord], None],
    ) -> None:
        """The attempt that ended a trial cannot write to it afterwards."""
        store.leases.finish_trial(claim, Outcome("pruned", 0.2, "worse than its peers"))

        with pytest.raises(LeaseLostError, match="is pruned"):
            write(store, claim, make_record(1))

        assert store.epochs.trial_records(claim.trial_id) == []
        assert store.trials.count_by_state(claim.study_id) == {"pruned": 1}

    def test_paused(self, store: Store, claim: Claim) -> None:
        """A released trial has no owner; its last one cannot write to it."""
        store.leases.release_trial(claim)

        with pytest.raises(LeaseLostError, match="is now paused"):
            store.leases.renew_lease(claim, 600)

    def test_late_but_not_lost(self, store: Store, claim: Claim, make_record: Make) -> None:
        """An expired lease can be renewed as long as no other worker claimed the trial."""
        let_lapse(store, claim)
        store.epochs.append_epoch(claim, make_record(1), 600)
        let_lapse(store, claim)
        store.leases.renew_lease(claim, 600)

        assert store.leases.claim_trial(claim.study_id, 1, "b", 600) is None


class TestAppend:
    def test_round_trip(self, store: Store, claim: Claim, make_record: Make) -> None:
        """A record is returned as written, with NaN, infinities, missing values and tuples."""
        broken = make_record(
            1,
            train_loss=NAN,
            grad_norm_max=INF,
            val_loss=-INF,
            metric=NAN,
            class_metric=(None, NAN, 0.5),
            broken_step=3,
        )
        tested = make_record(
            2,
            used={"loss.alpha": [0.1, INF]},
            test=TestScore(0.4, (None, 0.3)),
            dice_loss=None,
            metrics={"f1": NAN},
        )

        store.epochs.append_epoch(claim, broken, 600)
        store.epochs.append_epoch(claim, tested, 600)

        assert repr(store.epochs.trial_records(claim.trial_id)) == repr([broken, tested])

    def test_used(self, store: Store, claim: Claim, make_record: Make) -> None:
        """The values used are stored with the trial; an epoch without them does not erase them."""
        store.epochs.append_epoch(claim, make_record(1, used={"lr": 1e-5, "alpha": INF}), 600)
        store.epochs.append_epoch(claim, make_record(2), 600)

        assert [trial.used for trial in store.trials.list_trials(claim.study_id)] == [
            {"lr": 1e-5, "alpha": INF}
        ]

    def test_extends_the_lease(self, store: Store, claim: Claim, make_record: Make) -> None:
        """Writing an epoch renews the lease."""
        let_lapse(store, claim)

        store.epochs.append_epoch(claim, make_record(1), 600)

        assert store.leases.claim_trial(claim.study_id, 1, "b", 600) is None

    @pytest.mark.parametrize("epoch", [-1, 0, 1, 2, 4])
    def test_out_of_order(self, store: Store, claim: Claim, make_record: Make, epoch: int) -> None:
        """Epochs are written once and in order; a refused one changes nothing, nor the lease."""
        store.epochs.append_epoch(claim, make_record(1), 600)
        store.epochs.append_epoch(claim, make_record(2), 600)
        before = store.trials.list_trials(claim.study_id)

        with pytest.raises(
            EpochOrderError, match=f"trial 0: epoch {epoch} is out of order; the next one is 3"
        ):
            store.epochs.append_epoch(claim, make_record(epoch, used={"lr": 1}), 6000)

        assert [record.epoch for record in store.epochs.trial_records(claim.trial_id)] == [1, 2]
        assert store.trials.list_trials(claim.study_id) == before

    def test_starts_at_one(self, store: Store, claim: Claim, make_record: Make) -> None:
        """The first epoch is 1."""
        with pytest.raises(EpochOrderError, match=r"epoch 2 is out of order; the next one is 1$"):
            store.epochs.append_epoch(claim, make_record(2), 600)

    def test_not_json(self, store: Store, claim: Claim, make_record: Make) -> None:
        """A value that JSON cannot represent is named in the error, and nothing is written."""
        with pytest.raises(TypeError, match="object is not a JSON value"):
            store.epochs.append_epoch(claim, make_record(1, used={"model": object()}), 600)

        assert store.epochs.trial_records(claim.trial_id) == []


class TestResume:
    @pytest.fixture
    def second(self, store: Store, claim: Claim, make_record: Make) -> Claim:
        """The second attempt at a trial that has three epochs of metric 0.1."""
        for epoch in (1, 2, 3):
            store.epochs.append_epoch(claim, make_record(epoch, metric=0.1), 600)
        return taken_over(store, claim)

    def written(self, store: Store, claim: Claim) -> list[tuple[int, float]]:
        """Epoch and metric of every record."""
        return [
            (record.epoch, record.metric) for record in store.epochs.trial_records(claim.trial_id)
        ]

    def test_continued(self, store: Store, second: Claim, make_record: Make) -> None:
        """An attempt whose checkpoint has the last epoch continues after it."""
        store.epochs.append_epoch(second, make_record(4, metric=0.2), 600)

        assert self.written(store, second) == [(1, 0.1), (2, 0.1), (3, 0.1), (4, 0.2)]

    def test_older_checkpoint(self, store: Store, second: Claim, make_record: Make) -> None:
        """An attempt that repeats an epoch replaces it and the later ones."""
        store.epochs.append_epoch(second, make_record(2, metric=0.2), 600)
        assert self.written(store, second) == [(1, 0.1), (2, 0.2)]

        store.epochs.append_epoch(second, make_record(3, metric=0.2), 600)
        with pytest.raises(EpochOrderError, match="the next one is 4"):
            store.epochs.append_epoch(second, make_record(1), 600)

        assert self.written(store, second) == [(1, 0.1), (2, 0.2), (3, 0.2)]

    def test_gap(self, store: Store, second: Claim, make_record: Make) -> None:
        """An attempt cannot skip an epoch; the error names those that it may write."""
        with pytest.raises(
            EpochOrderError, match="epoch 5 is out of order; the next one is 1 to 4"
        ):
            store.epochs.append_epoch(second, make_record(5), 600)

    def test_forget(self, store: Store, second: Claim, make_record: Make) -> None:
        """Epochs after the checkpoint can be deleted; those of other trials stay."""
        other = bound(store, second.study_id, number=1)
        store.epochs.append_epoch(other, make_record(1), 600)
        store.epochs.append_epoch(other, make_record(2), 600)

        store.epochs.forget_epochs_after(second, 1)

        assert store.epochs.last_epochs(second.study_id) == {second.trial_id: 1, other.trial_id: 2}
        store.epochs.append_epoch(second, make_record(2, metric=0.2), 600)
        assert self.written(store, second) == [(1, 0.1), (2, 0.2)]


class TestFinish:
    @pytest.mark.parametrize("state", ["complete", "pruned", "diverged", "failed"])
    def test_ended(self, store: Store, claim: Claim, state: FinalState) -> None:
        """An ended trial keeps its state and reason, and is never claimed again."""
        store.leases.finish_trial(
            claim, Outcome(state, 0.25, "because", error="Traceback: \0 \udc80 ü")
        )

        trial = store.trials.find_trial(claim.study_id, 0)
        assert trial is not None
        assert (trial.state, trial.score, trial.reason, trial.lease_until) == (
            state,
            0.25,
            "because",
            None,
        )
        assert trial.error == "Traceback: \\x00 \\udc80 ü"
        assert trial.finished_at is not None
        assert store.leases.claim_trial(claim.study_id, 1, "b", 600) is None

    @pytest.mark.parametrize("score", [None, NAN, INF, -INF, 0.1 + 0.2])
    def test_score(self, store: Store, claim: Claim, score: float | None) -> None:
        """A score is returned exactly; NaN is not a missing score."""
        store.leases.finish_trial(claim, Outcome("complete", score))

        trial = store.trials.find_trial(claim.study_id, 0)
        assert trial is not None
        assert repr(trial.score) == repr(score)

    def test_finding(self, store: Store, claim: Claim) -> None:
        """Evidence and diagnosis are returned as written, for a trial and for the study."""
        store.leases.finish_trial(
            claim, Outcome("diverged", evidence=EVIDENCE, diagnosis=DIAGNOSIS)
        )
        other = bound(store, claim.study_id, number=1)
        undiagnosed = Evidence("nonfinite_loss", 1, None, "NaN at \0", {}, severity=1.0)
        store.leases.finish_trial(other, Outcome("diverged", evidence=undiagnosed))

        assert repr(store.findings.trial_evidence(claim.trial_id)) == repr([(EVIDENCE, DIAGNOSIS)])
        found = store.findings.study_evidence(claim.study_id)
        assert list(found) == [claim.trial_id, other.trial_id]
        assert repr(found[claim.trial_id]) == repr([(EVIDENCE, DIAGNOSIS)])
        (evidence, diagnosis) = found[other.trial_id][0]
        assert (evidence.step, evidence.statement, diagnosis) == (None, "NaN at \\x00", None)

        ended = store.trials.list_ended(claim.study_id, ("diverged",))
        assert [trial.id for trial in ended] == [claim.trial_id, other.trial_id]
        assert store.trials.list_ended(claim.study_id, ("complete",)) == []
        latest = max(trial.finished_at or 0 for trial in ended)
        since = store.trials.list_ended(claim.study_id, ("diverged",), latest)
        assert other.trial_id in [trial.id for trial in since]
        assert store.trials.list_ended(claim.study_id, ("diverged",), latest + 1) == []
        assert other.trial_id in store.findings.study_evidence(claim.study_id, latest)
        assert store.findings.study_evidence(claim.study_id, latest + 1) == {}

    def test_warning(self, store: Store, claim: Claim, make_record: Make) -> None:
        """A warning is stored while the trial runs, and stays next to what ends it."""
        for epoch in (1, 2):
            store.epochs.append_epoch(claim, make_record(epoch), 600)
        store.epochs.append_warning(claim, WARNING)
        store.epochs.append_warning(claim, WARNING)  # its answer was lost
        assert store.findings.trial_evidence(claim.trial_id) == [(WARNING, None)]
        assert store.findings.study_evidence(claim.study_id) == {claim.trial_id: [(WARNING, None)]}

        ended = replace(WARNING, numbers={}, severity=0.5)
        store.leases.finish_trial(claim, Outcome("diverged", evidence=ended))
        assert store.findings.trial_evidence(claim.trial_id) == [(ended, None)]

    def test_warning_forgotten(self, store: Store, claim: Claim, make_record: Make) -> None:
        """A warning about an epoch that is deleted or replaced goes with it."""
        for epoch in (1, 2):
            store.epochs.append_epoch(claim, make_record(epoch), 600)
        store.epochs.append_warning(claim, WARNING)
        store.epochs.forget_epochs_after(claim, 2)
        assert store.findings.trial_evidence(claim.trial_id) == [(WARNING, None)]
        store.epochs.forget_epochs_after(claim, 1)
        assert store.findings.trial_evidence(claim.trial_id) == []

        store.epochs.append_epoch(claim, make_record(2), 600)
        store.epochs.append_warning(claim, WARNING)
        newer = taken_over(store, claim)
        store.epochs.append_epoch(newer, make_record(2), 600)
        assert store.findings.trial_evidence(claim.trial_id) == []

    @pytest.mark.parametrize("state", ["running", "reserved", "paused", "done"])
    def test_no_end(self, store: Store, claim: Claim, state: FinalState) -> None:
        """A trial cannot end in an open state."""
        with pytest.raises(ValueError, match="complete, pruned, diverged, failed"):
            store.leases.finish_trial(claim, Outcome(state))

        assert store.trials.count_by_state(claim.study_id) == {"running": 1}


class TestReading:
    def test_progress(self, store: Store, claim: Claim, make_record: Make) -> None:
        """The live display has a line per trial, with its last epoch and that epoch's metric."""
        for epoch, metric in ((1, 0.3), (2, 0.4), (3, NAN)):
            store.epochs.append_epoch(claim, make_record(epoch, metric=metric), 600)
        done = bound(store, claim.study_id, "b", number=1)
        store.epochs.append_epoch(done, make_record(1, metric=0.2), 600)
        store.leases.finish_trial(done, Outcome("complete", 0.2))
        store.leases.claim_trial(claim.study_id, 3, "c", 600)
        bound(store, store.studies.register_study(12, "other", {}).id)

        first, second, third = store.trials.list_progress(claim.study_id)

        assert (
            first.number,
            first.state,
            first.epochs,
            first.score,
            first.worker,
            first.preset,
        ) == (0, "running", 3, None, "a", "safe")
        assert repr(first.metric) == "nan"
        assert (
            second.number,
            second.state,
            second.epochs,
            second.metric,
            second.score,
            second.lease_left_s,
        ) == (
            1,
            "complete",
            1,
            0.2,
            0.2,
            None,
        )
        assert (third.number, third.state, third.epochs, third.metric, third.worker) == (
            None,
            "reserved",
            0,
            None,
            "c",
        )

    def test_study_records(self, store: Store, claim: Claim, make_record: Make) -> None:
        """The epochs of a study are returned together, by trial and in order."""
        other = bound(store, claim.study_id, number=1)
        elsewhere = bound(store, store.studies.register_study(12, "other", {}).id)
        for epoch in range(1, 13):
            for each in (claim, other, elsewhere):
                store.epochs.append_epoch(each, make_record(epoch), 600)

        found = store.epochs.study_records(claim.study_id)

        assert list(found) == [claim.trial_id, other.trial_id]
        assert [record.epoch for record in found[claim.trial_id]] == list(range(1, 13))
        assert store.epochs.last_epochs(claim.study_id) == {claim.trial_id: 12, other.trial_id: 12}

    def test_counts(self, store: Store, study_id: int) -> None:
        """Trials are counted by state; reserved, running and paused ones are open."""
        ends: tuple[TrialState, ...] = ("complete", "paused", "running", "reserved", "complete")
        for number, state in enumerate(ends):
            claim = store.leases.claim_trial(study_id, 9, "a", 600)
            assert claim is not None
            if state != "reserved":
                claim = store.leases.bind_trial(claim, number, number, {})
            if state == "complete":
                store.leases.finish_trial(claim, Outcome("complete", 0.5))
            if state == "paused":
                paused = claim
        store.leases.release_trial(paused)

        assert store.trials.count_by_state(study_id) == {
            "complete": 2,
            "paused": 1,
            "running": 1,
            "reserved": 1,
        }
        assert store.trials.count_open(study_id) == 3

    def test_unknown(self, store: Store, study_id: int) -> None:
        """A missing study or trial has empty results, and is no error."""
        assert store.trials.find_trial(study_id, 0) is None
        assert (
            store.trials.list_trials(study_id),
            store.trials.list_progress(study_id),
            store.epochs.trial_records(7),
            store.findings.trial_evidence(7),
        ) == ([], [], [], [])
        assert (
            store.epochs.study_records(study_id),
            store.findings.study_evidence(study_id),
            store.trials.count_open(study_id),
        ) == ({}, {}, 0)


class TestClassCounts:
    COUNTS = ClassCounts(("road", "pedestrian"), (10**12, 0))

    def test_kept(self, store: Store) -> None:
        """Counts are returned as saved, for that data set only."""
        assert store.class_counts.find_counts("abc") is None

        store.class_counts.save_counts("abc", self.COUNTS)

        assert store.class_counts.find_counts("abc") == self.COUNTS
        assert store.class_counts.find_counts("abd") is None

    def test_counted_twice(self, store: Store) -> None:
        """Two workers that counted at once may both save."""
        store.class_counts.save_counts("abc", self.COUNTS)
        store.class_counts.save_counts("abc", self.COUNTS)

        assert store.class_counts.find_counts("abc") == self.COUNTS
