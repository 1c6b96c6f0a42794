"""Epochs on their way into the store: a real PostgreSQL whose connections are refused for a while."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import psycopg
import pytest
from sqlalchemy import make_url

from search.worker import epoch_writer, retry
from search.worker.epoch_writer import EpochLog
from search.worker.stop import StopRequest
from spaces.errors import EpochOrderError, LeaseLostError, StoreUnreachableError
from spaces.records import EpochRecord
from storage.location import StoreLocation
from storage.rows import Claim
from storage.store import Store

Make = Callable[..., EpochRecord]
LEASE_S = 600.0
_names = count()


@dataclass
class Report:
    """Optuna's side, which only notes what it is told."""

    told: list[int] = field(default_factory=list)

    def report(self, record: EpochRecord) -> None:
        """Note it."""
        self.told.append(record.epoch)


@dataclass
class Desk:
    """An attempt that is under way, and the database behind it."""

    admin: psycopg.Connection
    database: str
    store: Store
    claim: Claim
    log: EpochLog
    optuna: Report

    @contextmanager
    def away(self) -> Iterator[None]:
        """A block in which the database takes no connections and has cut those it had."""
        self._allow("false")
        yield
        self._allow("true")

    def _allow(self, told: str) -> None:
        self.admin.execute(f"ALTER DATABASE {self.database} ALLOW_CONNECTIONS {told}")
        self.admin.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.database}'"
        )

    def epochs(self) -> list[int]:
        """What the store has."""
        return [record.epoch for record in self.store.epochs.trial_records(self.claim.trial_id)]


@pytest.fixture
def desk(postgres_admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A trial in a database of its own."""
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)
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
        optuna = Report()
        yield Desk(
            postgres_admin,
            name,
            store,
            claim,
            EpochLog(store, claim, optuna, StopRequest(), LEASE_S),
            optuna,
        )  # type: ignore[arg-type]
    postgres_admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


class TestAway:
    def test_later(self, desk: Desk, make_record: Make) -> None:
        """Epochs that the store could not take are kept, and written in order with the next one that it takes."""
        desk.log.append(make_record(1))
        with desk.away():
            for epoch in (2, 3):
                desk.log.append(make_record(epoch))
            assert not desk.log.settled
            with pytest.raises(StoreUnreachableError):
                desk.epochs()
        while not desk.log.settled:
            desk.log.flush()

        assert desk.epochs() == [1, 2, 3]
        assert desk.optuna.told == [1, 2, 3]

    def test_written_already(self, desk: Desk, make_record: Make) -> None:
        """An epoch whose answer was lost is in the store already, and is not written again."""
        with desk.away():
            desk.log.append(make_record(1))
        desk.store.epochs.append_epoch(
            desk.claim, make_record(1), LEASE_S
        )  # as if the first try had been in time
        desk.log.end(
            "complete", lambda: desk.store.leases.finish_trial(desk.claim, "complete", 0.5)
        )

        assert desk.epochs() == [1]
        assert desk.store.trials.count_by_state(desk.claim.study_id) == {"complete": 1}

    def test_last_minute(
        self, desk: Desk, make_record: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a power cut may take from the store is what waits, and what was written in the last minute."""
        for epoch in (1, 2):
            desk.log.append(make_record(epoch))
        with desk.away():
            desk.log.append(make_record(3))
        assert [record.epoch for record in desk.log.unheard()] == [1, 2, 3]
        monkeypatch.setattr(epoch_writer, "DURABLE_AFTER_S", 0.0)
        assert [record.epoch for record in desk.log.unheard()] == [3]

    def test_ended_already(self, desk: Desk, make_record: Make) -> None:
        """An end whose answer was lost is not written again, either."""
        desk.log.append(make_record(1))
        tries = []

        def write() -> None:
            desk.store.leases.finish_trial(desk.claim, "complete", 0.5)
            tries.append(1)
            raise StoreUnreachableError("the connection was cut behind the commit")

        desk.log.end("complete", write)

        assert tries == [1]

    def test_peers(self, desk: Desk, make_record: Make) -> None:
        """While the store is away nobody is held against peers that cannot be read."""
        assert desk.log.peers(lambda: "worse") == "worse"
        with desk.away():
            assert desk.log.peers(lambda: desk.store.studies.find_study("demo") and "worse") is None
            desk.log.append(make_record(1))
            assert desk.log.peers(lambda: "worse") is None

    def test_patience(self, desk: Desk, make_record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """The end of an attempt waits for the store, but not for ever."""
        monkeypatch.setattr(epoch_writer, "STORE_PATIENCE_S", 0.1)
        with desk.away(), pytest.raises(StoreUnreachableError):
            desk.log.end(
                "complete", lambda: desk.store.leases.finish_trial(desk.claim, "complete", 0.5)
            )


class TestRefused:
    def test_lost(self, desk: Desk, make_record: Make) -> None:
        """Whoever lost the trial is told so with its next epoch, also when the lease thread was the one to find out."""
        desk.store.leases.release_trial(desk.claim)
        with desk.away():
            desk.log.append(make_record(1))
        while not desk.log.settled and desk.log._problem is None:
            desk.log.flush()

        with pytest.raises(LeaseLostError, match="is paused"):
            desk.log.append(make_record(2))

    def test_out_of_order(self, desk: Desk, make_record: Make) -> None:
        """An epoch that the store refuses ends the training, and then the trial can be failed."""
        with pytest.raises(EpochOrderError, match="out of order"):
            desk.log.append(make_record(2))
        desk.log.end("failed", lambda: desk.store.leases.finish_trial(desk.claim, "failed"))

        assert desk.store.trials.count_by_state(desk.claim.study_id) == {"failed": 1}
