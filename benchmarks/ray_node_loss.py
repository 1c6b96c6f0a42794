"""A node of a Ray cluster that dies: `python -m benchmarks.ray_node_loss`.

A head and three nodes of one CPU each are started on this machine. Two workers train; in the midst
of a trial every process of a worker's node is killed at once. The study has to end with its exact
budget, and every trial as in a run without Ray, to the last bit.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks import placed, report
from benchmarks.commands import environment, finish, run, script, started
from benchmarks.databases import postgresql
from benchmarks.report import Figure, Result
from storage.location import StoreLocation

LIMIT_S = 900.0
NODES = 3
OBJECT_STORE_BYTES = 100 * 2**20


def measure() -> Result:
    """Run the study without Ray, then on the cluster with the loss of a node."""
    import ray

    with (
        tempfile.TemporaryDirectory(prefix="search-benchmark-") as temporary,
        postgresql(("alone", "ray")) as (urls, version),
    ):
        folders = {name: Path(temporary) / name for name in urls}
        for folder in folders.values():
            folder.mkdir()
            placed.write_study(folder)
        search = [
            script("search"),
            "run",
            "--study",
            "placed.yaml",
            "--devices",
            "cpu",
            "--workers",
            "2",
        ]
        run(search, folders["alone"], environment(SEARCH_STORE=urls["alone"]), LIMIT_S)
        measured = _with_a_loss(
            [*search, "--launcher", "ray", "--cpus-per-worker", "1"], folders["ray"], urls["ray"]
        )
        return _judged(
            placed.outcomes(urls["alone"]),
            placed.outcomes(urls["ray"]),
            measured,
            {"postgresql": version, "ray": ray.__version__},
        )


def _with_a_loss(search: list[str], folder: Path, url: str) -> dict[str, float]:
    """The study on the cluster; a node with a worker on it is killed."""
    from ray.cluster_utils import Cluster

    variables = environment(SEARCH_STORE=url, RAY_USAGE_STATS_ENABLED="0")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        },
    )
    try:
        nodes = [
            cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
            for _ in range(NODES)
        ]
        with started([*search, "--ray-address", cluster.address], folder, variables) as process:
            placed.until(
                lambda: sum(epochs >= 3 for epochs in placed.epochs_of(url).values()) >= 2,
                "both workers train",
                LIMIT_S,
            )
            holders = _holders(url)
            victim = next(
                node
                for node in nodes
                if {process.pid for process in _processes(node)} & set(holders)
            )
            (pid,) = {process.pid for process in _processes(victim)} & set(holders)
            killed = _kill(victim)
            began = time.monotonic()
            placed.until(lambda: _holders(url).get(pid) is None, "its trial was released", LIMIT_S)
            placed.until(lambda: _attempt(url, holders[pid]) > 1, "its trial runs again", LIMIT_S)
            again_s = time.monotonic() - began
            placed.until(
                lambda: len(_placed(nodes)) == 2 or process.poll() is not None,
                "there are two workers again",
                LIMIT_S,
            )
            replaced = len(_placed(nodes)) == 2
            finish(process, folder, LIMIT_S)
        return {"killed": killed, "again_s": again_s, "replaced": float(replaced)}
    finally:
        with suppress(Exception):  # the dead node has nothing to shut down any more
            cluster.shutdown()
        for node in cluster.list_all_nodes():
            _kill(node)


def _holders(url: str) -> dict[int, int]:
    """Process → number of the trial that it has."""
    return {
        trial.pid: trial.number
        for trial in _trials(url)
        if trial.state == "running" and trial.pid is not None and trial.number is not None
    }


def _attempt(url: str, number: int) -> int:
    return next(trial.attempt for trial in _trials(url) if trial.number == number)


def _trials(url: str) -> list[Any]:
    with StoreLocation.parse(url).open(create=False) as store:
        study = store.studies.find_study("placed")
        assert study is not None
        return store.trials.list_trials(study.id)


def _processes(node: Any) -> list[psutil.Process]:
    """Everything that runs on a node: what Ray started, and all that this started."""
    found: list[psutil.Process] = []
    for kind in node.all_processes.values():
        for info in kind:
            with suppress(psutil.NoSuchProcess):
                own = psutil.Process(info.process.pid)
                found += [own, *own.children(recursive=True)]
    return found


def _placed(nodes: list[Any]) -> list[psutil.Process]:
    """The workers on the nodes."""
    found = []
    for process in (process for node in nodes for process in _processes(node)):
        with suppress(psutil.Error):
            if process.cmdline()[1:4] == ["-m", "search.cli", "worker"]:
                found.append(process)
    return found


def _kill(node: Any) -> int:
    """Kill all of a node's processes at one moment, as a power cut does. Returns how many."""
    victims = _processes(node)
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return len(victims)


def _judged(
    alone: dict[int, placed.Outcome],
    ray: dict[int, placed.Outcome],
    measured: dict[str, float],
    facts: dict[str, str],
) -> Result:
    unequal = placed.differing(alone, ray)
    figures = [
        Figure("processes of the node killed", measured["killed"], "", 2, at_least=True),
        Figure(
            "trials that ended",
            sum(trial.state == "complete" for trial in ray.values()),
            "",
            placed.TRIALS,
            at_least=True,
        ),
        Figure("trials in the store", len(ray), "", placed.TRIALS),
        Figure(
            "trials that another attempt resumed",
            sum(trial.attempt > 1 for trial in ray.values()),
            "",
            1,
            at_least=True,
        ),
        Figure("trials whose score or epochs differ from a run without Ray", len(unequal), "", 0),
        Figure("from the loss to the next attempt of its trial", measured["again_s"], "s"),
        Figure(
            "Ray placed a worker in the stead of the lost one",
            measured["replaced"],
            "",
            1,
            at_least=True,
        ),
    ]
    return Result(
        figures,
        {"scores": {number: trial.score for number, trial in ray.items()}, "unequal": unequal},
        facts,
    )


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("ray_node_loss", measure(), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
