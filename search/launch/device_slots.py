"""Lists devices and divides them among workers; asks the driver, so as not to import torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from spaces.errors import DeviceError, nearest

MAX_CPU_WORKERS = 4
"""Default limit of workers on a CPU: each one loads torch into its own memory."""


@dataclass(frozen=True)
class Slot:
    """A device and a number of CPU threads for one worker."""

    device: str
    threads: int


def list_devices() -> tuple[str, ...]:
    """List `cpu`, and `cuda:0` … as the driver has them, limited by CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    tool = shutil.which("nvidia-smi")
    if tool is None or visible in ("", "-1"):
        return ("cpu",)
    try:
        listed = subprocess.run(
            [tool, "-L"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ("cpu",)
    count = sum(line.startswith("GPU ") for line in listed.splitlines())
    if visible is not None:
        count = min(count, len(visible.split(",")))
    return ("cpu", *(f"cuda:{index}" for index in range(count)))


def resolve_device(name: str) -> str:
    """Resolve `auto` to the first GPU that this process may use, or the CPU.

    Launchers choose the GPU by CUDA_VISIBLE_DEVICES.
    """
    return _parse_devices("auto", list_devices())[0] if name == "auto" else name


def plan_slots(
    devices: str, workers: int | None, per_device: int, present: tuple[str, ...] | None = None
) -> list[Slot]:
    """Make one slot per worker, and divide the CPU's threads among them.

    Args:
        devices: `auto`, or names separated by commas.
        workers: how many in all; None for `per_device` on each GPU, or one per core (at most 4).
        per_device: workers that share a GPU.
        present: available devices; None asks the driver.

    Raises:
        DeviceError: when a device does not exist, or is named twice.
    """
    known = list_devices() if present is None else present
    names = _parse_devices(devices, known)
    cores = len(os.sched_getaffinity(0))
    if workers is None:
        gpus = [name for name in names if name != "cpu"]
        names = [*names, *gpus * (per_device - 1)]
        workers = len(names) if gpus else min(cores, MAX_CPU_WORKERS)
    threads = max(1, cores // workers)
    return [Slot(names[index % len(names)], threads) for index in range(workers)]


def _parse_devices(devices: str, known: tuple[str, ...]) -> list[str]:
    if devices == "auto":
        return [name for name in known if name != "cpu"] or ["cpu"]
    names = [name.strip() for name in devices.split(",")]
    names = ["cuda:0" if name == "cuda" else name for name in names]
    for name in names:
        if name not in known:
            raise DeviceError(
                f"this machine has no device {name!r}{nearest(name, (*known, 'auto'))}",
                where="--devices",
                found=devices,
                allowed=f"auto, {', '.join(known)}",
                next_step="name an available device, or omit --devices",
            )
    if len(set(names)) < len(names):
        raise DeviceError(
            "a device is named twice",
            where="--devices",
            found=devices,
            next_step="use --workers-per-device to put several workers on one",
        )
    return names
