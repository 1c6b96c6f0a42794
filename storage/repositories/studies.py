"""The studies of a store, and the definition that each was started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from spaces.errors import StoreError
from storage.database.database import now
from storage.repositories.base import Repository
from storage.repositories.rate_probes import read_probe
from storage.rows import EnqueuedTrial, StoredStudy
from storage.tables.models import Study, Trial


class StudyRepository(Repository):
    """Register, find and redefine studies."""

    def register_study(
        self,
        optuna_study_id: int,
        name: str,
        definition: Mapping[str, Any],
        enqueued: Sequence[EnqueuedTrial] = (),
    ) -> StoredStudy:
        """Register a study, or return the one that another process registered first.

        The caller compares the definition of the returned study with its own.

        Args:
            enqueued: enqueued only by the process that registers the study. Requires
                `Store.knows_optuna`.

        Raises:
            StoreError: when the name is registered with another study of Optuna's, or the study
                under another name.
        """
        values = {
            "optuna_study_id": optuna_study_id,
            "name": name,
            "definition": definition,
            "created_at": now(),
        }
        try:
            with self._database.writing() as connection:
                connection.execute(insert(Study).values(values))
                if enqueued:
                    self._optuna.enqueue_trials(connection, optuna_study_id, enqueued)
        except IntegrityError:
            pass  # another process was faster
        stored = self.find_study(name)
        if stored is None or stored.optuna_study_id != optuna_study_id:
            found = f"Optuna's study {optuna_study_id} under another name"
            if stored is not None:
                found = f"Optuna's study {stored.optuna_study_id} under that name"
            raise StoreError(
                f"study {name!r} conflicts with a stored one",
                where=self._database.where,
                found=found,
                next_step="choose another name",
            )
        return stored

    def redefine_study(self, study_id: int, definition: Mapping[str, Any]) -> None:
        """Replace the definition of a study, after the user accepted the change."""
        with self._database.writing() as connection:
            connection.execute(
                update(Study).where(Study.id == study_id).values(definition=definition)
            )

    def forget_untried(self, study_id: int) -> bool:
        """Delete a study if none of its trials was ever bound.

        Returns:
            Whether it was deleted.
        """
        with self._database.writing() as connection:
            tried = (
                select(func.count())
                .select_from(Trial)
                .where(Trial.study_id == study_id, Trial.config.is_not(None))
            )
            if connection.execute(tried).scalar_one():
                return False
            connection.execute(delete(Trial).where(Trial.study_id == study_id))
            connection.execute(delete(Study).where(Study.id == study_id))
        return True

    def find_study(self, name: str) -> StoredStudy | None:
        """Find a study by its name, None when there is none."""
        with self._database.reading() as connection:
            row = connection.execute(_select_studies().where(Study.name == name)).one_or_none()
        return None if row is None else _make_study(row)

    def list_studies(self) -> list[StoredStudy]:
        """Return every study, the oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(_select_studies().order_by(Study.id)).all()
        return [_make_study(row) for row in rows]


def _select_studies() -> Select[int, int, str, Any, float, Any]:
    return select(
        Study.id,
        Study.optuna_study_id,
        Study.name,
        Study.definition,
        Study.created_at,
        Study.rate_probe,
    )


def _make_study(row: Row[int, int, str, Any, float, Any]) -> StoredStudy:
    number, optuna_study_id, name, definition, created_at, probe = row
    return StoredStudy(number, optuna_study_id, name, definition, created_at, read_probe(probe))
