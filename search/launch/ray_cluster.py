"""A Ray cluster: joined, or started on this machine, and how its GPUs or CPUs are shared among workers."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import chdir
from typing import Any

import ray

from search.launch.devices import MAX_CPU_WORKERS, Slot
from search.launch.ray import Share
from spaces.errors import DeviceError, LauncherError

OBJECT_STORE_BYTES = 100 * 2**20
"""Workers keep nothing in Ray's own memory."""

NO_MODULES = "/"
"""Ray puts the directory in which it is joined first on the path of its actors, where a user's own `search.py` would be
imported in place of our package; so it is joined from one that has no Python modules."""

CONNECT_S = 5.0
ALLOWED = "host:port of a running cluster's head, auto, local"


def join(address: str | None) -> None:
    """Join the cluster at the address, else the one of this machine, else start one here that ends with this process.

    Raises:
        LauncherError: when there is no cluster there, or it takes no one in.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_COLOR_PREFIX", "0"
    )  # what it says of lost nodes is mixed with our own lines
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address not in (None, "auto", "local"):
        _check_reachable(address)
    try:
        with chdir(NO_MODULES):
            if address != "local" and _joined(address or "auto", required=address is not None):
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
            "the Ray cluster takes nobody in",
            where="--ray-address",
            found=str(problem).strip().splitlines()[0],
            allowed=ALLOWED,
            next_step="see whether `ray status` works there, with the same versions of Python and Ray",
        ) from None


def _joined(address: str, *, required: bool) -> bool:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except ConnectionError:
        if required:
            raise
        return False
    return True


def _check_reachable(address: str) -> None:
    """Ray itself would try for a minute, and then name no cause."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise LauncherError(
            "no Ray cluster has such an address",
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
            next_step="start its head with `ray start --head`, or leave --ray-address out for one on this machine",
        ) from None


def alive_nodes() -> list[Mapping[str, Any]]:
    """The nodes as Ray lists them, but for the dead."""
    return [node for node in ray.nodes() if node["Alive"]]


def other_machines(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The addresses of the nodes that are not on this machine."""
    here = {ray.util.get_node_ip_address(), "127.0.0.1"}
    return sorted({str(node["NodeManagerAddress"]) for node in nodes} - here)


def plan_shares(
    devices: str,
    workers: int | None,
    per_device: int,
    cpus: int | None,
    nodes: Sequence[Mapping[str, Any]],
) -> tuple[list[Share], str]:
    """One share a worker, and a warning when the cluster has no room for all of them.

    Args:
        devices: `auto`, `cuda` or `cpu`.
        workers: how many in all; None: as many as there is room for, four at most on a node without GPUs.
        per_device: workers that share a GPU.
        cpus: CPUs a worker; None: the node's, divided among its workers.
        nodes: as Ray lists them.

    Raises:
        DeviceError: for devices that the cluster does not have.
    """
    gpu_nodes = [node for node in nodes if _count(node, "GPU")]
    if devices not in ("auto", "cuda", "cpu"):
        raise DeviceError(
            "Ray itself chooses among the GPUs",
            where="--devices",
            found=devices,
            allowed="auto, cuda, cpu",
            next_step="leave the number out",
        )
    if devices == "cuda" and not gpu_nodes:
        found = f"{len(nodes)} nodes with {sum(_count(node, 'CPU') for node in nodes)} CPUs"
        raise DeviceError(
            "no node of the Ray cluster has a GPU",
            where="--devices",
            found=found,
            allowed="auto, cpu",
            next_step="use --devices cpu, or add nodes with GPUs",
        )
    cuda = bool(gpu_nodes) and devices != "cpu"
    places = {
        index: _count(node, "GPU") * per_device if cuda else MAX_CPU_WORKERS
        for index, node in enumerate(gpu_nodes if cuda else nodes)
    }
    holders = gpu_nodes if cuda else list(nodes)
    if cpus is None:
        cpus = max(
            1, min(_count(node, "CPU") // places[index] for index, node in enumerate(holders))
        )
    room = sum(
        min(
            places[index] if cuda or workers is None else _count(node, "CPU"),
            _count(node, "CPU") // cpus,
        )
        for index, node in enumerate(holders)
    )
    if not room and workers is None:
        found = f"{max((_count(node, 'CPU') for node in holders), default=0)} CPUs on the largest"
        raise DeviceError(
            f"no node of the Ray cluster has {cpus} CPUs",
            where="--cpus-per-worker",
            found=found,
            next_step="give a smaller number",
        )
    asked = workers or room
    share = Share(Slot("cuda:0" if cuda else "cpu", cpus), 1 / per_device if cuda else 0)
    warning = (
        f"the Ray cluster has room for {room} of {asked} workers now; the others wait for more nodes"
        if asked > room
        else ""
    )
    return [share] * asked, warning


def _count(node: Mapping[str, Any], resource: str) -> int:
    return int(node["Resources"].get(resource, 0))
