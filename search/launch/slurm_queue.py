"""Slurm's commands: states of jobs, options of `sbatch`, nodes, and signals to jobs."""

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
"""How long one of Slurm's commands may take."""

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
"""States of a job that runs, or will run."""


def check_present() -> None:
    """Check that this machine can submit jobs.

    Raises:
        LauncherError: when a command of Slurm is missing.
    """
    missing = [
        tool
        for tool in ("sbatch", "srun", "squeue", "scancel", "scontrol")
        if shutil.which(tool) is None
    ]
    if missing:
        raise LauncherError(
            "Slurm is not installed on this machine",
            where="--launcher slurm",
            found=f"no command {missing[0]}",
            next_step="run on a login node of the cluster, "
            "or start `search worker` by other means (docs/clusters.md)",
        )


def list_states(jobs: Sequence[str]) -> dict[str, str]:
    """List the states by job, without jobs that ended so long ago that Slurm has no record of them.

    Raises:
        LauncherError: when Slurm does not answer.
    """
    arrays = sorted({job.partition("_")[0] for job in jobs})
    states: dict[str, str] = {}
    for array in arrays:
        try:
            states |= parse_states(
                _run_command("squeue", "-h", "-r", "-t", "all", "-j", array, "-o", "%i %T")
            )
        except LauncherError as problem:
            if "Invalid job id" not in problem.found:
                raise
    return {job: state for job, state in states.items() if job in jobs}


def parse_states(text: str) -> dict[str, str]:
    """Parse the output of `squeue -o "%i %T"`."""
    return {
        job: state
        for job, _, state in (line.strip().partition(" ") for line in text.splitlines())
        if state
    }


def cancel_jobs(jobs: Sequence[str], *options: str) -> None:
    """Run `scancel`; jobs that ended, or are in another state than given, are ignored."""
    if jobs:
        try:
            _run_command("scancel", "--quiet", *options, *jobs)
        except LauncherError:
            return  # their states are read again at the next poll


def other_machines() -> list[str]:
    """List the hosts of the cluster's nodes, without this one.

    Raises:
        LauncherError: when Slurm does not answer.
    """
    hosts = set(re.findall(r"\bNodeHostName=(\S+)", _run_command("scontrol", "show", "node", "-o")))
    return sorted(
        hosts - {socket.gethostname(), socket.gethostname().partition(".")[0], "localhost"}
    )


def list_sbatch_options() -> set[str]:
    """List the long options of `sbatch`, written with underscores."""
    return {
        name.replace("-", "_")
        for name in re.findall(r"--([a-z][a-z-]+)", _run_command("sbatch", "--help"))
    }


def check_accepted(options: Mapping[str, object]) -> None:
    """Ask Slurm whether it would accept such a job, without submitting one.

    Raises:
        LauncherError: with Slurm's message, when it would not.
    """
    given = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in options.items()
    ]
    try:
        _run_command("sbatch", "--test-only", *given, "--wrap=true")
    except LauncherError as problem:
        raise LauncherError(
            "Slurm does not accept such a job",
            where="--slurm",
            found=problem.found.replace("sbatch: error: ", ""),
            next_step="see `sinfo` for the partitions, and `sbatch --help` for the options",
        ) from None


@contextmanager
def hidden_variables(*variables: str) -> Iterator[None]:
    """A block in which `sbatch` does not see these variables.

    Slurm stores a job's environment where administrators, and sometimes other users, can read it.
    """
    hidden = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _run_command(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as problem:
        raise LauncherError(
            "Slurm does not answer",
            where=command[0],
            found=str(problem),
            next_step="check that `sinfo` works",
        ) from None
    if done.returncode:
        found = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise LauncherError(
            "Slurm refused a command",
            where=command[0],
            found=found,
            next_step="check that `sinfo` works",
        )
    return done.stdout
