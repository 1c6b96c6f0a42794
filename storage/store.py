"""The store: every access to a database of studies goes through it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from storage.database.database import Database
from storage.repositories.class_counts import ClassCountRepository
from storage.repositories.confirmations import ConfirmationRepository
from storage.repositories.device_time import DeviceTimeRepository
from storage.repositories.epochs import EpochRepository
from storage.repositories.findings import FindingRepository
from storage.repositories.leases import LeaseRepository
from storage.repositories.peer_curves import PeerCurveRepository
from storage.repositories.promotions import PromotionRepository
from storage.repositories.rate_probes import RateProbeRepository
from storage.repositories.reaping import ReapingRepository
from storage.repositories.remedies import RemedyRepository
from storage.repositories.sampler_history import SamplerHistoryRepository
from storage.repositories.studies import StudyRepository
from storage.repositories.trials import TrialRepository
from storage.tables.models import Study
from storage.tables.optuna_tables import OptunaTables


class Store:
    """One database, with a repository for each subject.

    Threads may share a store; every process opens its own. `StoreLocation.open` opens one. Any
    method raises StoreError when the database fails; its transaction is rolled back then, so that
    the method can be called again.

    Attributes:
        studies: register and find studies.
        trials: read the states of a study's trials.
        leases: claim trials, renew their leases, and end them.
        reaping: trials whose worker stopped responding.
        budget: the device time of a study.
        epochs: the record of every epoch.
        findings: the signals that fired, with their diagnoses.
        remedies: the trials that try a remedy of another one.
        confirmations: the trials that train a configuration of another study again.
        class_counts: counted once for each training split.
        promotions: pause trials at an epoch, and read what the search decides by.
        rate_probes: what the probe of a study's learning rate found.
        peer_curves: the curves of complete trials.
        sampler_history: what the sampler knows about past trials.
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
        self.remedies = RemedyRepository(database, self._optuna)
        self.confirmations = ConfirmationRepository(database, self._optuna)
        self.class_counts = ClassCountRepository(database, self._optuna)
        self.promotions = PromotionRepository(database, self._optuna)
        self.rate_probes = RateProbeRepository(database, self._optuna)
        self.peer_curves = PeerCurveRepository(database, self._optuna)
        self.sampler_history = SamplerHistoryRepository(database, self._optuna)

    @property
    def where(self) -> str:
        """URL of the store, without the password."""
        return self._database.where

    def knows_optuna(self) -> bool:
        """Whether the store itself reads and writes Optuna's tables.

        It does so if it knows their version. Otherwise Optuna's own class has to be used.
        """
        if self._optuna.is_known:
            return True
        with self._database.reading() as connection:
            return self._optuna.check_version(connection)

    def delete_if_created(self) -> bool:
        """Delete a store that this object created, if it is empty and not open elsewhere.

        Returns:
            Whether it was deleted.
        """
        return self._database.created and self._database.delete_file(
            unless=f"SELECT 1 FROM {Study.__tablename__} LIMIT 1"
        )

    def close(self) -> None:
        """Close the connections."""
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
