"""Which devices there are, and how the workers share them. Asks the driver, not torch: a supervisor stays light."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from spaces.errors import DeviceError, nearest

MAX_CPU_WORKERS = 4
"""Workers started on a CPU unless a number is asked for: each holds its own copy of torch in memory."""


@dataclass(frozen=True)
class Slot:
    """A place for one worker."""

    device: str
    threads: int


def present_devices() -> tuple[str, ...]:
    """`cpu`, and `cuda:0` … as the driver lists them, or as CUDA_VISIBLE_DEVICES narrows them down."""
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


def own_device(name: str) -> str:
    """`auto` as the first GPU that this process may use, else the CPU; an engine says by CUDA_VISIBLE_DEVICES which that is."""
    return _names("auto", present_devices())[0] if name == "auto" else name


def plan_slots(
    devices: str, workers: int | None, per_device: int, present: tuple[str, ...] | None = None
) -> list[Slot]:
    """One slot a worker; the CPU's threads are divided among them.

    Args:
        devices: `auto`, or names with commas between.
        workers: how many in all; None: `per_device` on each GPU, or one a core on a CPU, four at most.
        per_device: workers that share a GPU.
        present: what is there; found out when None.

    Raises:
        DeviceError: for a device that is not there, or one named twice.
    """
    known = present_devices() if present is None else present
    names = _names(devices, known)
    cores = len(os.sched_getaffinity(0))
    if workers is None:
        gpus = [name for name in names if name != "cpu"]
        names = [*names, *gpus * (per_device - 1)]
        workers = len(names) if gpus else min(cores, MAX_CPU_WORKERS)
    threads = max(1, cores // workers)
    return [Slot(names[index % len(names)], threads) for index in range(workers)]


def _names(devices: str, known: tuple[str, ...]) -> list[str]:
    if devices == "auto":
        return [name for name in known if name != "cpu"] or ["cpu"]
    names = [name.strip() for name in devices.split(",")]
    names = ["cuda:0" if name == "cuda" else name for name in names]
    for name in names:
        if name not in known:
            what = f"there is no device {name!r} here{nearest(name, (*known, 'auto'))}"
            raise DeviceError(
                what,
                where="--devices",
                found=devices,
                allowed=f"auto, {', '.join(known)}",
                next_step="name a device that is here, or leave --devices out",
            )
    if len(set(names)) < len(names):
        raise DeviceError(
            "a device is named twice",
            where="--devices",
            found=devices,
            next_step="use --workers-per-device to put several workers on one",
        )
    return names
