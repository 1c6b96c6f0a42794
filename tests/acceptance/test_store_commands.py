"""`search store`, as it is typed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.acceptance.studies import (
    Finished,
    expire_lease,
    repeatable,
    stored_records,
    stored_trials,
    url_in,
)
from tests.acceptance.terminal import Terminal


class TestStore:
    def test_copied_and_resumed(
        self, terminal: Terminal, finished: Finished, tmp_path: Path
    ) -> None:
        """A finished study is copied, both stores are consistent, and the same command with more trials resumes in the copy alone."""
        shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
        copy = f"sqlite:///{tmp_path / 'copy.db'}"

        copied = terminal.run(
            "store", "copy", "--to", "copy.db", "--study", "tiny", folder=tmp_path
        )
        assert (copied.code, copied.out) == (
            0,
            f"study tiny: 6 trials, {sum(map(len, stored_records(finished.url).values()))} epochs\n",
        )
        assert repeatable(stored_records(copy)) == repeatable(stored_records(finished.url))

        run = (
            "run",
            "--study",
            "tiny.yaml",
            "--devices",
            "cpu",
            "--workers",
            "1",
            "--trials",
            "7",
            "--store",
            "copy.db",
        )
        more = terminal.run(*run, folder=tmp_path)
        assert more.code == 0, more.text
        assert [trial.number for trial in stored_trials(copy)] == list(range(7))
        assert len(stored_trials(url_in(tmp_path))) == 6
        for store in ("search.db", "copy.db"):
            checked = terminal.run("store", "check", "--store", store, folder=tmp_path)
            assert (checked.code, checked.out.splitlines()[-1]) == (0, "no problems found"), (
                checked.text
            )

    def test_something_wrong(self, terminal: Terminal, finished: Finished, tmp_path: Path) -> None:
        """Each finding is one line with what to do, or a line of JSON, and the exit code is 1."""
        shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
        _hold(url_in(tmp_path))
        (tmp_path / "search.files" / "gone").mkdir(parents=True)
        (tmp_path / "search.files" / "gone" / "worker-0.log").write_text("x")

        reported = terminal.run("store", "check", folder=tmp_path)
        listed = terminal.run("store", "check", "--json", folder=tmp_path)
        tidied = terminal.run("store", "vacuum", folder=tmp_path)

        lines = [line for line in reported.out.splitlines() if line.startswith("problem: ")]
        assert (reported.code, len(lines), reported.err) == (1, 3, "")
        assert "trial 0: worker" in lines[0]
        assert "search worker --study tiny" in lines[0]
        assert lines[2].endswith(
            "worker-0.log belongs to no trial or study of the store; "
            "remove it with: search store vacuum"
        )
        found = json.loads(listed.out)
        assert (
            listed.code,
            found["consistent"],
            len(found["problems"]),
            len(found["orphans"]),
        ) == (
            1,
            False,
            2,
            1,
        )
        assert (
            tidied.code,
            tidied.out.splitlines()[-1].endswith("1 orphaned files removed"),
        ) == (0, True)
        assert not (tmp_path / "search.files" / "gone").exists()

    def test_nothing_there(self, terminal: Terminal, tmp_path: Path) -> None:
        """Without a store every one of the commands says so, and makes none."""
        commands = (("check",), ("migrate",), ("vacuum",), ("copy", "--to", "other.db"))
        jobs = [terminal.start("store", *command, folder=tmp_path) for command in commands]

        for job in jobs:
            answer = job.wait()
            assert (answer.code, answer.err.splitlines()[0]) == (
                2,
                "error: there is no store there",
            )
        assert list(tmp_path.iterdir()) == []


def _hold(url: str) -> None:
    """Trial 0 as a worker left it that died long ago, before it recorded the end."""

    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute(
            "UPDATE search_trials SET state = 'running', lease_until = strftime('%s', 'now') WHERE number = 0"
        )
    expire_lease(url, 0, 60)
