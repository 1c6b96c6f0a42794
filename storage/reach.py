"""From where a store can be used: some stand on one machine only, whatever machines would like to share them."""

from __future__ import annotations

import ipaddress

from storage.address import parse


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
