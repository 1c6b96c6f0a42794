"""Opens and closes Optuna's storage on the store's database."""

from __future__ import annotations

import re
import time

import optuna
from optuna.storages import RDBStorage

from spaces.errors import StoreError
from storage.database.engines import tune_sqlite
from storage.location import StoreLocation

CREATE_TRIES = 50
CREATED_TWICE = re.compile(
    "already exists|unique constraint|duplicate entry|deadlock found", re.IGNORECASE
)
"""Messages of a database in which another process has just created a table, or its row."""


def open_trials(location: StoreLocation) -> RDBStorage:
    """Open Optuna's storage on the store's database, with the same settings as for our tables.

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
            "Optuna's tables in the store are of another version than the installed Optuna",
            where=location.safe_url,
            found=str(problem).split(" Please")[0],
            next_step="search store migrate, if they are older; otherwise install the newer Optuna",
        ) from None
    tune_sqlite(storage.engine)
    return storage


def _escape_braces(optuna_url: str) -> str:
    """Escape braces in an address, which Optuna would read as a template."""
    return optuna_url.replace("{", "{{").replace("}", "}}")


def open_any_version(location: StoreLocation) -> RDBStorage:
    """Open Optuna's storage on tables of any version, to read that version or to upgrade them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return RDBStorage(
        _escape_braces(location.optuna_url), skip_compatibility_check=True, skip_table_creation=True
    )


def close_trials(storage: RDBStorage) -> None:
    """Close the storage's connections, including pooled ones."""
    storage.remove_session()
    storage.engine.dispose()


def _create_storage(optuna_url: str) -> RDBStorage:
    """Open the storage, and retry when another process creates the tables at the same time.

    Optuna creates them without a lock.
    """
    for _ in range(CREATE_TRIES):
        try:
            return RDBStorage(optuna_url)
        except Exception as problem:  # SQLAlchemy's, with the message of the database
            if not CREATED_TWICE.search(str(problem)):
                raise
            time.sleep(0.1)
    return RDBStorage(optuna_url)
