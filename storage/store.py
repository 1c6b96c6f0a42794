"""The store: the durable memory of studies, and the only door to it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from storage.database.engine import Database
from storage.repositories.class_counts import ClassCountRepository
from storage.repositories.device_time import DeviceTimeRepository
from storage.repositories.epochs import EpochRepository
from storage.repositories.findings import FindingRepository
from storage.repositories.leases import LeaseRepository
from storage.repositories.peer_curves import PeerCurveRepository
from storage.repositories.reaping import ReapingRepository
from storage.repositories.sampler_history import SamplerHistoryRepository
from storage.repositories.studies import StudyRepository
from storage.repositories.trials import TrialRepository
from storage.tables.models import Study
from storage.tables.optuna import OptunaTables


class Store:
    """One database, with a repository for each subject. Threads may share a store; processes open their own.

    Any method raises StoreError when the database fails. The transaction is undone then, so it can be tried again.

    Attributes:
        studies: registering and finding studies.
        trials: reading how the trials of a study stand.
        leases: claiming trials, holding them, and ending them.
        reaping: trials whose worker vanished.
        budget: the device time of a study.
        epochs: the record of every epoch.
        findings: the signals that fired, with their diagnoses.
        class_counts: counted once for each training split.
        peer_curves: the curves of complete trials.
        sampler_history: what the sampler knows of past trials.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._optuna = OptunaTables()
        self.studies = StudyRepository(database, self._optuna)
        self.leases = LeaseRepository(database, self._optuna)
        self.reaping = ReapingRepository(database, self._optuna)
        self.budget = DeviceTimeRepository(database, self._optuna)
        self.epochs = EpochRepository(database, self._optuna)
        self.trials = TrialRepository(database, self._optuna)
        self.findings = FindingRepository(database, self._optuna)
        self.class_counts = ClassCountRepository(database, self._optuna)
        self.peer_curves = PeerCurveRepository(database, self._optuna)
        self.sampler_history = SamplerHistoryRepository(database, self._optuna)

    @property
    def where(self) -> str:
        """The address, without a password."""
        return self._database.where

    def knows_optuna(self) -> bool:
        """Whether `claim` takes trials from Optuna's tables, and `bind`, `append` and `finish` write to them; else Optuna's own class has to."""
        if self._optuna.seen:
            return True
        with self._database.reading() as connection:
            return self._optuna.known(connection)

    def unmake(self) -> bool:
        """Removes a store that this very opening made, if it holds no study and nobody else has it open. False when it stays."""
        return self._database.made and self._database.remove(
            unless=f"SELECT 1 FROM {Study.__tablename__} LIMIT 1"
        )

    def close(self) -> None:
        """Closes the connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
