"""The contract of the probe of a study's learning rate, on each kind of database."""

from __future__ import annotations

import math

import pytest

from spaces.rate_probe import RateProbe
from storage.store import Store
from tests.waiting import until

LONG_S = 600.0
PROBE = RateProbe(0.13, 1.3, True, 2.5, ((1e-3, 2.0), (1.3, 0.5), (2.0, math.inf)))


@pytest.fixture
def study_id(store: Store) -> int:
    """A registered study."""
    return store.studies.register_study(11, "demo", {"space": {}}).id


class TestClaim:
    def test_one_worker(self, store: Store, study_id: int) -> None:
        """One worker at a time may run the probe; a released probe is free at once."""
        other = store.studies.register_study(12, "other", {"space": {}}).id
        assert store.rate_probes.claim_probe(study_id, LONG_S)
        assert not store.rate_probes.claim_probe(study_id, LONG_S)
        assert store.rate_probes.claim_probe(other, LONG_S)
        store.rate_probes.release_probe(study_id)
        assert store.rate_probes.claim_probe(study_id, LONG_S)

    def test_expired(self, store: Store, study_id: int) -> None:
        """The probe of a worker that stopped renewing its lease is claimed by another worker."""
        assert store.rate_probes.claim_probe(study_id, LONG_S)
        store.rate_probes.renew_probe(study_id, 0.001)
        until(lambda: store.rate_probes.claim_probe(study_id, LONG_S), "the probe is claimed again")

    def test_saved(self, store: Store, study_id: int) -> None:
        """A probe with a result is never run again."""
        store.rate_probes.save_probe(study_id, PROBE)
        assert not store.rate_probes.claim_probe(study_id, LONG_S)


class TestResult:
    def test_read_back(self, store: Store, study_id: int) -> None:
        """The result is read as it was saved, infinite losses included, also with its study."""
        assert store.rate_probes.find_probe(study_id) is None
        assert store.rate_probes.save_probe(study_id, PROBE) == PROBE
        assert store.rate_probes.find_probe(study_id) == PROBE
        stored = store.studies.find_study("demo")
        assert stored is not None
        assert stored.rate_probe == PROBE

    def test_first_is_kept(self, store: Store, study_id: int) -> None:
        """Of two results the first that was saved is kept, and returned to both workers."""
        later = RateProbe(0.5, 5.0, True, 2.5, ())
        assert store.rate_probes.save_probe(study_id, PROBE) == PROBE
        assert store.rate_probes.save_probe(study_id, later) == PROBE
