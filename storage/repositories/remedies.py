"""The trials that try another trial's remedy, and those that a sampler suggests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, select

from storage.repositories.base import Repository
from storage.rows import SuggestedRemedies, TriedRemedy
from storage.tables.models import Study, Trial
from storage.tables.optuna_tables import REMEDY, OptunaTables, has_waiting, trials, user_attributes


class RemedyRepository(Repository):
    """Read which trials try a remedy; Optuna's user attributes record it."""

    def list_tried(self, study_id: int) -> list[TriedRemedy]:
        """Return the trials of a study that try a remedy or wait to, ordered by number.

        They are unknown, so that the list is empty, where the store does not know the version of
        Optuna's tables.
        """
        with self._database.reading() as connection:
            if not self._optuna.check_version(connection):
                return []
            optuna_id = select(Study.optuna_study_id).where(Study.id == study_id)
            return _read_tried(connection, connection.execute(optuna_id).scalar() or 0)

    def has_enqueued(self, study_id: int) -> bool:
        """Whether a configuration is enqueued: a preset, or a remedy that someone asked for.

        It is false where the store does not know the version of Optuna's tables.
        """
        with self._database.reading() as connection:
            if not self._optuna.check_version(connection):
                return False
            optuna_id = select(Study.optuna_study_id).where(Study.id == study_id)
            return has_waiting(connection, connection.execute(optuna_id).scalar() or 0)

    def may_try_new(self, study_id: int) -> bool:
        """Whether the next claim may try a remedy: no trial was released, and nothing is enqueued.

        That is cheap, and may have changed when the trial is claimed. It is false where the store
        does not know the version of Optuna's tables.
        """
        paused = select(Trial.id).where(
            Trial.study_id == study_id, Trial.state == "paused", Trial.awaits_promotion == 0
        )
        with self._database.reading() as connection:
            if not self._optuna.check_version(connection):
                return False
            if connection.execute(paused.limit(1)).first() is not None:
                return False
            optuna_id = select(Study.optuna_study_id).where(Study.id == study_id)
            return not has_waiting(connection, connection.execute(optuna_id).scalar() or 0)


def enqueue_suggested(
    connection: Connection,
    optuna: OptunaTables,
    optuna_study_id: int,
    suggested: SuggestedRemedies,
) -> None:
    """Enqueue the first suggested remedy that no trial tries, unless some trial waits already.

    The caller has locked the study, so that of several workers only one enqueues a remedy.
    """
    if not optuna.check_version(connection) or has_waiting(connection, optuna_study_id):
        return
    tried = _read_tried(connection, optuna_study_id)
    if sum(each.by_sampler for each in tried) >= suggested.most:
        return
    for trial in suggested.trials:
        own = _make_tried(0, trial.user_attrs[REMEDY])
        if not any(own.is_same_remedy(each) for each in tried):
            optuna.enqueue_trials(connection, optuna_study_id, [trial])
            return


def _read_tried(connection: Connection, optuna_study_id: int) -> list[TriedRemedy]:
    rows = connection.execute(_TRIED, {"b_study": optuna_study_id}).all()
    return [_make_tried(row.number, json.loads(row.value_json)) for row in rows]


def _make_tried(number: int, recorded: Mapping[str, Any]) -> TriedRemedy:
    return TriedRemedy(
        number,
        recorded["of"],
        recorded.get("choice"),
        recorded.get("title", ""),
        recorded.get("cause", ""),
        recorded.get("by_sampler", False),
    )


_TRIED = (
    select(trials.c.number, user_attributes.c.value_json)
    .join_from(trials, user_attributes, trials.c.trial_id == user_attributes.c.trial_id)
    .where(trials.c.study_id == bindparam("b_study"), user_attributes.c.key == REMEDY)
    .order_by(trials.c.number)
)
