"""A MariaDB server of the tests' own, in a folder of theirs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pymysql

PATIENCE_S = 60.0
FAST = (
    "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-doublewrite=0",
    "--innodb-flush-method=nosync", "--innodb-file-per-table=0", "--skip-log-bin", "--performance-schema=off",
)  # fmt: skip
MEMORY = Path("/dev/shm")
"""Making a table takes ten times as long on a disk."""
LETTERS = ("--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin")


class MariaDB:
    """The server. Its data are in memory where that can be had."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mariadb-", dir=MEMORY if MEMORY.is_dir() else None)
        self.data = Path(self._folder.name) / "data"
        self.socket = Path(self._folder.name) / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str:
        """Why it cannot run here; nothing when it can."""
        absent = [name for name in ("mariadbd", "mariadb-install-db") if shutil.which(name) is None]
        return f"{' and '.join(absent)} are not installed (Debian: mariadb-server)" if absent else ""

    def start(self) -> None:
        """Make the data where there are none, and wait until it answers."""
        if not self.data.exists():
            make = ["mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"]
            subprocess.run(make, check=True, capture_output=True, timeout=PATIENCE_S)
        own = [f"--datadir={self.data}", f"--socket={self.socket}", f"--pid-file={self.data}/pid", f"--log-error={self.data}/log"]
        command = ["mariadbd", "--no-defaults", *own, "--user=root", "--skip-networking", *FAST, *LETTERS]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.execute("SELECT 1")
                return
            except pymysql.err.OperationalError:
                assert time.monotonic() < deadline, (self.data / "log").read_text()[-2000:]
                time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE_S)
        self._folder.cleanup()

    def url(self, database: str, user: str = "root", password: str = "") -> str:
        """The address of one of its databases."""
        return f"mariadb://{user}{f':{password}' if password else ''}@localhost/{database}?unix_socket={self.socket}"

    def execute(self, *statements: str) -> None:
        """Run statements as the owner of the server."""
        with pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
