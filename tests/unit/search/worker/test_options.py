"""The options that a launcher passes to a worker process."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cli import main
from search.worker import loop
from search.worker.options import WorkerOptions


@pytest.mark.parametrize(
    "options",
    [
        WorkerOptions("demo"),
        WorkerOptions("a study", "cpu", 3, "offline", 5400.25, 4711, Path("logs") / "w 0.jsonl"),
    ],
)
def test_arguments(monkeypatch: pytest.MonkeyPatch, options: WorkerOptions) -> None:
    """The command parses the arguments back to the options they were made from."""
    parsed = []
    monkeypatch.setattr(
        loop,
        "run_worker",
        lambda location, options: parsed.append((location.url, options)) or False,
    )
    with pytest.raises(SystemExit) as ended:
        main(["worker", "--store", "sqlite:///search.db", *options.to_arguments()])
    assert ended.value.code in (None, 0)
    assert parsed == [("sqlite:///search.db", options)]
