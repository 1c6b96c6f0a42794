"""Which launcher places the workers; checks everything about it before a store is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from search.launch.reaper import TrialReaper
from search.launch.worker_pool import WorkerPool
from search.worker.options import WorkerOptions
from spaces.errors import LauncherError, nearest
from storage.location import StoreLocation

Engine = Literal["local", "ray", "slurm"]

PoolFactory = Callable[
    [WorkerOptions, StoreLocation, Path, TrialReaper | None, float | None], WorkerPool
]
"""Makes the workers from their options, the store's location, the folder for logs, what releases
the trials of dead workers, and the seconds until a stop."""

SUBMITIT_PARAMETERS = {
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
"""Parameters of submitit that users may set."""

NUMERIC_PARAMETERS = {"signal_delay_s", "array_parallelism"}
"""Parameters that submitit needs as numbers."""

FIXED_OPTIONS = {
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
"""Options of `sbatch` that the workers depend on."""


GPU_OPTIONS = {"gres", "gpus", "gpus_per_node", "gpus_per_task"}
"""Options of `sbatch` that ask for GPUs."""


@dataclass(frozen=True)
class Placement:
    """Where the workers run, as given on the command line."""

    engine: Engine
    devices: str
    workers: int | None
    per_device: int
    cpus: int | None
    ray_address: str | None
    slurm: Sequence[str]


def resolve_placement(
    placement: Placement, location: StoreLocation, command_line: Sequence[str]
) -> tuple[PoolFactory, list[str]]:
    """Check the placement against the devices or the cluster.

    Returns:
        What makes the workers, and warnings.

    Raises:
        InputError: when the launcher is not available, the cluster lacks what is asked for, or its
            machines cannot reach the store.
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
                next_step=f"add --launcher {engine}, or omit it",
            )
    if placement.engine == "ray":
        return _resolve_ray(placement, location, command_line)
    if placement.engine == "slurm":
        return _resolve_slurm(placement, location), []
    return _resolve_local(placement), []


def _resolve_local(placement: Placement) -> PoolFactory:
    from search.launch.device_slots import Slot, plan_slots
    from search.launch.local_workers import LocalWorkers

    slots = plan_slots(placement.devices, placement.workers, placement.per_device)
    if placement.cpus is not None:
        slots = [Slot(slot.device, placement.cpus) for slot in slots]
    return partial(LocalWorkers, slots)


def _resolve_ray(
    placement: Placement, location: StoreLocation, command_line: Sequence[str]
) -> tuple[PoolFactory, list[str]]:
    secret = location.password
    if secret and any(secret in word for word in command_line):
        raise LauncherError(
            "the store's password is on the command line, which Ray shows to all its users",
            where="--store",
            found="a password",
            next_step="put the address into the variable SEARCH_STORE and omit --store",
        )
    try:
        from search.launch import ray_cluster
        from search.launch.ray import RayWorkers
    except ImportError as problem:
        raise _not_installed("Ray", "ray", problem) from None
    ray_cluster.join_cluster(placement.ray_address)
    nodes = ray_cluster.list_nodes()
    _check_reach(location, ray_cluster.other_machines(nodes), "ray")
    shares, warning = ray_cluster.plan_shares(
        placement.devices, placement.workers, placement.per_device, placement.cpus, nodes
    )
    return partial(RayWorkers, shares), [warning] if warning else []


def _resolve_slurm(placement: Placement, location: StoreLocation) -> PoolFactory:
    from search.launch import slurm_queue

    slurm_queue.check_present()
    try:
        from search.launch.slurm import JobArray, SlurmWorkers
    except ImportError as problem:
        raise _not_installed("submitit", "slurm", problem) from None
    workers = _check_slurm_options(placement)
    parameters = slurm_parameters(placement.slurm, slurm_queue.list_sbatch_options())
    others = parameters["additional_parameters"]
    if placement.devices == "cuda" and not {*parameters, *others} & GPU_OPTIONS:
        parameters["gpus_per_node"] = 1
    of_sbatch = {
        name: value
        for name, value in parameters.items()
        if name not in (*NUMERIC_PARAMETERS, "additional_parameters")
    }
    threads = placement.cpus or 1
    slurm_queue.check_accepted({**of_sbatch, **others, "cpus_per_task": threads})
    _check_reach(location, slurm_queue.other_machines(), "slurm")
    device = "cuda:0" if placement.devices == "cuda" else placement.devices
    return partial(SlurmWorkers, JobArray(workers, device, threads, parameters))


def _check_slurm_options(placement: Placement) -> int:
    """Check the options that Slurm restricts, and return the number of workers."""
    if placement.workers is None:
        raise LauncherError(
            "Slurm needs the number of workers to queue",
            where="--workers",
            found="nothing",
            next_step="add --workers 8, for example",
        )
    if placement.per_device != 1:
        raise LauncherError(
            "Slurm assigns each worker a GPU of its own",
            where="--workers-per-device",
            found=str(placement.per_device),
            allowed="1",
            next_step="share a GPU as the cluster allows it, such as --slurm gres=shard:1",
        )
    if placement.devices not in ("auto", "cuda", "cpu"):
        raise LauncherError(
            "Slurm chooses among the GPUs itself",
            where="--devices",
            found=placement.devices,
            allowed="auto, cuda, cpu",
            next_step="omit the number",
        )
    return placement.workers


def slurm_parameters(assignments: Sequence[str], options: set[str]) -> dict[str, Any]:
    """Convert assignments such as `partition=gpu` to the parameters of submitit.

    Args:
        assignments: as given with `--slurm`.
        options: those of `sbatch`; the ones that submitit lacks go into `additional_parameters`.

    Raises:
        LauncherError: for an unknown name, one that the workers depend on, or a malformed value.
    """
    allowed = sorted((SUBMITIT_PARAMETERS | options) - FIXED_OPTIONS)
    parameters: dict[str, Any] = {"additional_parameters": {}}
    for assignment in assignments:
        name, value = _parse_assignment(assignment, allowed)
        if name not in SUBMITIT_PARAMETERS:
            parameters["additional_parameters"][name] = value
        elif name in NUMERIC_PARAMETERS:
            parameters[name] = int(value)
        else:
            parameters[name] = value
    return parameters


def _parse_assignment(assignment: str, allowed: Sequence[str]) -> tuple[str, str]:
    """Split an assignment into name and value, and check both."""
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
    if name in FIXED_OPTIONS:
        raise LauncherError(
            f"the workers depend on {name!r}, which is already set",
            where="--slurm",
            found=assignment,
            next_step="omit it",
        )
    if name not in allowed:
        raise LauncherError(
            f"sbatch has no option {name!r}{nearest(name, allowed)}",
            where="--slurm",
            found=assignment,
            allowed=", ".join(sorted(SUBMITIT_PARAMETERS)),
            next_step="correct the name; `sbatch --help` lists all",
        )
    if name in NUMERIC_PARAMETERS and not value.isdigit():
        raise LauncherError(
            f"--slurm {name} takes a number",
            where="--slurm",
            found=assignment,
            next_step=f"write {name}=30, for example",
        )
    return name, value


def _check_reach(location: StoreLocation, others: Sequence[str], engine: Engine) -> None:
    """Refuse a store that only one machine can use if workers may run on another."""
    if others and (why := location.explain_local_only()):
        shown = ", ".join(others[:4]) + (" …" if len(others) > 4 else "")
        raise LauncherError(
            f"the other machines of the cluster cannot use this store: {why}",
            where=f"--store, with --launcher {engine}",
            found=f"{len(others)} other machines: {shown}",
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
