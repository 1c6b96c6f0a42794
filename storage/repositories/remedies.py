"""The trials that try another trial's remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, select

from storage.repositories.base import Repository
from storage.rows import TriedRemedy
from storage.tables.optuna import REMEDY, trials, user_attributes


class RemedyRepository(Repository):
    """Read which trials try a remedy; Optuna's user attributes record it."""

    def list_tried(self, optuna_study_id: int) -> list[TriedRemedy]:
        """Return the trials of a study that try a remedy or wait to, ordered by number.

        They are unknown, so that the list is empty, where the store does not know the version of
        Optuna's tables.
        """
        with self._database.reading() as connection:
            if not self._optuna.check_version(connection):
                return []
            return read_tried(connection, optuna_study_id)


def read_tried(connection: Connection, optuna_study_id: int) -> list[TriedRemedy]:
    """Read the trials that try a remedy or wait to, within a transaction."""
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
