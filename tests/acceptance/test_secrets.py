"""The password in a store's address is nowhere to be found: not in what any command says, in a file, or in a list of processes."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.acceptance.gates import Gate
from tests.acceptance.studies import write_study
from tests.acceptance.terminal import Job, Terminal, until

QUOTED = "hunter2%2F%25zz"
STUDY = ("--study", "tiny")
RUN = ("run", "--study", "tiny.yaml", "--devices", "cpu", "--workers", "1", "--trials", "2")
LOOKING = (
    ("show",),
    ("show", "--json"),
    ("explain", *STUDY, "--trial", "0"),
    ("export", *STUDY),
    ("export", *STUDY, "--trial", "9"),
    ("backtest", *STUDY, "--json"),
    ("store", "check"),
    ("store", "check", "--json"),
    ("store", "migrate"),
    ("store", "vacuum"),
    ("worker", *STUDY),
    ("run", "--study", "tiny.yaml", "--enqueue-remedy", "0"),
    ("dashboard", "--study", "none"),
)
"""Every command that opens a store, some with what the store has not got."""


def reveals(text: str) -> bool:
    """Whether the password, or a part of it, can be read in it."""
    return "hunter2" in text


def command_lines(job: Job) -> str:
    """What a list of processes shows of a command and of all that it started."""
    reported = []
    for process in job.alive():
        try:
            reported.append(" ".join([process.name(), *process.cmdline()]))
        except psutil.NoSuchProcess:
            continue
    return "\n".join(reported)


def written(folder: Path) -> list[str]:
    """The files in which the password can be read."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and b"hunter2" in path.read_bytes()
    ]


class TestPassword:
    @pytest.mark.parametrize("kind", ["postgresql", "mysql"])
    def test_no_server(self, terminal: Terminal, tmp_path: Path, kind: str) -> None:
        """Where no server answers every command says so, with the address but without its password."""
        write_study(tmp_path)
        url = f"{kind}://user:{QUOTED}@127.0.0.1:1/db"
        commands = [
            *LOOKING,
            ("run", "--study", "tiny.yaml", "--devices", "cpu"),
            ("store", "copy", "--to", "copy.db"),
        ]
        commands = commands if kind == "postgresql" else commands[:1]

        for job in [
            terminal.start(*command, folder=tmp_path, SEARCH_STORE=url) for command in commands
        ]:
            answer = job.wait()
            assert answer.code == 2, answer.text
            assert f"{kind}://user:***@127.0.0.1:1/db" in answer.text
            assert not reveals(answer.text), answer.text
        assert written(tmp_path) == []

    def test_server(
        self,
        terminal: Terminal,
        tmp_path: Path,
        tmp_path_factory: pytest.TempPathFactory,
        postgresql_url: str,
    ) -> None:
        """On a server a whole run and every command after it keep the password to themselves, in files and lists of processes, too."""
        write_study(tmp_path)
        url = postgresql_url.replace("//postgres:@", f"//postgres:{QUOTED}@")
        assert QUOTED in url
        gate = Gate(tmp_path_factory.mktemp("gates") / "gate", epoch=2)
        run = terminal.start(*RUN, folder=tmp_path, SEARCH_STORE=url, **gate.variables)
        lines: set[str] = set()

        def look() -> bool:
            lines.update(command_lines(run).splitlines())
            return gate.reached

        until(look, "the worker trains")
        look()
        gate.open()
        answer = run.wait()
        assert answer.code == 0, answer.text
        assert any("worker" in line for line in lines)
        assert [line for line in lines if reveals(line)] == []
        assert not reveals(answer.text), answer.text

        for job in [
            terminal.start(*command, folder=tmp_path, SEARCH_STORE=url)
            for command in (*LOOKING, ("store", "copy", "--to", "copy.db"))
        ]:
            assert not reveals(command_lines(job))
            reported = job.wait().text
            assert not reveals(reported), reported
        into_itself = terminal.run("store", "copy", "--to", url, folder=tmp_path, SEARCH_STORE=url)
        assert (into_itself.code, reveals(into_itself.text)) == (2, False)
        assert (tmp_path / "best.yaml").exists()
        assert (tmp_path / "copy.db").exists()
        assert written(tmp_path) == []
