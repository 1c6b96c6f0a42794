"""Class counts, which are taken once for each training split."""

from __future__ import annotations

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from spaces.records import ClassCounts
from storage.database.engine import now
from storage.repositories.base import Repository
from storage.tables.models import ClassCount


class ClassCountRepository(Repository):
    """Keeping and finding class counts."""

    def find_counts(self, fingerprint: str) -> ClassCounts | None:
        """The counts of that split, None when nobody has counted it yet."""
        with self._database.reading() as connection:
            row = connection.execute(
                select(ClassCount.names, ClassCount.counts).where(
                    ClassCount.fingerprint == fingerprint
                )
            ).one_or_none()
        return None if row is None else ClassCounts(tuple(row.names), tuple(row.counts))

    def save_counts(self, fingerprint: str, counts: ClassCounts) -> None:
        """Keeps the counts of that split; when it was counted already, the earlier counts stay, which are the same."""
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
