"""The contract of copying between stores: studies are copied completely, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from search.maintenance import copy_store
from search.sampling.connection import close_trials, open_trials
from spaces.errors import StoreError
from spaces.records import EpochRecord
from storage.location import StoreLocation
from storage.maintenance import copy as transfer
from storage.store import Store
from tests.contract.filled import contents, fill, plain_trials

Make = Callable[..., EpochRecord]


@pytest.fixture(
    params=[
        "sqlite → postgresql",
        "postgresql → sqlite",
        "sqlite → mariadb",
        "mariadb → postgresql",
    ]
)
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Source and target."""
    urls = [str(request.getfixturevalue(f"{kind}_url")) for kind in request.param.split(" → ")]
    return urls[0], urls[1]


def stop(url: str) -> None:
    """Pause the running trial, as its worker does on a request to stop."""
    execute(
        url, "UPDATE search_trials SET state = 'paused', lease_until = NULL WHERE state = 'running'"
    )


def execute(url: str, statement: str) -> None:
    """Run a statement."""
    with StoreLocation.parse(url).open() as store, store._database.writing() as connection:
        connection.execute(text(statement))


class TestCopy:
    def test_whole(
        self, ways: tuple[str, str], make_record: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A copy has all the data of the original, and the search can be resumed in it."""
        monkeypatch.setattr(transfer, "BATCH_SIZE", 2)
        source, target = ways
        fill(source, make_record, "other")
        fill(source, make_record)
        stop(source)
        fill(target, make_record, "before")
        before = contents(target, "before")

        made = copy_store(StoreLocation.parse(source), StoreLocation.parse(target), ["demo"])

        assert [(study.name, study.trials, study.epochs, study.paused) for study in made] == [
            ("demo", 6, 15, 0)
        ]
        assert repr(contents(target)) == repr(contents(source))  # NaN is not equal to itself
        assert repr(contents(target, "before")) == repr(before)
        with StoreLocation.parse(target).open() as store:
            assert [study.name for study in store.studies.list_studies()] == ["before", "demo"]
            _resume_search(store)

    def test_all_but_others(self, sqlite_url: str, tmp_path: Path, make_record: Make) -> None:
        """Without names every study is copied, but no study of another program."""
        source, target = sqlite_url, f"sqlite:///{tmp_path}/other.db"
        for name in ("demo", "other"):
            fill(source, make_record, name)
        stop(source)
        trials = open_trials(StoreLocation.parse(source))
        plain_trials(trials)
        close_trials(trials)

        assert [
            study.name
            for study in copy_store(StoreLocation.parse(source), StoreLocation.parse(target))
        ] == ["demo", "other"]

        trials = open_trials(StoreLocation.parse(target))
        assert [study.study_name for study in trials.get_all_studies()] == ["demo", "other"]
        close_trials(trials)

    def test_running(self, ways: tuple[str, str], make_record: Make) -> None:
        """A running trial prevents a copy, unless asked for; then it is paused in the copy only."""
        source, target = ways
        fill(source, make_record)

        with pytest.raises(
            StoreError,
            match=r"while workers own trials\n(.|\n)*study demo, trial 4: worker w4",
        ):
            copy_store(StoreLocation.parse(source), StoreLocation.parse(target))
        assert [
            study.paused
            for study in copy_store(
                StoreLocation.parse(source), StoreLocation.parse(target), running=True
            )
        ] == [1]

        with (
            StoreLocation.parse(source).open() as ours,
            StoreLocation.parse(target).open() as theirs,
        ):
            states = [
                [trial.state for trial in store.trials.list_trials(1)] for store in (ours, theirs)
            ]
        ended = ["complete", "pruned", "diverged", "failed"]
        assert states == [[*ended, "running", "paused"], [*ended, "paused", "paused"]]

    @pytest.mark.parametrize("ours", [True, False])
    def test_taken(self, sqlite_url: str, tmp_path: Path, make_record: Make, ours: bool) -> None:
        """A name that the target has, even in Optuna's tables only, is refused."""
        source, target = sqlite_url, f"sqlite:///{tmp_path}/other.db"
        for name in ("demo", "other"):
            fill(source, make_record, name)
        stop(source)
        fill(target, make_record)
        if not ours:
            for table in ("epochs", "signals", "trials", "studies"):
                execute(target, f"DELETE FROM search_{table}")

        with pytest.raises(
            StoreError, match=r"the target has a study of that name\n(.|\n)*found: +demo\n"
        ):
            copy_store(StoreLocation.parse(source), StoreLocation.parse(target))

        with StoreLocation.parse(target).open() as store:
            assert [study.name for study in store.studies.list_studies()] == (
                ["demo"] if ours else []
            )

    def test_undone(
        self,
        ways: tuple[str, str],
        make_record: Make,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """A copy that fails leaves nothing in the target, and no new file."""
        source, target = ways
        fill(source, make_record)
        stop(source)
        before = sorted(path.name for path in tmp_path.iterdir())

        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(transfer, "_copy_class_counts", fail)
        with pytest.raises(KeyboardInterrupt):
            copy_store(StoreLocation.parse(source), StoreLocation.parse(target))

        if target.startswith("sqlite"):
            assert sorted(path.name for path in tmp_path.iterdir()) == before
        else:
            with StoreLocation.parse(target).open() as store:
                assert store.studies.list_studies() == []
            trials = open_trials(StoreLocation.parse(target))
            assert trials.get_all_studies() == []
            close_trials(trials)

    def test_unknown(self, sqlite_url: str, tmp_path: Path, make_record: Make) -> None:
        """A missing study is refused with the nearest name; so is the store itself as target."""
        fill(sqlite_url, make_record)
        stop(sqlite_url)

        with pytest.raises(
            StoreError, match=r"no study 'dmo' in the store \(did you mean 'demo'\?\)"
        ):
            copy_store(
                StoreLocation.parse(sqlite_url),
                StoreLocation.parse(f"sqlite:///{tmp_path}/other.db"),
                ["dmo"],
            )
        with pytest.raises(StoreError, match="cannot be copied into itself"):
            copy_store(StoreLocation.parse(sqlite_url), StoreLocation.parse(sqlite_url))
        assert not (tmp_path / "other.db").exists()


def _resume_search(store: Store) -> None:
    """Paused trials are resumed first, then the enqueued preset, then new ones are numbered on."""
    study = store.studies.find_study("demo")
    assert study is not None
    claims = [store.leases.claim_trial(study.id, 100, "b", 600) for _ in range(4)]
    assert [(claim.number, claim.resume, claim.attempt) for claim in claims if claim] == [
        (4, True, 2),
        (5, True, 2),
        (6, False, 1),
        (7, False, 1),
    ]
    optuna_ids = [claim.optuna_trial_id for claim in claims if claim]
    assert len(set(optuna_ids)) == 4
