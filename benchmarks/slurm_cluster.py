"""A real Slurm on this machine: munged, slurmctld and a slurmd for each of two nodes."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.commands import environment, started

TOOLS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scancel",
    "scontrol",
    "sinfo",
)
SBIN = "/usr/sbin:/sbin"
UP_S = 60.0

PREEMPTIBLE = "PriorityTier=1 PreemptMode=REQUEUE GraceTime=30"

CONFIGURATION = """
ClusterName=search
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
ReturnToService=2
KillWait=10
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node[0-1] NodeHostName={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=1
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP {preemptible}
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """The first of Slurm's programs that is not here; empty when all are."""
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    return next((tool for tool in TOOLS if shutil.which(tool, path=path) is None), "")


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands, and so ours, find the cluster."""
    with (
        tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as temporary,
        ExitStack() as daemons,
    ):
        folder, host, ports = Path(temporary), socket.gethostname().partition(".")[0], _free_ports()
        folder.chmod(0o755)  # munge's socket is for everyone
        variables = environment(
            PATH=f"{os.environ.get('PATH', '')}:{SBIN}", SLURM_CONF=str(folder / "slurm.conf")
        )
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=host,
                user=getpass.getuser(),
                folder=folder,
                ports=ports,
                preemptible=PREEMPTIBLE,
            ),
            encoding="utf-8",
        )
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        private = {
            "key-file": key,
            "socket": folder / "munge.socket",
            "pid-file": folder / "munge.pid",
            "log-file": folder / "munge.log",
            "seed-file": folder / "munge.seed",
        }
        commands = {
            "munged": [
                "munged",
                "--foreground",
                "--force",
                *(f"--{name}={path}" for name, path in private.items()),
            ],
            "slurmctld": ["slurmctld", "-D", "-c"],
            "node0": ["slurmd", "-D", "-N", "node0"],
            "node1": ["slurmd", "-D", "-N", "node1"],
        }
        for name, command in commands.items():
            (folder / name).mkdir()
            (folder / "state").mkdir(exist_ok=True)
            daemons.enter_context(started(command, folder / name, variables))
            time.sleep(1)
        _wait_until_up(folder, variables)
        yield variables
        _wait_until_empty(variables)


def read_output(variables: dict[str, str], *command: str) -> str:
    """What one of Slurm's commands says."""
    return subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def _wait_until_up(folder: Path, variables: dict[str, str]) -> None:
    deadline = time.monotonic() + UP_S
    while time.monotonic() < deadline:
        asked = subprocess.run(
            ["sinfo", "-h", "-p", "low", "-o", "%T %D"],
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if asked.stdout.split() == ["idle", "2"]:
            return
        time.sleep(0.5)
    words = [
        f"{log.parent.name}: {' '.join(log.read_text(errors='replace').splitlines()[-3:])}"
        for log in folder.glob("*/log.txt")
    ]
    raise SystemExit("\n".join([f"Slurm did not come up within {UP_S:.0f} s", *words]))


def _wait_until_empty(variables: dict[str, str]) -> None:
    """The last processes of a job end only while they can report to a controller."""
    deadline = time.monotonic() + UP_S
    while read_output(variables, "squeue", "-h").strip() and time.monotonic() < deadline:
        time.sleep(0.5)


def _free_ports() -> tuple[int, int, int]:
    """One for the controller, and two that follow one another for the nodes."""
    for _ in range(100):
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                for other in (port + 1, port + 2):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", other))
            except OSError:
                continue
            return port, port + 1, port + 2
    raise SystemExit("there are no three free ports in a row")
