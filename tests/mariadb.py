"""The MariaDB server of the tests: one that runs already, or one that they start themselves."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pymysql
from sqlalchemy import URL, make_url

from tests.waiting import PATIENCE_S, until

FAST = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=8M",
    "--innodb-doublewrite=0",
    "--innodb-flush-method=nosync",
    "--innodb-file-per-table=0",
    "--skip-log-bin",
    "--performance-schema=off",
)
MEMORY = Path("/dev/shm")
"""Making a table takes ten times as long on a disk."""
LETTERS = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
"""What a database needs to be a store; servers differ in what they use by default."""


class MariaDB:
    """A server that runs.

    Args:
        admin: the address of a user who may create databases and users.
    """

    def __init__(self, admin: URL | str) -> None:
        self._admin = make_url(admin)

    def url(self, database: str, user: str = "", password: str = "") -> str:
        """The address of one of its databases; its administrator's where no user is named."""
        address = self._admin.set(drivername="mariadb", database=database)
        if user:
            address = address.set(username=user, password=password)
        return address.render_as_string(hide_password=False)

    def create(self, database: str) -> None:
        """Create an empty database for a store."""
        self.execute(f"CREATE DATABASE {database} {LETTERS}")

    def execute(self, *statements: str) -> None:
        """Run statements as the administrator."""
        socket = self._admin.query.get("unix_socket")
        with (
            pymysql.connect(
                host=self._admin.host,
                port=self._admin.port or 3306,
                unix_socket=socket,
                user=self._admin.username,
                password=self._admin.password or "",
                autocommit=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)


class OwnMariaDB(MariaDB):
    """A server that the tests start on a socket. Its data are in memory where that is possible."""

    def __init__(self) -> None:
        memory = MEMORY if MEMORY.is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="mariadb-", dir=memory)
        self.data = Path(self._folder.name) / "data"
        self.socket = Path(self._folder.name) / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        query = {"unix_socket": str(self.socket)}
        super().__init__(URL.create("mariadb", "root", host="localhost", query=query))

    @staticmethod
    def missing() -> str:
        """Why it cannot run here; nothing when it can."""
        programs = ("mariadbd", "mariadb-install-db")
        absent = [name for name in programs if shutil.which(name) is None]
        return (
            f"{' and '.join(absent)} are not installed (Debian: mariadb-server)" if absent else ""
        )

    def start(self) -> None:
        """Create the data where there are none, start the server, and wait until it answers."""
        if not self.data.exists():
            self._install()
        command = [
            *("mariadbd", "--no-defaults", "--user=root", "--skip-networking", *FAST),
            *(f"--datadir={self.data}", f"--socket={self.socket}"),
            *(f"--pid-file={self.data}/pid", f"--log-error={self.data}/log"),
        ]
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
        until(self._answers, "MariaDB answers")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE_S)
        self._folder.cleanup()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.data / "log").read_text()[-2000:]
        try:
            self.execute("SELECT 1")
        except pymysql.err.OperationalError:
            return False
        return True

    def _install(self) -> None:
        command = [
            *("mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--user=root"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
