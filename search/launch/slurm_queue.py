"""Slurm's own commands: what it knows of jobs, options and nodes, and how jobs are told to stop."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from spaces.errors import LauncherError

COMMAND_S = 60.0
"""How long one of its commands may take."""

LIVE = {
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "SPECIAL_EXIT",
    "STAGE_OUT",
    "STOPPED",
    "SIGNALING",
    "RESIZING",
    "RESV_DEL_HOLD",
}
"""States of a job that goes on, or will."""


def check_present() -> None:
    """Make sure that this machine can submit.

    Raises:
        LauncherError: when it cannot.
    """
    missing = [
        tool
        for tool in ("sbatch", "srun", "squeue", "scancel", "scontrol")
        if shutil.which(tool) is None
    ]
    if missing:
        raise LauncherError(
            "Slurm is not on this machine",
            where="--launcher slurm",
            found=f"no command {missing[0]}",
            next_step="run on a login node of the cluster, or place `search worker` by other means (docs/clusters.md)",
        )


def states(jobs: Sequence[str]) -> dict[str, str]:
    """Job → its state; what Slurm has forgotten, because it ended long ago, is left out.

    Raises:
        LauncherError: when Slurm does not answer.
    """
    arrays = sorted({job.partition("_")[0] for job in jobs})
    told: dict[str, str] = {}
    for array in arrays:
        try:
            told |= parse_states(
                _run("squeue", "-h", "-r", "-t", "all", "-j", array, "-o", "%i %T")
            )
        except LauncherError as problem:
            if "Invalid job id" not in problem.found:
                raise
    return {job: state for job, state in told.items() if job in jobs}


def parse_states(text: str) -> dict[str, str]:
    """The lines of `squeue -o "%i %T"`."""
    return {
        job: state
        for job, _, state in (line.strip().partition(" ") for line in text.splitlines())
        if state
    }


def cancel(jobs: Sequence[str], *options: str) -> None:
    """`scancel`; a job that is gone already is none of its business, and neither is one that is in another state than asked for."""
    if jobs:
        try:
            _run("scancel", "--quiet", *options, *jobs)
        except LauncherError:
            return  # the next look at their states tells what became of them


def other_machines() -> list[str]:
    """The hosts of the cluster's nodes, without this one.

    Raises:
        LauncherError: when Slurm does not answer.
    """
    hosts = set(re.findall(r"\bNodeHostName=(\S+)", _run("scontrol", "show", "node", "-o")))
    return sorted(
        hosts - {socket.gethostname(), socket.gethostname().partition(".")[0], "localhost"}
    )


def sbatch_options() -> set[str]:
    """The long options of `sbatch`, written with underscores."""
    return {
        name.replace("-", "_") for name in re.findall(r"--([a-z][a-z-]+)", _run("sbatch", "--help"))
    }


def check_accepted(options: Mapping[str, object]) -> None:
    """Ask Slurm whether it would take such a job, without submitting one.

    Raises:
        LauncherError: in Slurm's words, when it would not.
    """
    given = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in options.items()
    ]
    try:
        _run("sbatch", "--test-only", *given, "--wrap=true")
    except LauncherError as problem:
        raise LauncherError(
            "Slurm does not take such a job",
            where="--slurm",
            found=problem.found.replace("sbatch: error: ", ""),
            next_step="see `sinfo` for the partitions, and `sbatch --help` for the options",
        ) from None


@contextmanager
def without(*variables: str) -> Iterator[None]:
    """Variables that `sbatch` must not pass on: Slurm keeps a job's environment where administrators, and with accounting others, read it."""
    held = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as problem:
        raise LauncherError(
            "Slurm does not answer",
            where=command[0],
            found=str(problem),
            next_step="see whether `sinfo` works",
        ) from None
    if done.returncode:
        found = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise LauncherError(
            "Slurm refused a command",
            where=command[0],
            found=found,
            next_step="see whether `sinfo` works",
        )
    return done.stdout
