"""Translate database failures into our errors: what failed and what to do, without a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    PendingRollbackError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from spaces.errors import StoreBusyError, StoreDamagedError, StoreError, StoreUnreachableError

CREATE_STEP = (
    "CREATE DATABASE name CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, or check the name in the URL"
)

_KNOWN = (
    # part of the driver's message, what it means, what to do
    (
        "password authentication failed",
        "the server refused the password",
        "check user and password in the URL",
    ),
    (
        "no password supplied",
        "the server requires a password",
        "write it in the URL, or in ~/.pgpass",
    ),
    (
        "permission denied",
        "the user lacks a permission",
        "grant it to the user, or use another user",
    ),
    ('role "', "the server does not accept the user", "check the user in the URL"),
    (
        "database is locked",
        "the store was busy for too long",
        "look for a process that keeps it locked, or use PostgreSQL for many workers",
    ),
    ("disk is full", "the disk is full", "free some space; nothing was written in part"),
    ("No space left", "the disk is full", "free some space; nothing was written in part"),
    (
        "readonly database",
        "the store cannot be written",
        "change the permissions of the file and its folder, or choose another place",
    ),
    (
        "unable to open database file",
        "the store's file cannot be opened",
        "check that its folder can be written, or choose another place",
    ),
    ("not a database", "the file is not a database", "choose another file"),
    (
        "malformed",
        "the database is damaged",
        "restore it from a copy, or recover it with `sqlite3 FILE .recover`",
    ),
    (
        "Access denied for user",
        "the server does not accept the user",
        "check user and password in the URL, and the user's permissions",
    ),
    (
        "command denied to user",
        "the user lacks a permission",
        "grant it to the user, or use another user",
    ),
    ("Unknown database", "the server has no such database", CREATE_STEP),
    (
        'database "',
        "the server has no such database",
        "create it with `createdb`, or check the name in the URL",
    ),
)
BUSY_STATES = ("40001", "40P01", "55P03")
"""PostgreSQL: could not serialize, deadlock, lock not available."""

AWAY_STATES = ("08", "57P", "53300")
"""PostgreSQL, as prefixes: connection failed, server stops or starts, too many connections."""

BUSY_CODES = (1205, 1213)
"""MySQL: lock wait timeout, deadlock."""

AWAY_CODES = (1040, 1053, 1152, 1184, 1203, 2002, 2003, 2006, 2013, 2055, 4031)
"""MySQL: too many connections, server shutdown, connection refused or lost."""

AWAY_WORDS = (
    "not currently accepting connections",
    "is starting up",
    "is shutting down",
    "in recovery mode",
)
"""PostgreSQL, while a connection is made; these errors have no state."""

_DATABASE_ERRORS = (DBAPIError, PoolTimeoutError, PendingRollbackError)
"""The last one is raised when a connection is cut while the transaction is rolled back."""

_UNREACHABLE = (
    "the store cannot be reached",
    "check that the server runs, and host and port in the URL",
)
_BUSY = ("another transaction was in the way", "try again")
_FAILED = ("the store failed", "look at `found`; the transaction was rolled back")


@contextmanager
def translate_errors(where: str, password: str | None) -> Iterator[None]:
    """Raise the database's errors as ours.

    Args:
        where: URL of the store, without the password.
        password: removed from messages of the database.

    Raises:
        StoreError: for every error of the database or its driver except a violated constraint. It
            is a StoreUnreachableError when the database does not answer, and a StoreBusyError when
            another transaction was in the way.
        TypeError: for a value that cannot be stored, such as a tensor in a record.
    """
    try:
        yield
    except IntegrityError:
        raise
    except _DATABASE_ERRORS as error:
        raise _translate_error(error, where, password) from error
    except StatementError as error:
        if isinstance(error.orig, TypeError):
            raise error.orig from None
        raise


def is_database_error(problem: BaseException) -> bool:
    """Whether another library's exception comes from the database."""
    return isinstance(problem, _DATABASE_ERRORS) or isinstance(problem.__cause__, _DATABASE_ERRORS)


def as_store_error(where: str, problem: BaseException) -> StoreError:
    """Translate an exception for which `is_database_error` is true.

    Args:
        where: URL of the store, without the password.
    """
    error = problem if isinstance(problem, SQLAlchemyError) else problem.__cause__
    assert isinstance(error, SQLAlchemyError)
    return _translate_error(error, where, None)


def _translate_error(error: SQLAlchemyError, where: str, password: str | None) -> StoreError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    found = " ".join(str(cause).split())
    known = _find_known(found)
    kind = _choose_kind(error, found, is_known=known is not None)
    defaults = {StoreError: _FAILED, StoreBusyError: _BUSY}
    what, next_step = known or defaults.get(kind, _UNREACHABLE)
    shown = found.replace(password, "***") if password else found
    return kind(what, where=where, found=shown, next_step=next_step)


def _find_known(found: str) -> tuple[str, str] | None:
    """What a message of the database means, and what to do; None for an unknown one."""
    if any(words in found for words in AWAY_WORDS):
        return None
    return next(((what, step) for needle, what, step in _KNOWN if needle in found), None)


def _choose_kind(error: SQLAlchemyError, found: str, *, is_known: bool) -> type[StoreError]:
    """Whether to retry immediately, to retry later, or not at all.

    Args:
        is_known: whether the user has to fix something first.
    """
    if not isinstance(error, DBAPIError):
        return StoreUnreachableError  # all connections are in use, or this one was cut
    state = getattr(error.orig, "sqlstate", None) or ""
    code = next(iter(getattr(error.orig, "args", ())), None)
    if state in BUSY_STATES or code in BUSY_CODES or "database is locked" in found:
        return StoreBusyError
    if is_known:
        return StoreDamagedError if "malformed" in found else StoreError
    is_away = state.startswith(AWAY_STATES) or code in AWAY_CODES or error.connection_invalidated
    return StoreUnreachableError if is_away or error.statement is None else StoreError
