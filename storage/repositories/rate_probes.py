"""The probe of a study's learning rate, which one worker runs before the first trial.

    claim_probe ──▶ renew_probe … ──▶ save_probe, or release_probe

The worker runs it under a lease, so that another one repeats it if the worker dies. Two workers can
nevertheless run it at once, after a long step. That does no harm: it gives both the same result,
and the first one that is saved is kept.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import or_, select, update

from spaces.rate_probe import RateProbe
from storage.database.database import now
from storage.repositories.base import Repository
from storage.tables.models import Study


class RateProbeRepository(Repository):
    """Claim, save and find the probe of a study."""

    def claim_probe(self, study_id: int, lease_s: float) -> bool:
        """Claim the probe for some seconds; False if it is saved, or another worker runs it."""
        is_free = or_(Study.rate_probe_until.is_(None), Study.rate_probe_until < now())
        claimed = (
            update(Study)
            .where(Study.id == study_id, Study.rate_probe.is_(None), is_free)
            .values(rate_probe_until=now() + lease_s)
        )
        with self._database.writing() as connection:
            return connection.execute(claimed).rowcount > 0

    def renew_probe(self, study_id: int, lease_s: float) -> None:
        """Extend the lease of a running probe to some seconds from now."""
        self._set_lease(study_id, now() + lease_s)

    def release_probe(self, study_id: int) -> None:
        """Let another worker run the probe at once."""
        self._set_lease(study_id, None)

    def save_probe(self, study_id: int, probe: RateProbe) -> RateProbe:
        """Save the result, and return the one that is stored: the first that was saved."""
        saved = (
            update(Study)
            .where(Study.id == study_id, Study.rate_probe.is_(None))
            .values(rate_probe=asdict(probe), rate_probe_until=None)
        )
        with self._database.writing() as connection:
            connection.execute(saved)
        return self.find_probe(study_id) or probe

    def find_probe(self, study_id: int) -> RateProbe | None:
        """Return the saved result, None if there is none yet."""
        query = select(Study.rate_probe).where(Study.id == study_id)
        with self._database.reading() as connection:
            return read_probe(connection.execute(query).scalar())

    def _set_lease(self, study_id: int, until: Any) -> None:
        with self._database.writing() as connection:
            connection.execute(
                update(Study).where(Study.id == study_id).values(rate_probe_until=until)
            )


def read_probe(stored: Any) -> RateProbe | None:
    """Read the column of a probe's result."""
    if stored is None:
        return None
    curve = tuple((lr, loss) for lr, loss in stored["curve"])
    return RateProbe(**{**stored, "curve": curve})
