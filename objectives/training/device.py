"""Devices by name, and the threads of this process."""

from __future__ import annotations

import os

import torch

from spaces.errors import DeviceError, nearest


def available_devices() -> tuple[str, ...]:
    """`cpu`, and every CUDA device as `cuda:0`, `cuda:1`, …"""
    return ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))


def use_device(name: str, threads: int) -> None:
    """Give this process its device and its share of CPU threads.

    The arithmetic is made repeatable: the number of threads decides the order of sums, and cuDNN is told not to
    choose its algorithms by the clock.

    Raises:
        DeviceError: when there is no such device.
    """
    known = available_devices()
    if name not in known:
        what = f"there is no device {name!r}{nearest(name, known)}"
        raise DeviceError(
            what,
            where="the device",
            found=name,
            allowed=", ".join(known),
            next_step="name a device that is here",
        )
    torch.set_num_threads(threads)
    if name.startswith("cuda"):
        torch.cuda.set_device(name)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
