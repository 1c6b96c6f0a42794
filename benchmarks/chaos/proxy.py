"""A proxy between workers and server that can cut a connection between a commit and its answer.

The client that sent that commit cannot know whether it took place. It did.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

CHUNK = 65536
ANSWER_S = 5.0
"""How long a commit may take at the server."""

WAIT_S = 2.0
"""How long a request waits for a commit to come by."""

_SOCKET = ".s.PGSQL.5432"
_COMMIT = b"COMMIT\x00"


class Proxy:
    """A PostgreSQL server's Unix socket, in another folder.

    Args:
        url: the server's address, with the folder of its socket as `host`.
        folder: for our own socket.
    """

    def __init__(self, url: str, folder: Path) -> None:
        parts = urlsplit(url)
        self._upstream = str(Path(parse_qs(parts.query)["host"][0]) / _SOCKET)
        self.url = urlunsplit(parts._replace(query=f"host={folder}"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / _SOCKET))
        self._listener.listen(128)
        self._armed, self._lost = threading.Event(), threading.Event()

    @property
    def armed(self) -> bool:
        """Whether the next commit's answer will be lost."""
        return self._armed.is_set()

    def lose_an_answer(self) -> bool:
        """Let the next commit succeed but lose its answer. False if there is no commit."""
        self._lost.clear()
        self._armed.set()
        happened = self._lost.wait(WAIT_S)
        self._armed.clear()
        return happened

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._pass_on, args=(client,), daemon=True, name="proxy"
            ).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._upstream)
            ends = {client: server, server: client}
            while True:
                for source in select.select(list(ends), [], [])[0]:
                    data = source.recv(CHUNK)
                    if not data:
                        return
                    ends[source].sendall(data)
                    if source is client and data.endswith(_COMMIT) and self._loses():
                        server.settimeout(ANSWER_S)
                        server.recv(CHUNK)
                        self._lost.set()
                        return

    def _loses(self) -> bool:
        if not self._armed.is_set():
            return False
        self._armed.clear()
        return True


@contextmanager
def proxy(url: str, folder: Path) -> Iterator[Proxy]:
    """A proxy that serves while the block lasts."""
    running = Proxy(url, folder)
    threading.Thread(target=running.serve, daemon=True, name="proxy").start()
    try:
        yield running
    finally:
        running.close()
