"""Optuna's storage on the store's database: opened, made where it is new, and closed."""

from __future__ import annotations

import re
import time

import optuna
from optuna.storages import RDBStorage

from spaces.errors import StoreError
from storage.database.engine import tune
from storage.database.url import optuna_url, safe_url

MAKING_TRIES = 50
MADE_TWICE = re.compile(
    "already exists|unique constraint|duplicate entry|deadlock found", re.IGNORECASE
)
"""What a database says when another process was faster in making a table, or its row."""


def open_trials(url: str) -> RDBStorage:
    """Optuna's storage on the store's database, tuned as our own tables are."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = _with_tables(_without_templates(optuna_url(url)))
    except RuntimeError as problem:
        if "no longer compatible" not in str(problem):
            raise
        raise StoreError(
            "Optuna's tables in the store are of another version than the Optuna that is installed",
            where=safe_url(url),
            found=str(problem).split(" Please")[0],
            next_step="search store migrate, if they are older; else install that newer Optuna",
        ) from None
    tune(storage.engine)
    return storage


def _without_templates(url: str) -> str:
    """Optuna takes braces in an address for a template of its own."""
    return url.replace("{", "{{").replace("}", "}}")


def any_version(url: str) -> RDBStorage:
    """Optuna's storage on tables of whatever version, to be asked for it, or to upgrade them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return RDBStorage(
        _without_templates(optuna_url(url)), skip_compatibility_check=True, skip_table_creation=True
    )


def close_trials(storage: RDBStorage) -> None:
    """Close its connections, the pooled ones as well."""
    storage.remove_session()
    storage.engine.dispose()


def _with_tables(url: str) -> RDBStorage:
    """Optuna makes its tables without a lock: when two processes do so at once, one fails, and has to ask again."""
    for _ in range(MAKING_TRIES):
        try:
            return RDBStorage(url)
        except Exception as problem:  # of SQLAlchemy, in the words of either database
            if not MADE_TWICE.search(str(problem)):
                raise
            time.sleep(0.1)
    return RDBStorage(url)
