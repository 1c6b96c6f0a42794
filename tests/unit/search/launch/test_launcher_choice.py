"""Launchers: what is refused before anything starts, and how a cluster is divided."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from search.launch import ray_cluster, slurm_queue
from search.launch.device_slots import Slot
from search.launch.launcher_choice import (
    Placement,
    _check_reach,
    resolve_placement,
    slurm_parameters,
)
from search.launch.ray import Share
from spaces.errors import DeviceError, InputError, LauncherError
from storage.location import StoreLocation

SQLITE = StoreLocation.parse("sqlite:///search.db")
SERVER_URL = "postgresql://me:s3cret-word@db.example.org/search"
SERVER = StoreLocation.parse(SERVER_URL)
SBATCH = {"reservation", "licenses", "array", "output"}


def place(**changes: Any) -> Placement:
    """A local placement with changes."""
    return Placement(
        **(
            {
                "engine": "local",
                "devices": "auto",
                "workers": None,
                "per_device": 1,
                "cpus": None,
                "ray_address": None,
                "slurm": (),
            }
            | changes
        )
    )


def node(cpus: int, gpus: int = 0, address: str = "10.0.0.1") -> dict[str, Any]:
    """A node as Ray lists it."""
    return {
        "NodeManagerAddress": address,
        "Alive": True,
        "Resources": {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {}),
    }


class TestResolvePlacement:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"ray_address": "10.0.0.1:6379"}, "--ray-address is an option of another launcher"),
            ({"slurm": ("partition=gpu",)}, "--slurm is an option of another launcher"),
            (
                {"engine": "ray", "slurm": ("partition=gpu",)},
                "--slurm is an option of another launcher",
            ),
        ],
    )
    def test_other_launcher(self, changes: dict[str, Any], words: str) -> None:
        """An option of a launcher that was not chosen is refused."""
        with pytest.raises(LauncherError, match=words):
            resolve_placement(place(**changes), SQLITE, [])

    def test_password_shown(self) -> None:
        """Ray shows command lines, so that a password in this one is refused, without being repeated."""
        with pytest.raises(
            LauncherError, match="the store's password is on the command line"
        ) as caught:
            resolve_placement(place(engine="ray"), SERVER, ["search", "run", "--store", SERVER_URL])
        assert "s3cret-word" not in str(caught.value)

    def test_no_slurm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without Slurm the error says so."""
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(LauncherError, match="Slurm is not installed on this machine"):
            resolve_placement(place(engine="slurm", workers=2), SERVER, [])

    def test_threads(self) -> None:
        """`--cpus-per-worker` also sets the threads of local workers."""
        factory, warnings = resolve_placement(place(devices="cpu", workers=2, cpus=3), SQLITE, [])
        assert (factory.args[0], warnings) == ([Slot("cpu", 3)] * 2, [])  # type: ignore[attr-defined]


class TestReach:
    @pytest.mark.parametrize(
        "url",
        [
            "sqlite:///search.db",
            "postgresql://localhost/search",
            "postgresql://127.0.0.1/search",
            "postgresql:///search",
            "postgresql:///search?host=/run/postgresql",
        ],
    )
    def test_refused(self, url: str) -> None:
        """A store that only this machine can use is refused when there are others, and accepted otherwise."""
        _check_reach(StoreLocation.parse(url), [], "ray")
        with pytest.raises(
            LauncherError, match="the other machines of the cluster cannot use this store"
        ) as caught:
            _check_reach(StoreLocation.parse(url), ["10.0.0.2", "10.0.0.3"], "ray")
        assert "2 other machines: 10.0.0.2, 10.0.0.3" in str(caught.value)

    def test_server(self) -> None:
        """A server with a host name is accepted."""
        _check_reach(SERVER, ["10.0.0.2"], "slurm")

    def test_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The nodes of a Slurm cluster are other machines unless they have this one's name."""
        here = socket.gethostname()
        monkeypatch.setattr(
            slurm_queue,
            "_run_command",
            lambda *_: (
                f"NodeName=a NodeHostName={here} State=IDLE\nNodeName=b NodeHostName=far State=IDLE\n"
            ),
        )
        assert slurm_queue.other_machines() == ["far"]


class TestRayShares:
    def test_gpus(self) -> None:
        """Two workers on a GPU take half of it each, and divide the CPUs of the smallest node."""
        shares, warning = ray_cluster.plan_shares(
            "auto", None, 2, None, [node(16, 4), node(8, 1), node(64)]
        )
        assert (shares, warning) == ([Share(Slot("cuda:0", 2), 0.5)] * 10, "")

    def test_cpus(self) -> None:
        """Without GPUs there are at most four workers per node, which divide its CPUs."""
        assert (
            ray_cluster.plan_shares("auto", None, 1, None, [node(16), node(8)])[0]
            == [Share(Slot("cpu", 2), 0)] * 8
        )
        assert (
            ray_cluster.plan_shares("auto", None, 1, 4, [node(16), node(8)])[0]
            == [Share(Slot("cpu", 4), 0)] * 6
        )

    def test_more_than_room(self) -> None:
        """Workers without room are requested all the same, because a cluster may grow."""
        shares, warning = ray_cluster.plan_shares("cpu", 5, 1, 4, [node(8, 2)])
        assert len(shares) == 5
        assert (
            warning
            == "the Ray cluster has room for 2 of 5 workers now; the others wait for more nodes"
        )

    @pytest.mark.parametrize(
        ("devices", "cpus", "words"),
        [
            ("cuda", None, "no node of the Ray cluster has a GPU"),
            ("cuda:1", None, "Ray chooses among the GPUs itself"),
            ("auto", 64, "no node of the Ray cluster has 64 CPUs"),
        ],
    )
    def test_absent(self, devices: str, cpus: int | None, words: str) -> None:
        """Devices that no node has are refused."""
        with pytest.raises(DeviceError, match=words):
            ray_cluster.plan_shares(devices, None, 1, cpus, [node(16)])

    @pytest.mark.parametrize(
        "address", ["ray://somewhere:10001", "somewhere", "host:port", "host:70000"]
    )
    def test_malformed(self, address: str) -> None:
        """A malformed address is refused before Ray tries it for a minute."""
        with pytest.raises(LauncherError, match="the address of a Ray cluster is malformed"):
            ray_cluster.join_cluster(address)

    def test_unreachable(self) -> None:
        """An address where no cluster answers is refused."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(LauncherError, match="no Ray cluster answers"):
                ray_cluster.join_cluster(f"127.0.0.1:{taken.getsockname()[1]}")


class TestSlurmParameters:
    def test_sorted(self) -> None:
        """Parameters of submitit and other options of sbatch are separated; dashes and underscores are the same."""
        made = slurm_parameters(
            ["partition=gpu", "time=2:00:00", "signal-delay-s=30", "reservation=ours"], SBATCH
        )
        assert made == {
            "partition": "gpu",
            "time": "2:00:00",
            "signal_delay_s": 30,
            "additional_parameters": {"reservation": "ours"},
        }

    @pytest.mark.parametrize(
        ("assignment", "words"),
        [
            ("partitoin=gpu", "sbatch has no option 'partitoin' .did you mean 'partition'"),
            ("partition", "--slurm takes name=value"),
            ("comment=a\n#SBATCH --uid=0", "--slurm takes name=value"),
            ("array=0-9", "the workers depend on 'array', which is already set"),
            ("signal_delay_s=soon", "--slurm signal_delay_s takes a number"),
        ],
    )
    def test_refused(self, assignment: str, words: str) -> None:
        """An unknown name, one that the workers depend on, and a second line are refused."""
        with pytest.raises(InputError, match=words):
            slurm_parameters([assignment], SBATCH)


class TestSlurmQueue:
    def test_states(self) -> None:
        """The output of squeue, by job."""
        assert slurm_queue.parse_states("12_0 RUNNING\n12_1 PENDING\n\n") == {
            "12_0": "RUNNING",
            "12_1": "PENDING",
        }

    def test_hidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A variable is hidden within the block, and restored after it."""
        monkeypatch.setenv("SEARCH_STORE", SERVER_URL)
        with slurm_queue.hidden_variables("SEARCH_STORE", "SEARCH_ABSENT"):
            assert "SEARCH_STORE" not in os.environ
        assert os.environ["SEARCH_STORE"] == SERVER_URL
        assert "SEARCH_ABSENT" not in os.environ
