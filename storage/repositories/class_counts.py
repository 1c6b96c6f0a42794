"""Class counts, which are counted once for each training split."""

from __future__ import annotations

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from spaces.records import ClassCounts
from storage.database.database import now
from storage.repositories.base import Repository
from storage.tables.models import ClassCount


class ClassCountRepository(Repository):
    """Save and find class counts."""

    def find_counts(self, fingerprint: str) -> ClassCounts | None:
        """Find the counts of a split, None when no worker has counted it yet."""
        query = select(ClassCount.names, ClassCount.counts).where(
            ClassCount.fingerprint == fingerprint
        )
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else ClassCounts(tuple(row.names), tuple(row.counts))

    def save_counts(self, fingerprint: str, counts: ClassCounts) -> None:
        """Save the counts of a split. If it was counted before, the earlier counts stay."""
        values = {
            "fingerprint": fingerprint,
            "names": counts.names,
            "counts": counts.counts,
            "made_at": now(),
        }
        try:
            with self._database.writing() as connection:
                connection.execute(insert(ClassCount).values(values))
        except IntegrityError:
            pass  # two workers counted at once
