"""What a database says when it fails, in words that help; never with a password in them."""

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

from spaces.errors import StoreBusyError, StoreError, StoreUnreachableError

DATABASE_STEP = "CREATE DATABASE name CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, or check the name in the address"

_KNOWN = (
    # what the driver says → what it means, what to do
    (
        "password authentication failed",
        "the server refused the password",
        "check user and password in the address",
    ),
    (
        "no password supplied",
        "the server wants a password",
        "write it in the address, or in ~/.pgpass",
    ),
    ("permission denied", "that user may not do this", "grant it the right, or use another user"),
    ('role "', "the server does not let that user in", "check the user in the address"),
    (
        "database is locked",
        "the store was busy for too long",
        "look for a process that holds it open, or use PostgreSQL for many workers",
    ),
    ("disk is full", "the disk is full", "make room; nothing was written in part"),
    ("No space left", "the disk is full", "make room; nothing was written in part"),
    (
        "readonly database",
        "the store cannot be written",
        "change the rights of the file and its folder, or choose another place",
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
        "restore it from a copy, or rescue it with `sqlite3 FILE .recover`",
    ),
    (
        "Access denied for user",
        "the server does not let that user in",
        "check user and password in the address, and the user's rights",
    ),
    (
        "command denied to user",
        "that user may not do this",
        "grant it the right, or use another user",
    ),
    ("Unknown database", "the server has no such database", DATABASE_STEP),
    (
        'database "',
        "the server has no such database",
        "create it with `createdb`, or check the name in the address",
    ),
)
BUSY_STATES = ("40001", "40P01", "55P03")
"""PostgreSQL: could not serialize, deadlock, lock not available."""

AWAY_STATES = ("08", "57P", "53300")
"""PostgreSQL, how they begin: connection failed, the server stops or starts, too many connections."""

BUSY_CODES = (1205, 1213)
"""MySQL: waited too long for a lock, deadlock."""

AWAY_CODES = (1040, 1053, 1152, 1184, 1203, 2002, 2003, 2006, 2013, 2055, 4031)
"""MySQL: too many connections, the server stops, it cannot be connected to, or the connection was lost."""

AWAY_WORDS = (
    "not currently accepting connections",
    "is starting up",
    "is shutting down",
    "in recovery mode",
)
"""PostgreSQL, to whoever wants to connect, which gives no state."""

_FAULTS = (DBAPIError, PoolTimeoutError, PendingRollbackError)
"""The last one comes of a transaction whose connection was cut while its failure was on the way up."""

_UNREACHABLE = (
    "the store cannot be reached",
    "check that the server runs, and host and port in the address",
)
_BUSY = ("another transaction was in the way", "try the same again")
_FAILED = ("the store failed", "look at `found`; the transaction was undone")


@contextmanager
def spoken(where: str, password: str | None) -> Iterator[None]:
    """Turns a failure of the database into one message.

    Raises:
        StoreError: for whatever the database or its driver refuses, but not for a broken constraint. It is a
            StoreUnreachableError when the database does not answer, and a StoreBusyError when another transaction was in the way.
        TypeError: for a value that cannot be written, such as a tensor among the numbers of a record.
    """
    try:
        yield
    except IntegrityError:
        raise
    except _FAULTS as error:
        raise _fault(error, where, password) from error
    except StatementError as error:
        if isinstance(error.orig, TypeError):
            raise error.orig from None
        raise


def _fault(error: SQLAlchemyError, where: str, password: str | None) -> StoreError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    found = " ".join(str(cause).split())
    away = any(words in found for words in AWAY_WORDS)
    known = (
        None
        if away
        else next(((what, step) for needle, what, step in _KNOWN if needle in found), None)
    )
    kind = _kind(error, found, refused=known is not None)
    what, next_step = known or {StoreError: _FAILED, StoreBusyError: _BUSY}.get(kind, _UNREACHABLE)
    return kind(
        what,
        where=where,
        found=found.replace(password, "***") if password else found,
        next_step=next_step,
    )


def _kind(error: SQLAlchemyError, found: str, *, refused: bool) -> type[StoreError]:
    """Whether the same may succeed at once, or later; `refused` is what somebody has to mend first."""
    if not isinstance(error, DBAPIError):
        return StoreUnreachableError  # all connections are in use, or the one at hand was cut
    state, code = (
        getattr(error.orig, "sqlstate", None) or "",
        next(iter(getattr(error.orig, "args", ())), None),
    )
    if state in BUSY_STATES or code in BUSY_CODES or "database is locked" in found:
        return StoreBusyError
    if refused:
        return StoreError
    away = state.startswith(AWAY_STATES) or code in AWAY_CODES or error.connection_invalidated
    return StoreUnreachableError if away or error.statement is None else StoreError


def is_fault(problem: BaseException) -> bool:
    """Whether an exception of another library on the same database comes from the database."""
    return isinstance(problem, _FAULTS) or isinstance(problem.__cause__, _FAULTS)


def store_error(where: str, problem: BaseException) -> StoreError:
    """Such an exception in our words; `where` is the address without a password."""
    error = problem if isinstance(problem, SQLAlchemyError) else problem.__cause__
    assert isinstance(error, SQLAlchemyError)
    return _fault(error, where, None)
