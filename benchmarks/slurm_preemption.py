"""A worker that Slurm preempts: `python -m benchmarks.slurm_preemption`, where Slurm is installed.

A real Slurm of two nodes is started on this machine. Two workers train in a partition of low
priority; a job of high priority takes a node from one of them during a trial. The worker has to
release its trial; its job has to wait in the queue and run again. Then Ctrl-C stops the search,
which has to remove its jobs from the queue, and the same command resumes it. Every trial has to
end as in a run on this machine alone, to the last bit.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import placed, report, slurm_cluster
from benchmarks.commands import environment, run, script, started
from benchmarks.databases import postgresql
from benchmarks.report import Figure, Result

LIMIT_S = 900.0
STOP_S = 60.0
"""How long a stopped job may take to leave the queue."""

HIGH_S = 8
"""How long the job of high priority keeps the node."""


def measure() -> Result:
    """Run the study on this machine, then on Slurm with a preemption."""
    with (
        tempfile.TemporaryDirectory(prefix="search-benchmark-") as temporary,
        postgresql(("alone", "slurm")) as (urls, version),
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
        with slurm_cluster.cluster() as variables:
            slurm = slurm_cluster.read_output(variables, "sinfo", "--version").strip()
            measured = _preempted(
                search, folders["slurm"], variables | {"SEARCH_STORE": urls["slurm"]}
            )
        return _judged(
            placed.outcomes(urls["alone"]),
            placed.outcomes(urls["slurm"]),
            measured,
            {"postgresql": version, "slurm": slurm},
        )


def _preempted(search: list[str], folder: Path, variables: dict[str, str]) -> dict[str, float]:
    """The study on Slurm, with a node taken from one of its workers; what Slurm measured of it."""
    url = variables["SEARCH_STORE"]
    command = [*search, "--launcher", "slurm", "--slurm", "partition=low"]
    with started(command, folder, variables) as process:
        placed.until(
            lambda: sum(epochs >= 3 for epochs in placed.epochs_of(url).values()) >= 2,
            "both workers train",
            LIMIT_S,
        )
        began = time.monotonic()
        slurm_cluster.read_output(
            variables,
            "sbatch",
            "-p",
            "high",
            "-w",
            "node0",
            "-o",
            "/dev/null",
            f"--wrap=sleep {HIGH_S}",
        )
        placed.until(
            lambda: "high R" in _queue(variables), "the job of high priority runs", LIMIT_S
        )
        yielded_s = time.monotonic() - began
        placed.until(
            lambda: "low PD" in _queue(variables), "the preempted job waits in the queue", LIMIT_S
        )
        placed.until(
            lambda: _queue(variables).count("low R") == 2 and _both_train(url),
            "the preempted job runs again and trains",
            LIMIT_S,
        )
        shown = slurm_cluster.read_output(variables, "scontrol", "show", "job") + _files(folder)
        process.send_signal(signal.SIGINT)
        code = process.wait(LIMIT_S)
    placed.until(
        lambda: "low" not in _queue(variables), "the jobs of the stopped search are gone", STOP_S
    )
    paused = sum(trial.state == "paused" for trial in placed.outcomes(url).values())
    shown += run(command, folder, variables, LIMIT_S)
    restarts = [int(number) for number in re.findall(r"Restarts=(\d+)", shown)]
    leaks = shown.count(url)
    left = len(list(folder.rglob("store.url")))
    measured = {
        "restarts": sum(restarts),
        "yielded_s": yielded_s,
        "leaks": leaks,
        "addresses left": left,
    }
    return measured | {"broke": _files(folder).count("Traceback"), "code": code, "paused": paused}


def _files(folder: Path) -> str:
    """Everything that lies there but the address itself."""
    return "".join(
        path.read_text(errors="replace")
        for path in folder.rglob("*")
        if path.is_file() and path.name != "store.url"
    )


def _both_train(url: str) -> bool:
    return sum(trial.state == "running" for trial in placed.outcomes(url).values()) == 2


def _queue(variables: dict[str, str]) -> str:
    return slurm_cluster.read_output(variables, "squeue", "-h", "-r", "-o", "%P %t")


def _judged(
    alone: dict[int, placed.Outcome],
    slurm: dict[int, placed.Outcome],
    measured: dict[str, float],
    facts: dict[str, str],
) -> Result:
    unequal = placed.differing(alone, slurm)
    figures = [
        Figure(
            "jobs that Slurm put into the queue again", measured["restarts"], "", 1, at_least=True
        ),
        Figure(
            "trials that ended",
            sum(trial.state == "complete" for trial in slurm.values()),
            "",
            placed.TRIALS,
            at_least=True,
        ),
        Figure("trials in the store", len(slurm), "", placed.TRIALS),
        Figure(
            "trials that another attempt resumed",
            sum(trial.attempt > 1 for trial in slurm.values()),
            "",
            1,
            at_least=True,
        ),
        Figure(
            "trials whose score or epochs differ from a run on this machine alone",
            len(unequal),
            "",
            0,
        ),
        Figure("tracebacks in the logs", measured["broke"], "", 0),
        Figure(
            "exit code after Ctrl-C, with both jobs gone from the queue",
            measured["code"],
            "",
            130,
            at_least=True,
        ),
        Figure("trials that Ctrl-C released", measured["paused"], "", 1, at_least=True),
        Figure("from the job of high priority to its start", measured["yielded_s"], "s"),
        Figure(
            "times that the store's address shows in Slurm's job list, batch files and logs",
            measured["leaks"],
            "",
            0,
        ),
        Figure("files with the store's address left at the end", measured["addresses left"], "", 0),
    ]
    return Result(
        figures,
        {"scores": {number: trial.score for number, trial in slurm.items()}, "unequal": unequal},
        facts,
    )


def main() -> int:
    """Measure, print and store the figures, or print why that is impossible."""
    options = report.parser(__doc__ or "").parse_args()
    if tool := slurm_cluster.missing():
        print(
            f"slurm_preemption: skipped, Slurm is not on this machine (no command {tool}; "
            "Debian has it in slurmctld, slurmd, slurm-client and munge)"
        )
        return 0
    return report.publish("slurm_preemption", measure(), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
