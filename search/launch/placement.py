"""Which engine places the workers, and everything about that choice that can be wrong before a store is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from search.launch.pool import Team
from spaces.errors import LauncherError, nearest
from storage.location import StoreLocation

Engine = Literal["local", "ray", "slurm"]

Hire = Callable[[Sequence[str], StoreLocation, Path, float | None], Team]
"""Arguments of every `search worker`, the store's location, the folder for logs, seconds until a stop → the workers."""

OF_SLURM = {
    "partition",
    "time",
    "gpus_per_node",
    "gpus_per_task",
    "qos",
    "mem",
    "mem_per_gpu",
    "mem_per_cpu",
    "signal_delay_s",
    "comment",
    "constraint",
    "exclude",
    "account",
    "gres",
    "mail_type",
    "mail_user",
    "nodelist",
    "dependency",
    "exclusive",
    "array_parallelism",
    "wckey",
    "job_name",
}
"""Parameters of submitit that may be given."""

NUMBERS = {"signal_delay_s", "array_parallelism"}
"""Those that submitit itself counts with."""

FIXED = {
    "array",
    "batch",
    "chdir",
    "cpus_per_task",
    "error",
    "export",
    "export_file",
    "help",
    "input",
    "nodes",
    "no_requeue",
    "ntasks",
    "ntasks_per_node",
    "open_mode",
    "output",
    "parsable",
    "quiet",
    "requeue",
    "setup",
    "signal",
    "test_only",
    "usage",
    "verbose",
    "version",
    "wait",
    "wrap",
}
"""Options of `sbatch` on which the workers depend."""


@dataclass(frozen=True)
class Placement:
    """What the command line says about where the workers run."""

    engine: Engine
    devices: str
    workers: int | None
    per_device: int
    cpus: int | None
    ray_address: str | None
    slurm: Sequence[str]


def prepare(
    placement: Placement, location: StoreLocation, command_line: Sequence[str]
) -> tuple[Hire, list[str]]:
    """Check the placement against what is there. Returns what makes the workers, and warnings.

    Raises:
        InputError: when the engine is not there, does not have what is asked for, or its machines cannot reach the store.
    """
    for option, given, engine in (
        ("--ray-address", placement.ray_address, "ray"),
        ("--slurm", placement.slurm, "slurm"),
    ):
        if given and placement.engine != engine:
            raise LauncherError(
                f"{option} is an option of another launcher",
                where=option,
                found=f"--launcher {placement.engine}",
                next_step=f"add --launcher {engine}, or leave it out",
            )
    if placement.engine == "ray":
        return _on_ray(placement, location, command_line)
    if placement.engine == "slurm":
        return _on_slurm(placement, location), []
    return _here(placement), []


def _here(placement: Placement) -> Hire:
    from search.launch.devices import Slot, plan_slots
    from search.launch.local import LocalWorkers

    slots = plan_slots(placement.devices, placement.workers, placement.per_device)
    if placement.cpus is not None:
        slots = [Slot(slot.device, placement.cpus) for slot in slots]
    return partial(LocalWorkers, slots)


def _on_ray(
    placement: Placement, location: StoreLocation, command_line: Sequence[str]
) -> tuple[Hire, list[str]]:
    secret = location.password
    if secret and any(secret in word for word in command_line):
        raise LauncherError(
            "the store's password stands on the command line, which Ray shows to whoever may look at the cluster",
            where="--store",
            found="a password",
            next_step="put the address into the variable SEARCH_STORE and leave --store out",
        )
    try:
        from search.launch import ray_cluster
        from search.launch.ray import RayWorkers
    except ImportError as problem:
        raise _not_installed("Ray", "ray", problem) from None
    ray_cluster.join(placement.ray_address)
    nodes = ray_cluster.alive_nodes()
    _check_reach(location, ray_cluster.other_machines(nodes), "ray")
    shares, warning = ray_cluster.plan_shares(
        placement.devices, placement.workers, placement.per_device, placement.cpus, nodes
    )
    return partial(RayWorkers, shares), [warning] if warning else []


def _on_slurm(placement: Placement, location: StoreLocation) -> Hire:
    from search.launch import slurm_queue

    slurm_queue.check_present()
    try:
        from search.launch.slurm import Array, SlurmWorkers
    except ImportError as problem:
        raise _not_installed("submitit", "slurm", problem) from None
    if placement.workers is None:
        raise LauncherError(
            "Slurm has to be told how many workers to queue",
            where="--workers",
            found="nothing",
            next_step="add --workers 8, for example",
        )
    if placement.per_device != 1:
        raise LauncherError(
            "Slurm gives a worker its own GPU",
            where="--workers-per-device",
            found=str(placement.per_device),
            allowed="1",
            next_step="share one by what the cluster offers, such as --slurm gres=shard:1",
        )
    if placement.devices not in ("auto", "cuda", "cpu"):
        raise LauncherError(
            "Slurm itself chooses among the GPUs",
            where="--devices",
            found=placement.devices,
            allowed="auto, cuda, cpu",
            next_step="leave the number out",
        )
    parameters = slurm_parameters(placement.slurm, slurm_queue.sbatch_options())
    named = {*parameters, *parameters["additional_parameters"]}
    if placement.devices == "cuda" and not named & {
        "gres",
        "gpus",
        "gpus_per_node",
        "gpus_per_task",
    }:
        parameters["gpus_per_node"] = 1
    plain = {
        name: value
        for name, value in parameters.items()
        if name not in (*NUMBERS, "additional_parameters")
    }
    slurm_queue.check_accepted(
        {**plain, **parameters["additional_parameters"], "cpus_per_task": placement.cpus or 1}
    )
    _check_reach(location, slurm_queue.other_machines(), "slurm")
    device = "cuda:0" if placement.devices == "cuda" else placement.devices
    return partial(SlurmWorkers, Array(placement.workers, device, placement.cpus or 1, parameters))


def slurm_parameters(assignments: Sequence[str], options: set[str]) -> dict[str, Any]:
    """`["partition=gpu", "time=2:00:00"]` as submitit's parameters, with sbatch's other options in `additional_parameters`.

    Raises:
        LauncherError: for a name that neither has, or that is not the user's to set.
    """
    allowed = sorted((OF_SLURM | options) - FIXED)
    made: dict[str, Any] = {"additional_parameters": {}}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals or not value or not value.isprintable():
            raise LauncherError(
                "--slurm takes name=value",
                where="--slurm",
                found=assignment,
                allowed="--slurm partition=gpu --slurm time=2:00:00",
                next_step="write a name, an equals sign and a value",
            )
        if name in FIXED:
            raise LauncherError(
                f"the workers depend on {name!r}, which is set already",
                where="--slurm",
                found=assignment,
                next_step="leave it out",
            )
        if name not in allowed:
            what = f"sbatch has no option {name!r}{nearest(name, allowed)}"
            raise LauncherError(
                what,
                where="--slurm",
                found=assignment,
                allowed=", ".join(sorted(OF_SLURM)),
                next_step="correct the name; `sbatch --help` lists all",
            )
        if name in NUMBERS and not value.isdigit():
            raise LauncherError(
                "--slurm takes a number there",
                where="--slurm",
                found=assignment,
                next_step=f"write {name}=30, for example",
            )
        (made if name in OF_SLURM else made["additional_parameters"])[name] = (
            int(value) if name in NUMBERS else value
        )
    return made


def _check_reach(location: StoreLocation, others: Sequence[str], engine: Engine) -> None:
    """A store that stands on one machine is refused where workers might run on another."""
    if others and (why := location.explain_local_only()):
        raise LauncherError(
            f"the other machines of the cluster cannot use this store: {why}",
            where=f"--store, with --launcher {engine}",
            found=f"{len(others)} other machines: {', '.join(others[:4])}{' …' if len(others) > 4 else ''}",
            allowed="postgresql://user:password@host/database",
            next_step="put the address of a server that all machines reach into SEARCH_STORE",
        )


def _not_installed(name: str, extra: Engine, problem: ImportError) -> LauncherError:
    return LauncherError(
        f"{name} is not installed",
        where=f"--launcher {extra}",
        found=str(problem),
        next_step=f"pip install 'imbalance-search[{extra}]', here and on every node",
    )
