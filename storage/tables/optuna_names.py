"""Names of Optuna's tables, and the version of them in a database."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

VERSION_TABLE = "alembic_version"

MADE_BY = "made by search"
"""User attribute of every study that this program created in Optuna's tables."""

OF_STUDIES = ("study_directions", "study_user_attributes", "study_system_attributes")
"""Tables with rows of a study."""

OF_TRIALS = (
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
)
"""Tables with rows of a trial, except heartbeats, which mean nothing later."""

TABLES = (
    "studies",
    "trials",
    *OF_STUDIES,
    *OF_TRIALS,
    "trial_heartbeats",
    "version_info",
    VERSION_TABLE,
)
"""All of Optuna's tables."""


def optuna_version(connection: Connection) -> str | None:
    """Read the version of Optuna's tables in the database, None when it has none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(
        text(f"SELECT version_num FROM {VERSION_TABLE}")
    ).scalar()
    return found
