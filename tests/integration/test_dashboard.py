"""optuna-dashboard on a finished study, looked at with a real browser."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.acceptance.terminal import PATIENCE_S, Job, Terminal, until
from tests.integration.conftest import Ended

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 1000 * PATIENCE_S


@dataclass(frozen=True)
class Served:
    """A dashboard that is up."""

    job: Job
    port: int
    address: str


def free_port() -> int:
    """A port that no process listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def served(runs: dict[str, Ended], lasting_terminal: Terminal) -> Served:
    """The dashboard of the study on SQLite."""
    while True:
        port = free_port()
        job = lasting_terminal.start(
            "dashboard", "--study", "tiny", "--port", str(port), folder=runs["sqlite"].folder
        )
        until(
            lambda job=job: "Listening on" in job.said().text or job.said().code != -1000,
            "the dashboard listens",
        )  # type: ignore[misc]
        if (
            "Address already in use" not in job.said().text
        ):  # else another process took the port meanwhile
            break
    first = job.said().out.splitlines()[0]
    return Served(job, port, first.split()[0])


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """An empty page of a headless Chromium."""
    browser = next(
        (
            path
            for path in (
                "/usr/bin/chromium",
                shutil.which("chromium"),
                shutil.which("chromium-browser"),
            )
            if path and Path(path).exists()
        ),
        None,
    )
    if browser is None:
        pytest.skip("Chromium is not installed here")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        chromium.close()


def test_pages(served: Served, page: Page, runs: dict[str, Ended], tmp_path: Path) -> None:
    """The address that the command prints shows the study by name with its best trial, and its list every trial as it ended."""
    complaints: list[str] = []
    page.on("pageerror", lambda problem: complaints.append(str(problem)))
    page.goto(served.address)
    best = max(
        (trial for trial in runs["sqlite"].trials if trial.state == "complete"),
        key=lambda trial: trial.score or 0,
    )
    expect(page.get_by_text("tiny (id=1)").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text(f"Best Trial (number={best.number})")).to_be_visible(
        timeout=PATIENCE_MS
    )
    page.screenshot(path=tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 10_000

    page.goto(f"{served.address}/trials")
    for trial in runs["sqlite"].trials:
        expect(page.get_by_text(f"Trial {trial.number}", exact=True).first).to_be_visible(
            timeout=PATIENCE_MS
        )
    expect(page.get_by_text("4 Trials")).to_be_visible()
    page.screenshot(path=tmp_path / "trials.png")
    assert complaints == []


def test_loopback(served: Served) -> None:
    """It listens on 127.0.0.1 and nowhere else, because it asks for no password."""
    listening = [
        tuple(connection.laddr)
        for process in served.job.alive()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == [("127.0.0.1", served.port)]


def test_end(served: Served) -> None:
    """Ctrl-C ends it, as its first line says, and that is no failure."""
    served.job.interrupt()
    answer = served.job.wait()
    assert answer.code == 0
    assert "Ctrl-C" in answer.out.splitlines()[0]
    assert "Traceback" not in answer.text
