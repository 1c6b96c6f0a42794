"""`search run --launcher ray`: workers placed by a real Ray on this machine, on the real PostgreSQL."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import make_url

from tests.acceptance.studies import QUIET, progress, stored_trials, write_study
from tests.acceptance.terminal import Terminal, until

PASSWORD = "hunter2-in-no-cluster"
INTERRUPTED = 130


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its logs and sockets; a socket's path has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_stop(terminal: Terminal, tmp_path: Path, postgresql_url: str, ray_folder: Path) -> None:
    """Workers in actors share a study and finish their epochs at Ctrl-C; the store's password shows nowhere, and nothing is left running."""
    url = make_url(postgresql_url).set(password=PASSWORD).render_as_string(hide_password=False)
    write_study(tmp_path, epochs=2, trials=100_000, signals=QUIET)
    for name in ("search", "storage", "objectives"):  # of the user's own: a worker imports ours
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    run = (
        "run",
        "--study",
        "tiny.yaml",
        "--launcher",
        "ray",
        "--ray-address",
        "local",
        "--devices",
        "cpu",
        "--workers",
        "2",
        "--cpus-per-worker",
        "1",
    )
    job = terminal.start(*run, folder=tmp_path, SEARCH_STORE=url, RAY_TMPDIR=str(ray_folder))
    titles = set[str]()

    def both_ended_trials() -> bool:
        for process in job.alive():
            with suppress(psutil.Error):
                titles.add(" ".join(process.cmdline()))
        assert job.said().code == -1000, job.said().text
        return len({trial.pid for trial in stored_trials(url) if trial.state == "complete"}) == 2

    until(lambda: progress(url) != [], "the study has begun")
    until(both_ended_trials, "both have ended a trial")
    job.interrupt()
    answer = job.wait()
    reported = [
        answer.text,
        *titles,
        *(
            path.read_text(errors="replace")
            for folder in (ray_folder, tmp_path)
            for path in folder.rglob("*")
            if path.is_file()
        ),
    ]

    assert (answer.code, answer.err) == (INTERRUPTED, "")
    assert {trial.state for trial in stored_trials(url)} <= {"complete", "paused"}
    assert all(trial.attempt == 1 for trial in stored_trials(url))
    assert any("raylet" in title for title in titles)
    assert any(" worker --study=tiny " in title for title in titles)
    assert any("WorkerActor" in text for text in reported)  # Ray's own files were looked at
    assert [text for text in reported if PASSWORD in text] == []
    until(lambda: job.alive() == [], "nothing is left")
