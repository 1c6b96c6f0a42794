"""Engines that place workers: what is refused before anything is started, and how a cluster is shared out."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from search.launch import ray_cluster, slurm_queue
from search.launch.devices import Slot
from search.launch.placement import Placement, _check_reach, prepare, slurm_parameters
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


class TestPrepare:
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
            prepare(place(**changes), SQLITE, [])

    def test_password_shown(self) -> None:
        """Ray publishes command lines, so that a password in this one is refused, without being repeated."""
        with pytest.raises(
            LauncherError, match="the store's password stands on the command line"
        ) as caught:
            prepare(place(engine="ray"), SERVER, ["search", "run", "--store", SERVER_URL])
        assert "s3cret-word" not in str(caught.value)

    def test_no_slurm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where Slurm is absent, that is said."""
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(LauncherError, match="Slurm is not on this machine"):
            prepare(place(engine="slurm", workers=2), SERVER, [])

    def test_threads(self) -> None:
        """`--cpus-per-worker` sets the threads of local workers, too."""
        hire, warnings = prepare(place(devices="cpu", workers=2, cpus=3), SQLITE, [])
        assert (hire.args[0], warnings) == ([Slot("cpu", 3)] * 2, [])  # type: ignore[attr-defined]


class TestReach:
    @pytest.mark.parametrize(
        "url",
        [
            SQLITE,
            "postgresql://localhost/search",
            "postgresql://127.0.0.1/search",
            "postgresql:///search",
            "postgresql:///search?host=/run/postgresql",
        ],
    )
    def test_refused(self, url: str) -> None:
        """A store that stands on this machine is refused when others are to use it, and taken when there are none."""
        _check_reach(StoreLocation.parse(url), [], "ray")
        with pytest.raises(
            LauncherError, match="the other machines of the cluster cannot use this store"
        ) as caught:
            _check_reach(StoreLocation.parse(url), ["10.0.0.2", "10.0.0.3"], "ray")
        assert "2 other machines: 10.0.0.2, 10.0.0.3" in str(caught.value)

    def test_server(self) -> None:
        """A server with a name of its own is taken."""
        _check_reach(SERVER, ["10.0.0.2"], "slurm")

    def test_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The nodes of a Slurm cluster are other machines unless they bear this one's name."""
        here = socket.gethostname()
        monkeypatch.setattr(
            slurm_queue,
            "_run",
            lambda *_: (
                f"NodeName=a NodeHostName={here} State=IDLE\nNodeName=b NodeHostName=far State=IDLE\n"
            ),
        )
        assert slurm_queue.other_machines() == ["far"]


class TestRayShares:
    def test_gpus(self) -> None:
        """Two workers on a GPU take half of it each, and divide the CPUs of the poorest node."""
        shares, warning = ray_cluster.plan_shares(
            "auto", None, 2, None, [node(16, 4), node(8, 1), node(64)]
        )
        assert (shares, warning) == ([Share(Slot("cuda:0", 2), 0.5)] * 10, "")

    def test_cpus(self) -> None:
        """Without GPUs there are four workers a node at most, each with its part of the CPUs."""
        assert (
            ray_cluster.plan_shares("auto", None, 1, None, [node(16), node(8)])[0]
            == [Share(Slot("cpu", 2), 0)] * 8
        )
        assert (
            ray_cluster.plan_shares("auto", None, 1, 4, [node(16), node(8)])[0]
            == [Share(Slot("cpu", 4), 0)] * 6
        )

    def test_more_than_room(self) -> None:
        """Workers for whom there is no room are asked for all the same: a cluster may grow."""
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
            ("cuda:1", None, "Ray itself chooses among the GPUs"),
            ("auto", 64, "no node of the Ray cluster has 64 CPUs"),
        ],
    )
    def test_absent(self, devices: str, cpus: int | None, words: str) -> None:
        """What no node has is refused."""
        with pytest.raises(DeviceError, match=words):
            ray_cluster.plan_shares(devices, None, 1, cpus, [node(16)])

    @pytest.mark.parametrize(
        "address", ["ray://somewhere:10001", "somewhere", "host:port", "host:70000"]
    )
    def test_malformed(self, address: str) -> None:
        """An address that no cluster can have is refused before Ray tries it for a minute."""
        with pytest.raises(LauncherError, match="no Ray cluster has such an address"):
            ray_cluster.join(address)

    def test_nobody(self) -> None:
        """So is one where nobody answers."""
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            with pytest.raises(LauncherError, match="no Ray cluster answers"):
                ray_cluster.join(f"127.0.0.1:{held.getsockname()[1]}")


class TestSlurmParameters:
    def test_sorted(self) -> None:
        """Names of submitit go to submitit, the others of sbatch beside them; dashes and underscores are the same."""
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
            ("array=0-9", "the workers depend on 'array', which is set already"),
            ("signal_delay_s=soon", "--slurm takes a number there"),
        ],
    )
    def test_refused(self, assignment: str, words: str) -> None:
        """A name that Slurm does not have, or that is not the user's to set, is refused; so is a second line."""
        with pytest.raises(InputError, match=words):
            slurm_parameters([assignment], SBATCH)


class TestSlurmQueue:
    def test_states(self) -> None:
        """The lines of squeue, by job."""
        assert slurm_queue.parse_states("12_0 RUNNING\n12_1 PENDING\n\n") == {
            "12_0": "RUNNING",
            "12_1": "PENDING",
        }

    def test_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A variable is hidden from what is started inside, and there again afterwards."""
        monkeypatch.setenv("SEARCH_STORE", SERVER_URL)
        with slurm_queue.without("SEARCH_STORE", "SEARCH_ABSENT"):
            assert "SEARCH_STORE" not in os.environ
        assert os.environ["SEARCH_STORE"] == SERVER_URL
        assert "SEARCH_ABSENT" not in os.environ
