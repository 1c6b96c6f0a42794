"""The studies of a store, and what each was started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from spaces.errors import StoreError
from storage.database.engine import now
from storage.repositories.base import Repository
from storage.rows import StoredStudy, Waiting
from storage.tables.models import Study, Trial


class StudyRepository(Repository):
    """Registering, finding and redefining studies."""

    def register_study(
        self,
        optuna_study_id: int,
        name: str,
        definition: Mapping[str, Any],
        waiting: Sequence[Waiting] = (),
    ) -> StoredStudy:
        """The study under that name; the first of any number of processes stores the definition, the others find it.

        Whether the definition found is the one given is for the caller to compare. What is `waiting` to be tried is
        enqueued by the first one alone; the store must know Optuna's tables then.

        Raises:
            StoreError: when the name, or Optuna's study, is registered already, but not with each other.
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
                if waiting:
                    self._optuna.enqueue(connection, optuna_study_id, waiting)
        except IntegrityError:
            pass  # somebody was faster
        stored = self.find_study(name)
        if stored is None or stored.optuna_study_id != optuna_study_id:
            found = (
                f"Optuna's study {optuna_study_id} under another name"
                if stored is None
                else f"Optuna's study {stored.optuna_study_id} under that name"
            )
            raise StoreError(
                f"the study {name!r} clashes with a stored one",
                where=self._database.where,
                found=found,
                next_step="choose another name",
            )
        return stored

    def redefine_study(self, study_id: int, definition: Mapping[str, Any]) -> None:
        """Replaces the definition, once somebody has said that the change is meant."""
        with self._database.writing() as connection:
            connection.execute(
                update(Study).where(Study.id == study_id).values(definition=definition)
            )

    def forget_untried(self, study_id: int) -> bool:
        """Removes a study none of whose trials was ever bound. False, and nothing is removed, when one was."""
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
        """The study of that name, None when there is none."""
        with self._database.reading() as connection:
            row = connection.execute(_studies().where(Study.name == name)).one_or_none()
        return None if row is None else _stored(row)

    def list_studies(self) -> list[StoredStudy]:
        """Every study, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(_studies().order_by(Study.id)).all()
        return [_stored(row) for row in rows]


def _studies() -> Select[int, int, str, Any, float]:
    return select(Study.id, Study.optuna_study_id, Study.name, Study.definition, Study.created_at)


def _stored(row: Row[int, int, str, Any, float]) -> StoredStudy:
    return StoredStudy(*row)
