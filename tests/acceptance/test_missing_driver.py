"""A store's address that asks for a driver which is not installed is refused with one message, before anything is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.acceptance.studies import Finished
from tests.acceptance.terminal import Terminal

SECRET = "hunter2"
RUN = ("run", "--study", "tiny.yaml", "--devices", "cpu", "--store")
COPY = ("store", "copy", "--to")

POSTGRESQL = ("postgresql", "PostgreSQL", "psycopg", "postgresql")
MYSQL = ("mysql", "MySQL or MariaDB", "pymysql", "mysql")
MARIADB = ("mariadb", "MySQL or MariaDB", "pymysql", "mysql")


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A module path on which the drivers cannot be imported, as on a machine without the extras."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for module in ("psycopg", "pymysql"):
        text = f"raise ModuleNotFoundError(\"No module named '{module}'\", name='{module}')\n"
        (folder / f"{module}.py").write_text(text, encoding="utf-8")
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)


@pytest.mark.parametrize(
    "command",
    [RUN, ("show", "--study", "tiny", "--store"), ("store", "check", "--store"), COPY],
    ids=" ".join,
)
@pytest.mark.parametrize(("scheme", "database", "module", "extra"), [POSTGRESQL, MYSQL, MARIADB])
def test_refused(
    command: tuple[str, ...],
    scheme: str,
    database: str,
    module: str,
    extra: str,
    bare_path: str,
    tmp_path: Path,
    terminal: Terminal,
    finished: Finished,
) -> None:
    """The message names the driver, the address without its password and what to install; nothing is left behind."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("search.db", "tiny.yaml"):
        shutil.copy(finished.folder / name, folder)
    before = {path.name: path.stat().st_size for path in folder.rglob("*")}

    answer = terminal.run(
        *command, f"{scheme}://me:{SECRET}@127.0.0.1:1/x", folder=folder, PYTHONPATH=bare_path
    )

    assert (answer.code, answer.out) == (2, "")
    assert [line.strip() for line in answer.err.splitlines()] == [
        f"error: a store on {database} needs {module}, which is not installed",
        f"where:   {scheme}://me:***@127.0.0.1:1/x",
        f"found:   No module named '{module}'",
        "allowed: sqlite:///path/to/file.db, which needs no driver",
        f"next:    pip install 'imbalance-search[{extra}]'",
    ]
    assert {path.name: path.stat().st_size for path in folder.rglob("*")} == before


def test_sqlite(bare_path: str, tmp_path: Path, terminal: Terminal, finished: Finished) -> None:
    """A store in an SQLite file needs none of the drivers."""
    shutil.copy(finished.folder / "search.db", tmp_path)
    answer = terminal.run("show", "--study", "tiny", folder=tmp_path, PYTHONPATH=bare_path)
    assert (answer.code, answer.err) == (0, "")
    assert "tiny" in answer.out
