"""The real commands as processes, in a folder of their own; none is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

POLITE_S = 15.0
"""Seconds that a process has to end after a stop request: a worker finishes its epoch."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""As the supervisor sets it for a worker that has one core."""


def script(name: str) -> str:
    """The path of an installed command, beside this Python."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise SystemExit(
            f"there is no command {name!r} beside {sys.executable}: install the package first"
        )
    return str(path)


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, without what would point a command at another store."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SEARCH_", "WANDB_"))
    } | changes


@contextmanager
def started(
    command: Sequence[str], folder: Path, variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A running process that logs to `log.txt` in its folder; it is ended with the block."""
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for stop in (process.terminate, process.terminate, process.kill):
        if process.poll() is not None:
            return
        stop()
        try:
            process.wait(POLITE_S)
        except subprocess.TimeoutExpired:
            continue


def finish(process: subprocess.Popen[bytes], folder: Path, timeout_s: float) -> None:
    """Wait for the end of a process.

    Raises:
        SystemExit: when it fails, or takes longer, with the end of what it said.
    """
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"not done after {timeout_s:.0f} s\n{_last_words(folder)}") from None
    if code:
        raise SystemExit(f"ended with exit code {code}\n{_last_words(folder)}")


def run(
    command: Sequence[str], folder: Path, variables: Mapping[str, str], timeout_s: float
) -> str:
    """Run a process to its end. Returns everything that was said in its folder."""
    with started(command, folder, variables) as process:
        finish(process, folder, timeout_s)
    return (folder / "log.txt").read_text(errors="replace")


def _last_words(folder: Path) -> str:
    return "\n".join((folder / "log.txt").read_text(errors="replace").splitlines()[-15:])
