"""Optuna's storage on the store's database: opened, made where it is new, and closed."""

from __future__ import annotations

import re
import time

import optuna
from optuna.storages import RDBStorage

from spaces.errors import StoreError
from storage.database.engine import tune
from storage.location import StoreLocation

MAKING_TRIES = 50
MADE_TWICE = re.compile(
    "already exists|unique constraint|duplicate entry|deadlock found", re.IGNORECASE
)
"""What a database says when another process was faster in making a table, or its row."""


def open_trials(location: StoreLocation) -> RDBStorage:
    """Open Optuna's storage on the store's database, with the settings that our own tables have.

    Raises:
        StoreError: when Optuna's tables are of another version than the installed Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = _create_storage(_escape_braces(location.optuna_url))
    except RuntimeError as problem:
        if "no longer compatible" not in str(problem):
            raise
        raise StoreError(
            "Optuna's tables in the store are of another version than the Optuna that is installed",
            where=location.safe_url,
            found=str(problem).split(" Please")[0],
            next_step="search store migrate, if they are older; else install that newer Optuna",
        ) from None
    tune(storage.engine)
    return storage


def _escape_braces(optuna_url: str) -> str:
    """Escape what Optuna would take for a template of its own."""
    return optuna_url.replace("{", "{{").replace("}", "}}")


def any_version(location: StoreLocation) -> RDBStorage:
    """Open Optuna's storage on tables of any version, to read that version or to upgrade them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return RDBStorage(
        _escape_braces(location.optuna_url),
        skip_compatibility_check=True,
        skip_table_creation=True,
    )


def close_trials(storage: RDBStorage) -> None:
    """Close its connections, the pooled ones as well."""
    storage.remove_session()
    storage.engine.dispose()


def _create_storage(optuna_url: str) -> RDBStorage:
    """Create Optuna's tables and retry: without a lock, one of two simultaneous processes fails."""
    for _ in range(MAKING_TRIES):
        try:
            return RDBStorage(optuna_url)
        except Exception as problem:  # SQLAlchemy's, with the message of any database
            if not MADE_TWICE.search(str(problem)):
                raise
            time.sleep(0.1)
    return RDBStorage(optuna_url)
