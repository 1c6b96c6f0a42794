"""Devices by name, the threads of this process, precision and peak memory."""

from __future__ import annotations

import os
import resource

import torch

from objectives.config import TrainingConfig
from spaces.errors import DeviceError, nearest


def available_devices() -> tuple[str, ...]:
    """List `cpu`, and every CUDA device as `cuda:0`, `cuda:1`, …"""
    return ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))


def use_device(name: str, threads: int) -> None:
    """Give this process its device and its share of CPU threads.

    Results become repeatable: the number of threads determines the order of sums, and cuDNN no
    longer chooses its algorithms by timing them.

    Raises:
        DeviceError: when there is no such device.
    """
    known = available_devices()
    if name not in known:
        raise DeviceError(
            f"there is no device {name!r}{nearest(name, known)}",
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


def choose_amp_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """Choose the type for mixed precision; None means float32, as always on the CPU.

    It is bfloat16 if the GPU supports it, and float16 with loss scaling if not.
    """
    if config.precision == "float32" or device.type != "cuda":
        return None
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def read_peak_mib(device: torch.device) -> float:
    """Read the peak memory in MiB.

    On a GPU it is that of the device's allocator in this epoch, on a CPU that of the process since
    its start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
