"""Joins a Ray cluster, or starts one here, and divides its GPUs or CPUs among workers."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import chdir
from typing import Any

import ray

from search.launch.device_slots import MAX_CPU_WORKERS, Slot
from search.launch.ray import Share
from spaces.errors import DeviceError, LauncherError

OBJECT_STORE_BYTES = 100 * 2**20
"""Size of Ray's object store, in which workers keep nothing."""

NO_MODULES = "/"
"""The directory from which Ray is joined. Ray puts it first on the path of its actors, where a
user's own `search.py` would be imported instead of our package; this one has no Python modules."""

CONNECT_S = 5.0
ALLOWED = "host:port of a running cluster's head, auto, local"


def join_cluster(address: str | None) -> None:
    """Join the cluster at the address, or one on this machine, which is started if needed.

    A cluster that was started here ends with this process.

    Raises:
        LauncherError: when there is no cluster at the address, or it refuses to be joined.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # its messages appear between our own lines
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address not in (None, "auto", "local"):
        _check_reachable(address)
    try:
        with chdir(NO_MODULES):
            if address != "local" and _try_join(address or "auto", required=address is not None):
                return
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (ConnectionError, RuntimeError, ValueError) as problem:
        raise LauncherError(
            "the Ray cluster cannot be joined",
            where="--ray-address",
            found=str(problem).strip().splitlines()[0],
            allowed=ALLOWED,
            next_step="check that `ray status` works there, with the same Python and Ray versions",
        ) from None


def _try_join(address: str, *, required: bool) -> bool:
    """Join the cluster at an address; False when there is none, unless it is required."""
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except ConnectionError:
        if required:
            raise
        return False
    return True


def _check_reachable(address: str) -> None:
    """Check the address, because Ray would try for a minute and then name no cause."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise LauncherError(
            "the address of a Ray cluster is malformed",
            where="--ray-address",
            found=address,
            allowed=ALLOWED,
            next_step="write the host and the port that `ray start --head` printed",
        )
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as problem:
        raise LauncherError(
            "no Ray cluster answers",
            where="--ray-address",
            found=f"{address}: {problem.strerror or problem}",
            allowed=ALLOWED,
            next_step="start its head with `ray start --head`, "
            "or omit --ray-address for a cluster on this machine",
        ) from None


def list_nodes() -> list[Mapping[str, Any]]:
    """List the live nodes, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def other_machines(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the addresses of the nodes that are not on this machine."""
    here = {ray.util.get_node_ip_address(), "127.0.0.1"}
    return sorted({str(node["NodeManagerAddress"]) for node in nodes} - here)


def plan_shares(
    devices: str,
    workers: int | None,
    per_device: int,
    cpus: int | None,
    nodes: Sequence[Mapping[str, Any]],
) -> tuple[list[Share], str]:
    """Make one share per worker, and a warning when the cluster has no room for all of them.

    Args:
        devices: `auto`, `cuda` or `cpu`.
        workers: how many in all; None for as many as there is room for (at most 4 per node without
            GPUs).
        per_device: workers that share a GPU.
        cpus: CPUs per worker; None divides the node's among its workers.
        nodes: as Ray describes them.

    Raises:
        DeviceError: when the cluster lacks the devices.
    """
    gpu_nodes = _check_devices(devices, nodes)
    uses_gpus = bool(gpu_nodes) and devices != "cpu"
    hosts = gpu_nodes if uses_gpus else list(nodes)
    cores = [_count_resource(node, "CPU") for node in hosts]
    places = [MAX_CPU_WORKERS] * len(hosts)
    if uses_gpus:
        places = [_count_resource(node, "GPU") * per_device for node in hosts]
    if cpus is None:
        cpus = max(1, min(core // place for core, place in zip(cores, places, strict=True)))
    limits = places if uses_gpus or workers is None else cores
    room = sum(min(limit, core // cpus) for limit, core in zip(limits, cores, strict=True))
    if not room and workers is None:
        raise DeviceError(
            f"no node of the Ray cluster has {cpus} CPUs",
            where="--cpus-per-worker",
            found=f"{max(cores, default=0)} CPUs on the largest",
            next_step="choose a smaller number",
        )
    count = workers or room
    device = "cuda:0" if uses_gpus else "cpu"
    share = Share(Slot(device, cpus), 1 / per_device if uses_gpus else 0)
    warning = ""
    if count > room:
        warning = (
            f"the Ray cluster has room for {room} of {count} workers now; "
            "the others wait for more nodes"
        )
    return [share] * count, warning


def _check_devices(devices: str, nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Check the devices, and return the nodes that have GPUs."""
    gpu_nodes = [node for node in nodes if _count_resource(node, "GPU")]
    if devices not in ("auto", "cuda", "cpu"):
        raise DeviceError(
            "Ray chooses among the GPUs itself",
            where="--devices",
            found=devices,
            allowed="auto, cuda, cpu",
            next_step="omit the number",
        )
    if devices == "cuda" and not gpu_nodes:
        cores = sum(_count_resource(node, "CPU") for node in nodes)
        raise DeviceError(
            "no node of the Ray cluster has a GPU",
            where="--devices",
            found=f"{len(nodes)} nodes with {cores} CPUs",
            allowed="auto, cpu",
            next_step="use --devices cpu, or add nodes with GPUs",
        )
    return gpu_nodes


def _count_resource(node: Mapping[str, Any], resource: str) -> int:
    return int(node["Resources"].get(resource, 0))
