"""Where a store is: its address, and every mistake in it that shows before anything is opened."""

from __future__ import annotations

import ipaddress
import os
from importlib import import_module
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from spaces.errors import StoreError, nearest

MYSQL_DRIVER = "mysql+pymysql"
DRIVERS = {
    **dict.fromkeys(("sqlite", "sqlite+pysqlite"), "sqlite"),
    **dict.fromkeys(("postgresql", "postgresql+psycopg"), "postgresql+psycopg"),
    **dict.fromkeys(("mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql"), MYSQL_DRIVER),
}
MODULES = {
    "postgresql+psycopg": ("PostgreSQL", "psycopg", "postgresql"),
    MYSQL_DRIVER: ("MySQL or MariaDB", "pymysql", "mysql"),
}
"""Driver → the database's name, the module that it needs, and the extra of this package that installs the module."""

KINDS = "sqlite, postgresql, mysql, mariadb"
ALLOWED = "sqlite:///path/to/file.db, postgresql://user:password@host/database, mysql://user:password@host/database"
HEADER = b"SQLite format 3\0"
HIDDEN = "***"
_NO_STORE = "there is no store there"
_NO_STORE_STEP = "check the address, or start a study, which creates the store"


def parse(url: str) -> URL:
    """The address with our drivers in it and, for SQLite, an absolute path, which a later `chdir` cannot move.

    Raises:
        StoreError: when it is malformed, names another kind of database, one whose driver is not installed, or one in memory.
    """
    parsed = _parsed(url)
    if parsed is None:
        raise StoreError(
            "the store's address is malformed",
            where=safe_url(url),
            allowed=ALLOWED,
            next_step=_repair(url),
        )
    if parsed.drivername not in DRIVERS:
        near = (
            nearest(parsed.drivername, DRIVERS)
            if parsed.drivername.startswith(("sqlite", "postgres", "mysql", "maria"))
            else ""
        )
        what = f"no store can live in a database of the kind {parsed.drivername!r}{near}"
        raise StoreError(
            what,
            where=safe_url(url),
            found=parsed.drivername,
            allowed=KINDS,
            next_step=f"use one of {ALLOWED}",
        )
    parsed = parsed.set(drivername=DRIVERS[parsed.drivername])
    _check_driver(parsed.drivername, safe_url(url))
    if parsed.drivername == MYSQL_DRIVER and not parsed.database:
        raise StoreError(
            "the store's address names no database",
            where=safe_url(url),
            allowed=ALLOWED,
            next_step="write it behind the host",
        )
    return _with_absolute_path(parsed) if parsed.drivername == "sqlite" else parsed


def safe_url(url: str) -> str:
    """The address as it may be shown: without a password, however broken it is. Never raises."""
    parsed = _parsed(url)
    if parsed is None:
        return _masked(url)
    if parsed.drivername.startswith("sqlite") and parsed.password is None:
        return url
    secret = {key: HIDDEN for key in parsed.query if "pass" in key.lower()}
    return (
        parsed.update_query_dict(secret)
        .render_as_string(hide_password=True)
        .replace("%2A%2A%2A", HIDDEN)
    )


def optuna_url(url: str) -> str:
    """The address that Optuna's `RDBStorage` is to be given: the same database through the same driver. It holds the password.

    Raises:
        StoreError: as `parse` does.
    """
    return parse(url).render_as_string(hide_password=False)


def database_file(url: str) -> Path | None:
    """The absolute path of an SQLite database, None for a server.

    Raises:
        StoreError: as `parse` does.
    """
    parsed = parse(url)
    return Path(str(parsed.database)) if parsed.drivername == "sqlite" else None


def dump_command(url: str) -> str:
    """The command that copies a server's database into a file; it asks for the password itself.

    Raises:
        StoreError: as `parse` does.
    """
    parsed = parse(url)
    if parsed.drivername.startswith("postgresql"):
        secret = [name for name in parsed.query if "pass" in name.lower()]
        bare = parsed._replace(drivername="postgresql", password=None).difference_update_query(
            secret
        )  # `set` takes None for: as it is
        return f"pg_dump --format=custom --file=search.dump '{bare.render_as_string()}'"
    options = (("host", parsed.host), ("port", parsed.port), ("user", parsed.username))
    told = " ".join(f"--{name}={value}" for name, value in options if value)
    return f"mysqldump --single-transaction {told} --password {parsed.database} > search.sql"


def check_file(path: Path, where: str, *, create: bool) -> None:
    """Finds what would keep SQLite from using `path`, without touching it.

    Raises:
        StoreError: when the folder is missing, the file is no database, either cannot be written, or, without `create`, is absent.
    """
    try:
        problem = _problem(path, create)
    except OSError as error:  # such as a name that is too long
        problem = ("the store's file cannot be looked at", str(error), "choose another place")
    if problem is not None:
        what, found, next_step = problem
        raise StoreError(what, where=where, found=found, next_step=next_step)


def no_store(where: str, found: str) -> StoreError:
    """The error for a place where a store was expected."""
    return StoreError(_NO_STORE, where=where, found=found, next_step=_NO_STORE_STEP)


def _problem(path: Path, create: bool) -> tuple[str, str, str] | None:
    """What is wrong, what was found, and what to do."""
    folder, exists = path.parent, path.exists()
    if not folder.is_dir():
        return "the store's folder does not exist", f"no folder {folder}", f"mkdir -p {folder}"
    if path.is_dir():
        return (
            "the store's address names a folder, not a file",
            f"folder {path}",
            f"use {path / 'search.db'}",
        )
    if not exists and not create:
        return _NO_STORE, f"no file {path}", _NO_STORE_STEP
    if not _writable(folder):  # SQLite keeps its log beside the file
        return (
            "the store's folder cannot be written",
            f"{folder} is read-only",
            "change its rights, or choose another place",
        )
    if exists and not _writable(path):
        return (
            "the store's file cannot be written",
            f"{path} is read-only",
            "change its rights, or choose another place",
        )
    if exists and not _is_database(path):
        return (
            "the file is not a database",
            f"{path} is not an SQLite 3 file",
            "choose another file, or one that does not exist yet",
        )
    return None


def _check_driver(driver: str, where: str) -> None:
    """Refuse a server whose driver cannot be imported: the drivers are extras, which not everyone installs."""
    if driver not in MODULES:
        return
    database, module, extra = MODULES[driver]
    try:
        import_module(module)
    except ImportError as problem:
        raise StoreError(
            f"a store on {database} needs {module}, which is not installed",
            where=where,
            found=" ".join(str(problem).split()),
            allowed="sqlite:///path/to/file.db, which needs no driver",
            next_step=f"pip install 'imbalance-search[{extra}]'",
        ) from None


def _parsed(url: str) -> URL | None:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        return None
    # An '@' in the password that was not percent-encoded leaves half of it in the host, the database or the query.
    half_a_password = url.count("@") > 1 and not parsed.drivername.startswith("sqlite")
    return None if half_a_password or "\0" in url else parsed


def _masked(url: str) -> str:
    """Whatever may be a secret in an address that cannot be parsed: all before the last '@', after a second ':' and in a query."""
    plain, query = url.partition("?")[0], "?" in url
    scheme, mark, rest = plain.rpartition("://")
    if "@" in url:
        return f"{scheme}{mark}{HIDDEN}@{url.rpartition('@')[2].partition('?')[0]}"
    host, port, _ = rest.partition(":")
    return f"{scheme}{mark}{host}{f':{HIDDEN}' if port else ''}{f'?{HIDDEN}' if query else ''}"


def _repair(url: str) -> str:
    if url.count("@") > 1:
        return "write an '@' in the password as %40"
    return f"write sqlite:///{url}" if url and not set(url) & set(":@?") else "correct the address"


def _with_absolute_path(parsed: URL) -> URL:
    database = parsed.database or ""
    what = ""
    if parsed.host or parsed.username:
        what = "an SQLite address has no host: three slashes come before the path, four before an absolute one"
    elif parsed.query or database.startswith("file:"):
        what = "an SQLite address takes no options"
    elif database in ("", ":memory:"):
        what = "a store must outlive the process, so it cannot live in memory"
    if what:
        raise StoreError(
            what,
            where=parsed.render_as_string(),
            allowed="sqlite:///path/to/file.db",
            next_step="name a file",
        )
    path = (
        Path.home() / database.removeprefix("~/") if database.startswith("~/") else Path(database)
    )
    return parsed.set(database=str(path.absolute()))


def _writable(path: Path) -> bool:
    effective = os.access in os.supports_effective_ids  # not everywhere
    return os.access(path, os.W_OK, effective_ids=effective)


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(len(HEADER))
    except OSError:
        return False
    return head in (b"", HEADER)  # an empty file is an empty database


def bound_to(url: str) -> str:
    """What keeps other machines from the store, in words; empty when nothing does.

    SQLite locks its file by means that network file systems only pretend to have, so its file counts as out of reach
    even where a shared folder shows it.

    Raises:
        StoreError: when the address is malformed.
    """
    parsed = parse(url)
    if parsed.drivername == "sqlite":
        return "SQLite is safe for the processes of one machine only, on a shared folder too"
    hosts = [host for host in (parsed.host, *_listed(parsed.query.get("host"))) if host]
    if all(_is_here(host) for host in hosts):
        return "its address names this machine itself, which is another machine everywhere else"
    return ""


def password(url: str) -> str:
    """The password in the address, empty when there is none.

    Raises:
        StoreError: when the address is malformed.
    """
    parsed = parse(url)
    told = (each for key in ("password", "passwd") for each in _listed(parsed.query.get(key)))
    return str(parsed.password or next(told, ""))


def _listed(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else value


def _is_here(host: str) -> bool:
    """A socket's folder, or a name or an address of the loopback."""
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
