"""The trials that train a configuration of another study again, with a given seed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, select

from spaces.errors import StoreError
from storage.repositories.base import Repository
from storage.rows import ConfirmingTrial, EnqueuedTrial
from storage.tables.models import Study, Trial
from storage.tables.optuna_tables import CONFIRM, trials, user_attributes


class ConfirmationRepository(Repository):
    """Enqueue and read trainings that confirm; Optuna's user attributes record what they repeat."""

    def list_trainings(self, study_id: int) -> list[ConfirmingTrial]:
        """Return the trainings of a study that confirms another one, ordered by number.

        Those that wait are among them. The list is empty for any other study, and where the store
        does not know the version of Optuna's tables.
        """
        with self._database.reading() as connection:
            if not self._optuna.check_version(connection):
                return []
            optuna_id = select(Study.optuna_study_id).where(Study.id == study_id)
            return _read_trainings(connection, connection.execute(optuna_id).scalar() or 0)

    def enqueue_trainings(self, study_id: int, wanted: Sequence[EnqueuedTrial]) -> int:
        """Enqueue the trainings that the study does not have; one that failed is enqueued again.

        Two processes that ask for the same trainings at once enqueue them once.

        Args:
            study_id: of the study that confirms.
            wanted: each with the user attribute `confirm`.

        Returns:
            How many trials the study has now, those that wait included.

        Raises:
            StoreError: when the store does not know the version of Optuna's tables.
        """
        locked = select(Study.optuna_study_id).where(Study.id == study_id).with_for_update()
        with self._database.writing() as connection:
            if not self._optuna.check_version(connection):
                raise StoreError(
                    "Optuna's tables in the store are of a version that cannot be written to",
                    where=self._database.where,
                    next_step="install the version of Optuna that this package requires",
                )
            optuna_id = connection.execute(locked).scalar_one()
            known = {
                (each.of, each.seed_number)
                for each in _read_trainings(connection, optuna_id)
                if not each.is_failed
            }
            missing = [each for each in wanted if _identify(each) not in known]
            self._optuna.enqueue_trials(connection, optuna_id, missing)
            return connection.execute(_COUNT, {"b_study": optuna_id}).scalar_one()

    def count_completed_since(self, study_id: int, companion_id: int) -> int:
        """Count the trials of a study that have completed since its confirmation last began one."""
        latest = (
            select(func.max(Trial.created_at))
            .where(Trial.study_id == companion_id)
            .scalar_subquery()
        )
        later = (
            select(func.count())
            .select_from(Trial)
            .where(
                Trial.study_id == study_id, Trial.state == "complete", Trial.finished_at > latest
            )
        )
        with self._database.reading() as connection:
            return connection.execute(later).scalar_one()


def _identify(trial: EnqueuedTrial) -> tuple[int, int]:
    """The trial that a training repeats, and the number of its seed."""
    attribute = trial.user_attrs[CONFIRM]
    return attribute["of"], attribute["seed_number"]


def _read_trainings(connection: Connection, optuna_study_id: int) -> list[ConfirmingTrial]:
    rows = connection.execute(_TRAININGS, {"b_study": optuna_study_id}).all()
    return [
        ConfirmingTrial(row.number, attribute["of"], attribute["seed_number"], row.state == "FAIL")
        for row in rows
        for attribute in (json.loads(row.value_json),)
    ]


_TRAININGS = (
    select(trials.c.number, trials.c.state, user_attributes.c.value_json)
    .join_from(trials, user_attributes, trials.c.trial_id == user_attributes.c.trial_id)
    .where(trials.c.study_id == bindparam("b_study"), user_attributes.c.key == CONFIRM)
    .order_by(trials.c.number)
)
_COUNT = select(func.count()).select_from(trials).where(trials.c.study_id == bindparam("b_study"))
