"""The fault campaign's own judgement: that it finds what is lost, doubled or changed, and reckons what a kill cost."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.chaos import checks
from benchmarks.chaos.campaign import FULL, MIX, PLANTED, QUICK, Moment, StoreKind
from benchmarks.chaos.checks import Contents, Findings
from benchmarks.chaos.faults import FASTEST, ThawWhen, gap_factor, schedule
from benchmarks.chaos.store_reader import EpochRow, StoreReader
from benchmarks.chaos.watch import Kill, Watch
from search.sampling.optuna_trial import optuna_end
from search.session import open_session
from spaces.records import EpochRecord
from storage.location import StoreLocation
from storage.rows import Outcome

TRIALS = 7
EPOCHS = 3

HARM = {
    "trials lost": "DELETE FROM search_trials WHERE number = 2",
    "trials over the budget": "UPDATE search_trials SET number = 7 WHERE number = 2",
    "trials stuck": "UPDATE search_trials SET state = 'paused' WHERE number = 2",
    "trials failed": "UPDATE search_trials SET state = 'failed' WHERE number = 2",
    "epochs lost": "DELETE FROM search_epochs WHERE trial_id = 3 AND epoch = 2",
    "epochs doubled": "INSERT INTO search_epochs SELECT trial_id, 4, attempt, metric, replace(record, '\"epoch\":3', '\"epoch\":4'), at FROM search_epochs WHERE trial_id = 3 AND epoch = 3",
    "epoch records unlike the undisturbed run's": "UPDATE search_epochs SET record = replace(record, '\"train_loss\":0.8,', '\"train_loss\":0.8000000000000002,') WHERE trial_id = 3",
    "scores unlike the undisturbed run's": "UPDATE search_trials SET score = score + 6e-17 WHERE number = 2",
    "ends unlike the undisturbed run's": "UPDATE search_trials SET reason = 'other' WHERE number = 2",
    "configurations unlike the undisturbed run's": "UPDATE search_trials SET config = '{}' WHERE number = 2",
    "trials that are only in Optuna's tables or only in ours": "INSERT INTO trials (number, study_id, state) VALUES (7, 1, 'RUNNING')",
    "ends that differ between Optuna's tables and ours": "UPDATE trials SET state = 'RUNNING' WHERE number = 2",
    "epochs that differ between Optuna's tables and ours": "DELETE FROM trial_intermediate_values WHERE trial_id = 3 AND step = 2",
}
"""What can be wrong, and how it is brought about in the store of seven sound trials."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a finished study, as an undisturbed run leaves it."""
    from tests.conftest import RECORD

    path = tmp_path_factory.mktemp("chaos") / "search.db"
    session = open_session(QUICK.study(0), StoreLocation.parse(f"sqlite:///{path}"))
    with session.store as store:
        for number in range(TRIALS):
            claim = store.leases.claim_trial(
                session.stored.id, budget=TRIALS, worker="anyone", lease_s=60
            )
            assert claim is not None
            assert claim.optuna_trial_id is not None
            claim = store.leases.bind_trial(claim, number, claim.optuna_trial_id, {"seed": number})
            records = [
                EpochRecord.from_dict({**RECORD.as_dict(), "epoch": epoch, "metric": 0.1 * epoch})
                for epoch in range(1, EPOCHS + 1)
            ]
            for record in records:
                store.epochs.append_epoch(claim, record, 60)
            score = records[-1].metric
            outcome = Outcome("complete", score)
            store.leases.finish_trial(claim, outcome, optuna_end(outcome))
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def judged(sound: Path, tmp_path: Path) -> Callable[[str], Findings]:
    """What the checks find in a copy of the sound store after a statement of SQL."""

    def judge(harm: str) -> Findings:
        copy = tmp_path / "search.db"
        shutil.copy(sound, copy)
        with closing(sqlite3.connect(copy)) as database, database:
            database.execute(harm)
        reader = StoreReader(f"sqlite:///{copy}")
        try:
            return checks.check(TRIALS, _contents(sound), _contents(copy), reader)
        finally:
            reader.close()

    return judge


def _contents(path: Path) -> Contents:
    return checks.read(f"sqlite:///{path}", "chaos")


class TestChecks:
    """Optuna's tables and ours against the undisturbed run."""

    def test_sound(self, judged: Callable[[str], Findings]) -> None:
        """Nothing is found where nothing is wrong, and everything that could be is named."""
        found = judged("SELECT 1").wrong
        assert [what for what, places in found.items() if places] == []
        assert set(HARM) <= set(found)

    @pytest.mark.parametrize("what", HARM)
    def test_harm(self, judged: Callable[[str], Findings], what: str) -> None:
        """Each kind of harm is found by its name, and its place is reported."""
        places = judged(HARM[what]).wrong[what]
        assert places
        assert all("trial" in place for place in places)

    def test_clock(self, judged: Callable[[str], Findings]) -> None:
        """What the clock decides may differ."""
        found = judged(
            "UPDATE search_epochs SET record = replace(record, '\"seconds\":12.5', '\"seconds\":99.5')"
        ).wrong
        assert not any(found.values())

    def test_planted(self, judged: Callable[[str], Findings]) -> None:
        """The planted trial may fail, and is compared with nothing; Optuna has to know of its end."""
        found = judged(
            f"UPDATE search_trials SET state = 'failed', score = NULL WHERE number = {PLANTED}"
        ).wrong
        assert [what for what, places in found.items() if places] == [
            "ends that differ between Optuna's tables and ours"
        ]


class TestSchedule:
    """Which faults come, and when."""

    @pytest.mark.parametrize("store", FULL)
    def test_drawn(self, store: StoreKind) -> None:
        """The same seed draws the same faults, of every kind; another one draws others."""
        first = schedule(FULL[store], MIX[store], seed=1)
        assert first == schedule(FULL[store], MIX[store], seed=1)
        assert first != schedule(FULL[store], MIX[store], seed=2)
        assert len(first) == FULL[store].faults
        assert {fault.kind for fault in first} == set(MIX[store])

    def test_pace(self) -> None:
        """Faults hurry when the study is ahead of them, within limits, and wait when they are ahead of the study."""
        assert gap_factor(struck=0.5, done=0.5) == pytest.approx(1.0, rel=0.06)
        assert gap_factor(struck=0.1, done=0.9) == FASTEST
        assert gap_factor(struck=0.5, done=0.3) == math.inf
        assert gap_factor(struck=1.0, done=1.0) == FASTEST


class TestWatch:
    """What a kill cost."""

    def watch(self, *epochs: tuple[int, int, float, float], state_at: float | None = None) -> Watch:
        """A trial whose first attempt began at 100 s and was killed at 110 s, and whose second began at 118 s; epoch, attempt, end, seconds."""
        kept = Watch(StoreReader("sqlite:///nowhere.db"))
        kept.taken_at = {(1, 1): 100.0, (1, 2): 118.0}
        kept.kills = [Kill(1, 1, 110.0, state_at)]
        kept.epochs[1] = [
            EpochRow(1, epoch, attempt, at, seconds) for epoch, attempt, at, seconds in epochs
        ]
        return kept

    def test_recovery(self) -> None:
        """From the kill to the next attempt."""
        assert self.watch().recoveries(supervised=False) == [8.0]
        assert self.watch().recoveries(supervised=True) == []

    def test_frozen(self) -> None:
        """While a worker stood still it did no work that could be lost."""
        kept = self.watch(
            (1, 1, 103.0, 3.0), (2, 1, 106.0, 2.9), (2, 2, 119.0, 2.9), (3, 2, 122.0, 3.0)
        )
        kept.kills = [replace(kept.kills[0], frozen=((90.0, 95.0), (105.0, 108.5)))]
        assert kept.losses() == [1.5]

    def test_starts_over(self) -> None:
        """A trial that starts over lost all that was done."""
        assert self.watch((1, 1, 103.0, 3.0), (2, 1, 106.0, 2.9), (1, 2, 121.0, 3.1)).losses() == [
            10.0
        ]

    def test_checkpoint(self) -> None:
        """One that resumes from the state after epoch 2, whose record comes once more, lost what followed it."""
        assert self.watch(
            (1, 1, 103.0, 3.0), (2, 1, 106.0, 2.9), (2, 2, 119.0, 2.9), (3, 2, 122.0, 3.0)
        ).losses() == [4.0]

    def test_midst(self) -> None:
        """One that resumes from a state within epoch 3 lost what followed that."""
        assert self.watch(
            (1, 1, 103.0, 3.0), (2, 1, 106.0, 2.9), (3, 2, 122.0, 3.0), state_at=109.0
        ).losses() == [1.0]

    def test_state_not_taken(self) -> None:
        """A state from which it did not resume saved nothing."""
        assert self.watch(
            (1, 1, 103.0, 3.0), (2, 1, 106.0, 2.9), (1, 2, 121.0, 3.1), state_at=109.0
        ).losses() == [10.0]

    def test_between(self) -> None:
        """One that resumes after epoch 1 lost epoch 2 as well."""
        assert self.watch(
            (1, 1, 103.0, 3.0), (2, 1, 106.0, 2.9), (1, 2, 119.0, 3.0), (2, 2, 122.0, 3.0)
        ).losses() == [7.0]


class TestThaw:
    @pytest.mark.parametrize(
        ("moment", "taken", "recorded", "now_s", "thaws"),
        [
            ("taken over", False, False, 1e9, False),
            ("taken over", True, False, 5.0, True),
            ("first epoch", True, False, 1e9, False),
            ("first epoch", True, True, 5.0, True),
            ("later", True, True, 6.9, False),
            ("later", True, True, 7.0, True),
        ],
    )
    def test_moment(
        self, moment: Moment, taken: bool, recorded: bool, now_s: float, thaws: bool
    ) -> None:
        """A frozen worker continues at its moment of the next attempt at its trial, and not of another trial's."""
        watch = Watch(StoreReader("sqlite:///nowhere"))
        watch.taken_at[(8, 2)] = 1.0
        if taken:
            watch.taken_at[(7, 2)] = 5.0
        if recorded:
            watch.epochs[7].append(EpochRow(7, 1, 2, 6.0, 0.1))
        assert ThawWhen(watch, trial_id=7, attempt=1, moment=moment, later_s=2.0)(now_s) == thaws
