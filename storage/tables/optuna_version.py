"""What Optuna's tables are called, and which version of them is in a database. What is written into them is elsewhere."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

VERSION_TABLE = "alembic_version"

MADE_BY = "made by search"
"""User attribute of a study in Optuna's tables: one that lacks it is somebody else's."""

OF_STUDIES = ("study_directions", "study_user_attributes", "study_system_attributes")
"""The tables with rows about a study."""

OF_TRIALS = (
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
)
"""The tables with rows about a trial, without the heartbeats, which mean nothing later."""

TABLES = (
    "studies",
    "trials",
    *OF_STUDIES,
    *OF_TRIALS,
    "trial_heartbeats",
    "version_info",
    VERSION_TABLE,
)
"""All of them."""


def optuna_version(connection: Connection) -> str | None:
    """The version of Optuna's tables in the database, None when there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(
        text(f"SELECT version_num FROM {VERSION_TABLE}")
    ).scalar()
    return found
