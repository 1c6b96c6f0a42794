"""Writing epochs to a real PostgreSQL that refuses connections for a while."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import psycopg
import pytest
from sqlalchemy import make_url

from search.worker import epoch_writer, store_retry
from search.worker.epoch_writer import EpochWriter
from search.worker.stop import StopRequest
from spaces.errors import EpochOrderError, LeaseLostError, StoreUnreachableError
from spaces.records import EpochRecord, Evidence
from storage.location import StoreLocation
from storage.rows import Claim, Outcome
from storage.store import Store
from tests.waiting import PATIENCE_S

Make = Callable[..., EpochRecord]
LEASE_S = 600.0
_names = count()


@dataclass
class RecordedReports:
    """Optuna's side, which only records what is reported."""

    epochs: list[int] = field(default_factory=list)

    def report_epoch(self, record: EpochRecord) -> None:
        """Record the epoch."""
        self.epochs.append(record.epoch)


@dataclass
class Fixture:
    """An attempt, and the database it writes to."""

    admin: psycopg.Connection
    database: str
    store: Store
    claim: Claim
    writer: EpochWriter
    optuna: RecordedReports

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """A block in which the database refuses connections and has cut the existing ones."""
        self._allow("false")
        yield
        self._allow("true")

    def _allow(self, value: str) -> None:
        self.admin.execute(f"ALTER DATABASE {self.database} ALLOW_CONNECTIONS {value}")
        cut = "SELECT count(pg_terminate_backend(pid, %s)) FROM pg_stat_activity WHERE datname = %s"
        self.admin.execute(cut, (int(1000 * PATIENCE_S), self.database))

    def epochs(self) -> list[int]:
        """The epochs in the store."""
        return [record.epoch for record in self.store.epochs.trial_records(self.claim.trial_id)]


@pytest.fixture
def desk(postgres_admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fixture]:
    """A trial in its own database."""
    monkeypatch.setattr(store_retry, "FIRST_WAIT_S", 0.001)
    name = f"log_{os.getpid()}_{next(_names)}"
    postgres_admin.execute(f"CREATE DATABASE {name}")
    info = postgres_admin.info
    url = make_url("postgresql://").set(
        username=info.user, database=name, query={"host": info.host, "port": str(info.port)}
    )
    with StoreLocation.parse(url.render_as_string(hide_password=False)).open() as store:
        claim = store.leases.claim_trial(
            store.studies.register_study(1, "demo", {}).id, 1, "a", LEASE_S
        )
        assert claim is not None
        claim = store.leases.bind_trial(claim, 0, 0, {})
        optuna = RecordedReports()
        yield Fixture(
            postgres_admin,
            name,
            store,
            claim,
            EpochWriter(store, claim, optuna, StopRequest(), LEASE_S),
            optuna,
        )  # type: ignore[arg-type]
    postgres_admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


class TestUnreachable:
    def test_later(self, desk: Fixture, make_record: Make) -> None:
        """Epochs that the store could not take are buffered, and written in order later."""
        desk.writer.append_record(make_record(1))
        with desk.unreachable():
            for epoch in (2, 3):
                desk.writer.append_record(make_record(epoch))
            assert not desk.writer.is_flushed
            with pytest.raises(StoreUnreachableError):
                desk.epochs()
        while not desk.writer.is_flushed:
            desk.writer.flush_pending()

        assert desk.epochs() == [1, 2, 3]
        assert desk.optuna.epochs == [1, 2, 3]

    def test_written_already(self, desk: Fixture, make_record: Make) -> None:
        """An epoch whose answer was lost is in the store already, and is not written again."""
        with desk.unreachable():
            desk.writer.append_record(make_record(1))
        desk.store.epochs.append_epoch(
            desk.claim, make_record(1), LEASE_S
        )  # as if the first attempt had been committed
        desk.writer.write_end(
            "complete",
            lambda: desk.store.leases.finish_trial(desk.claim, Outcome("complete", 0.5)),
        )

        assert desk.epochs() == [1]
        assert desk.store.trials.count_by_state(desk.claim.study_id) == {"complete": 1}

    def test_last_minute(
        self, desk: Fixture, make_record: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A power cut may lose the pending epochs and those of the last minute."""
        for epoch in (1, 2):
            desk.writer.append_record(make_record(epoch))
        with desk.unreachable():
            desk.writer.append_record(make_record(3))
        assert [record.epoch for record in desk.writer.unconfirmed_records()] == [1, 2, 3]
        monkeypatch.setattr(epoch_writer, "DURABLE_AFTER_S", 0.0)
        assert [record.epoch for record in desk.writer.unconfirmed_records()] == [3]

    def test_ended_already(self, desk: Fixture, make_record: Make) -> None:
        """An end whose answer was lost is not written again."""
        desk.writer.append_record(make_record(1))
        tries = []

        def write() -> None:
            desk.store.leases.finish_trial(desk.claim, Outcome("complete", 0.5))
            tries.append(1)
            raise StoreUnreachableError("the connection was cut after the commit")

        desk.writer.write_end("complete", write)

        assert tries == [1]

    def test_peers(self, desk: Fixture, make_record: Make) -> None:
        """While the store is unreachable no trial is compared with its peers."""
        assert desk.writer.ask_peers(lambda: "worse") == "worse"
        with desk.unreachable():
            assert (
                desk.writer.ask_peers(lambda: desk.store.studies.find_study("demo") and "worse")
                is None
            )
            desk.writer.append_record(make_record(1))
            assert desk.writer.ask_peers(lambda: "worse") is None

    def test_warning(self, desk: Fixture, make_record: Make) -> None:
        """A warning waits for the store, and is written after the epoch that it is about."""
        warning = Evidence("loss_rising", 2, None, "it rose", {"spared": "1 of 3"}, 0.0)
        desk.writer.append_record(make_record(1))
        with desk.unreachable():
            desk.writer.append_record(make_record(2))
            desk.writer.append_warning(warning)
            assert not desk.writer.is_flushed
        desk.writer.write_end("paused", lambda: desk.store.leases.release_trial(desk.claim))

        assert desk.writer.is_flushed
        assert len(desk.store.epochs.trial_records(desk.claim.trial_id)) == 2
        assert desk.store.findings.trial_evidence(desk.claim.trial_id) == [(warning, None)]

    def test_warning_lost(self, desk: Fixture) -> None:
        """A worker that lost its trial cannot warn about it; the error is raised once."""
        desk.store.leases.release_trial(desk.claim)
        warning = Evidence("loss_rising", 2, None, "it rose", {"spared": "1 of 3"}, 0.0)
        with pytest.raises(LeaseLostError):
            desk.writer.append_warning(warning)
        assert desk.writer.is_flushed

    def test_patience(
        self, desk: Fixture, make_record: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The end of an attempt waits for the store, but not forever."""
        monkeypatch.setattr(epoch_writer, "STORE_PATIENCE_S", 0.1)
        with desk.unreachable(), pytest.raises(StoreUnreachableError):
            desk.writer.write_end(
                "complete",
                lambda: desk.store.leases.finish_trial(desk.claim, Outcome("complete", 0.5)),
            )


class TestRefused:
    def test_lost(self, desk: Fixture, make_record: Make) -> None:
        """A worker that lost its trial learns it with the next epoch, even if the lease thread noticed first."""
        desk.store.leases.release_trial(desk.claim)
        with desk.unreachable():
            desk.writer.append_record(make_record(1))
        while not desk.writer.is_flushed and desk.writer._problem is None:
            desk.writer.flush_pending()

        with pytest.raises(LeaseLostError, match="is now paused"):
            desk.writer.append_record(make_record(2))

    def test_out_of_order(self, desk: Fixture, make_record: Make) -> None:
        """An epoch that the store refuses ends the training, and then the trial can be failed."""
        with pytest.raises(EpochOrderError, match="out of order"):
            desk.writer.append_record(make_record(2))
        desk.writer.write_end(
            "failed", lambda: desk.store.leases.finish_trial(desk.claim, Outcome("failed"))
        )

        assert desk.store.trials.count_by_state(desk.claim.study_id) == {"failed": 1}
