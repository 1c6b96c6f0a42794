"""Parse a store's URL, report every mistake in it before connecting, and show it safely."""

from __future__ import annotations

import ipaddress
from importlib import import_module
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from spaces.errors import StoreError, nearest

MYSQL_DRIVER = "mysql+pymysql"
POSTGRESQL_DRIVER = "postgresql+psycopg"
DRIVERS = {
    **dict.fromkeys(("sqlite", "sqlite+pysqlite"), "sqlite"),
    **dict.fromkeys(("postgresql", POSTGRESQL_DRIVER), POSTGRESQL_DRIVER),
    **dict.fromkeys(("mysql", MYSQL_DRIVER, "mariadb", "mariadb+pymysql"), MYSQL_DRIVER),
}
MODULES = {
    POSTGRESQL_DRIVER: ("PostgreSQL", "psycopg", "postgresql"),
    MYSQL_DRIVER: ("MySQL or MariaDB", "pymysql", "mysql"),
}
"""Driver → the database's name, the module to import, and the extra of this package with it."""

KINDS = "sqlite, postgresql, mysql, mariadb"
SQLITE_EXAMPLE = "sqlite:///path/to/file.db"
ALLOWED = (
    f"{SQLITE_EXAMPLE}, postgresql://user:password@host/database, "
    "mysql://user:password@host/database"
)
HIDDEN = "***"


def parse_url(text: str) -> URL:
    """Parse a store's URL, with our driver and, for SQLite, an absolute path.

    The path is absolute so that a later `chdir` does not change it.

    Raises:
        StoreError: when the URL is malformed, or names an unsupported kind of database, a database
            in memory, or one whose driver is not installed.
    """
    parsed = _parse_or_none(text)
    safe_url = hide_password(text)
    if parsed is None:
        raise StoreError(
            "the store's URL is malformed",
            where=safe_url,
            allowed=ALLOWED,
            next_step=_suggest_repair(text),
        )
    if parsed.drivername not in DRIVERS:
        raise StoreError(
            f"a store cannot be in a database of the kind {_with_nearest(parsed.drivername)}",
            where=safe_url,
            found=parsed.drivername,
            allowed=KINDS,
            next_step=f"use one of {ALLOWED}",
        )
    parsed = parsed.set(drivername=DRIVERS[parsed.drivername])
    if parsed.drivername == "sqlite":
        return _make_absolute(parsed)
    _check_driver(parsed.drivername, safe_url)
    if parsed.drivername == MYSQL_DRIVER and not parsed.database:
        raise StoreError(
            "the store's URL names no database",
            where=safe_url,
            allowed=ALLOWED,
            next_step="write it after the host",
        )
    return parsed


def hide_password(text: str) -> str:
    """Return a URL without its password, even if the URL is malformed. Never raises."""
    parsed = _parse_or_none(text)
    if parsed is None:
        return _mask_secrets(text)
    if parsed.drivername.startswith("sqlite") and parsed.password is None:
        return text
    secrets = dict.fromkeys(_secret_options(parsed), HIDDEN)
    shown = parsed.update_query_dict(secrets).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", HIDDEN)


def find_sqlite_file(url: URL) -> Path | None:
    """Return the absolute path of an SQLite database, None for a server."""
    return Path(str(url.database)) if url.drivername == "sqlite" else None


def find_password(url: URL) -> str:
    """Return the password in a URL, empty when it has none."""
    options = ("password", "passwd")
    given = [value for option in options for value in _option_values(url, option)]
    return str(url.password or next(iter(given), ""))


def make_dump_command(url: URL) -> str:
    """Make the command that dumps a server's database to a file; it prompts for the password."""
    if url.drivername == POSTGRESQL_DRIVER:
        # `URL.set(password=None)` would leave the password as it is.
        bare = url._replace(drivername="postgresql", password=None)
        bare = bare.difference_update_query(_secret_options(url))
        return f"pg_dump --format=custom --file=search.dump '{bare.render_as_string()}'"
    options = (("host", url.host), ("port", url.port), ("user", url.username))
    given = " ".join(f"--{name}={value}" for name, value in options if value)
    return f"mysqldump --single-transaction {given} --password {url.database} > search.sql"


def explain_local_only(url: URL) -> str:
    """Explain why other machines cannot use the database; empty when they can.

    SQLite relies on file locks that network file systems do not implement reliably, so its file
    counts as local even in a shared folder.
    """
    if url.drivername == "sqlite":
        return "SQLite is safe for the processes of one machine only, on a shared folder too"
    hosts = [host for host in (url.host, *_option_values(url, "host")) if host]
    if all(_is_loopback(host) for host in hosts):
        return "its URL names this machine itself, which is another machine everywhere else"
    return ""


def _with_nearest(drivername: str) -> str:
    """The name in quotes, with the driver that was probably meant."""
    known = ("sqlite", "postgres", "mysql", "maria")
    hint = nearest(drivername, DRIVERS) if drivername.startswith(known) else ""
    return f"{drivername!r}{hint}"


def _check_driver(driver: str, safe_url: str) -> None:
    """Refuse a server whose driver cannot be imported: the drivers are optional extras."""
    database, module, extra = MODULES[driver]
    try:
        import_module(module)
    except ImportError as problem:
        raise StoreError(
            f"a store on {database} needs {module}, which is not installed",
            where=safe_url,
            found=" ".join(str(problem).split()),
            allowed=f"{SQLITE_EXAMPLE}, which needs no driver",
            next_step=f"pip install 'imbalance-search[{extra}]'",
        ) from None


def _parse_or_none(text: str) -> URL | None:
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: a port that is not a number
        return None
    # A password with an '@' that is not percent-encoded leaks into the host, database or query.
    split_password = text.count("@") > 1 and not parsed.drivername.startswith("sqlite")
    return None if split_password or "\0" in text else parsed


def _mask_secrets(text: str) -> str:
    """Hide whatever may be a secret in a URL that cannot be parsed.

    That is: all before the last '@', after a second ':', and in the query.
    """
    plain, question, _ = text.partition("?")
    scheme, mark, rest = plain.rpartition("://")
    if "@" in text:
        return f"{scheme}{mark}{HIDDEN}@{text.rpartition('@')[2].partition('?')[0]}"
    host, _, port = rest.partition(":")
    shown_port = f":{HIDDEN}" if port else ""
    shown_query = f"?{HIDDEN}" if question else ""
    return f"{scheme}{mark}{host}{shown_port}{shown_query}"


def _suggest_repair(text: str) -> str:
    if text.count("@") > 1:
        return "write an '@' in the password as %40"
    is_path = bool(text) and not set(text) & set(":@?")
    return f"write sqlite:///{text}" if is_path else "correct the URL"


def _make_absolute(url: URL) -> URL:
    database = url.database or ""
    problem = _sqlite_problem(url, database)
    if problem:
        raise StoreError(
            problem,
            where=url.render_as_string(),
            allowed=SQLITE_EXAMPLE,
            next_step="name a file",
        )
    path = Path(database)
    if database.startswith("~/"):
        path = Path.home() / database.removeprefix("~/")
    return url.set(database=str(path.absolute()))


def _sqlite_problem(url: URL, database: str) -> str:
    if url.host or url.username:
        return (
            "an SQLite URL has no host: three slashes come before the path, "
            "four before an absolute one"
        )
    if url.query or database.startswith("file:"):
        return "an SQLite URL takes no options"
    if database in ("", ":memory:"):
        return "a store must outlive the process, so it cannot be in memory"
    return ""


def _secret_options(url: URL) -> list[str]:
    """Options of the query that have a password."""
    return [name for name in url.query if "pass" in name.lower()]


def _option_values(url: URL, name: str) -> tuple[str, ...]:
    """Every value of an option of the query, which may be repeated."""
    value = url.query.get(name, ())
    return (value,) if isinstance(value, str) else value


def _is_loopback(host: str) -> bool:
    """Whether this is the folder of a socket, or a name or address of the loopback interface."""
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
