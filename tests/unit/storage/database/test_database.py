"""Timeouts for a server that stopped responding without closing its connections."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from storage.database.engines import SERVER_TIMEOUTS, _set_socket_timeouts


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option of TCP"
)
def test_options() -> None:
    """MySQL's socket gets the timeouts that libpq has options for."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        _set_socket_timeouts(SimpleNamespace(_sock=client), None)
        found = {
            name: client.getsockopt(socket.IPPROTO_TCP, option)
            for name, option in (
                ("keepalives_idle", socket.TCP_KEEPIDLE),
                ("keepalives_interval", socket.TCP_KEEPINTVL),
                ("keepalives_count", socket.TCP_KEEPCNT),
                ("tcp_user_timeout", socket.TCP_USER_TIMEOUT),
            )
        }
        assert found == SERVER_TIMEOUTS


def test_no_network() -> None:
    """A connection through a Unix socket gets none of them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        _set_socket_timeouts(SimpleNamespace(_sock=ours), None)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
