"""Listing devices, and dividing them among workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.launch.device_slots import (
    MAX_CPU_WORKERS,
    Slot,
    list_devices,
    plan_slots,
    resolve_device,
)
from spaces.errors import DeviceError

HERE = ("cpu", "cuda:0", "cuda:1")
CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process on a single core, as a container may have it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def refusal(devices: str, present: tuple[str, ...] = HERE) -> DeviceError:
    """Why the devices are refused."""
    with pytest.raises(DeviceError) as caught:
        plan_slots(devices, None, 1, present)
    return caught.value


class TestPlanSlots:
    @pytest.mark.parametrize(
        ("devices", "workers", "per_device", "present", "places"),
        [
            ("auto", None, 1, HERE, ["cuda:0", "cuda:1"]),
            ("auto", None, 2, HERE, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
            ("auto", 3, 1, HERE, ["cuda:0", "cuda:1", "cuda:0"]),
            ("auto", 1, 1, HERE, ["cuda:0"]),
            ("cuda:1", None, 1, HERE, ["cuda:1"]),
            ("cuda", None, 1, HERE, ["cuda:0"]),
            (" cuda:1 , cuda:0", None, 1, HERE, ["cuda:1", "cuda:0"]),
            ("cpu", 3, 1, HERE, ["cpu", "cpu", "cpu"]),
            ("auto", 2, 1, ("cpu",), ["cpu", "cpu"]),
            ("auto", None, 1, ("cpu",), ["cpu"] * min(CORES, MAX_CPU_WORKERS)),
            ("cuda:0,cpu", 2, 1, HERE, ["cuda:0", "cpu"]),
        ],
    )
    def test_places(
        self,
        devices: str,
        workers: int | None,
        per_device: int,
        present: tuple[str, ...],
        places: list[str],
    ) -> None:
        """Workers are placed on the given devices in turn: on GPUs if there are any, else on cores."""
        assert [slot.device for slot in plan_slots(devices, workers, per_device, present)] == places

    @pytest.mark.parametrize("devices", ["cpu,cuda:0", "cuda:0,cpu"])
    def test_mixed(self, devices: str) -> None:
        """A named GPU gets a worker, at any position in the list."""
        assert "cuda:0" in [slot.device for slot in plan_slots(devices, None, 1, HERE)]

    @pytest.mark.parametrize("workers", [1, 2, 3, 64])
    def test_threads(self, workers: int) -> None:
        """The cores are divided evenly, rounded down, with at least one per worker."""
        assert (
            plan_slots("cpu", workers, 1, HERE) == [Slot("cpu", max(1, CORES // workers))] * workers
        )

    @pytest.mark.usefixtures("one_core")
    def test_one_core(self) -> None:
        """Only the cores that this process may use count."""
        assert plan_slots("auto", None, 1, ("cpu",)) == [Slot("cpu", 1)]

    @pytest.mark.parametrize(
        ("devices", "what"),
        [
            ("cuda:7", "this machine has no device 'cuda:7' (did you mean 'cuda:"),
            ("cup", "this machine has no device 'cup' (did you mean 'cpu'?)"),
            ("cuda:0,tpu:0", "this machine has no device 'tpu:0'"),
            ("", "this machine has no device ''"),
            ("cuda:0,", "this machine has no device ''"),
        ],
    )
    def test_absent(self, devices: str, what: str) -> None:
        """An unknown device is refused, with the nearest match and all available ones."""
        error = refusal(devices)
        assert error.what.startswith(what)
        assert (error.where, error.found, error.allowed) == (
            "--devices",
            devices,
            "auto, cpu, cuda:0, cuda:1",
        )

    def test_no_gpu(self) -> None:
        """`cuda` without a GPU is refused under the name of the first one."""
        assert refusal("cuda", ("cpu",)).what.startswith("this machine has no device 'cuda:0'")

    @pytest.mark.parametrize("devices", ["cuda:0,cuda:0", "cuda,cuda:0", "cpu,cpu"])
    def test_twice(self, devices: str) -> None:
        """A device named twice is a mistake; several workers on one have an option of their own."""
        error = refusal(devices)
        assert error.what == "a device is named twice"
        assert "--workers-per-device" in error.next_step


class TestPresentDevices:
    @pytest.fixture
    def driver(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A driver's tool that lists two GPUs, one of them with a MIG device."""
        tool = tmp_path / "nvidia-smi"
        tool.write_text(
            "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\necho '  MIG 1g.18gb Device 0: (UUID: MIG-1)'\necho 'GPU 1: NVIDIA H200 (UUID: GPU-2)'\n"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return tool

    @pytest.mark.usefixtures("driver")
    @pytest.mark.parametrize(
        ("visible", "devices"),
        [
            (None, HERE),
            ("0", HERE[:2]),
            ("1", HERE[:2]),
            ("0,1", HERE),
            ("0,1,2,3", HERE),
            ("", ("cpu",)),
            ("-1", ("cpu",)),
        ],
    )
    def test_listed(
        self, monkeypatch: pytest.MonkeyPatch, visible: str | None, devices: tuple[str, ...]
    ) -> None:
        """The CPU and the GPUs that the driver lists, as far as CUDA_VISIBLE_DEVICES shows them, counted from 0."""
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert list_devices() == devices

    @pytest.mark.usefixtures("driver")
    @pytest.mark.parametrize(
        ("visible", "device"), [(None, "cuda:0"), ("1", "cuda:0"), ("", "cpu")]
    )
    def test_own(self, monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str) -> None:
        """A single worker's `auto` is the first GPU that it may use, else the CPU; any other name stays."""
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert resolve_device("auto") == device
        assert resolve_device("cuda:7") == "cuda:7"

    def test_broken_driver(self, driver: Path) -> None:
        """A driver that fails counts as having no GPUs."""
        driver.write_text("#!/bin/sh\nexit 9\n")
        assert list_devices() == ("cpu",)

    def test_no_driver(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Without a driver there is only the CPU."""
        monkeypatch.setenv("PATH", str(tmp_path))
        assert list_devices() == ("cpu",)
