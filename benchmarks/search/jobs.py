"""The runs of a comparison, made by several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.search.runner import run_method
from benchmarks.search.stored_runs import StoredRuns, make_key
from benchmarks.search.tasks import make_task
from benchmarks.search.tasks.base import Task


class Job(NamedTuple):
    """One run that is to be made."""

    task: str
    method: str
    seed: int
    trainings: int
    lcbench: Path | None


def list_jobs(
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: int,
    trainings: int,
    lcbench: Path | None = None,
) -> Iterator[Job]:
    """Every run of the comparison, seed by seed, so that a stopped one is paired."""
    for seed, task, method in product(range(seeds), tasks, methods):
        yield Job(task, method, seed, trainings, lcbench)


@cache
def open_task(name: str, lcbench: Path | None) -> Task:
    """Make a task once per process."""
    return make_task(name, lcbench)


def make_job_key(job: Job) -> str:
    """The key under which the run is stored."""
    return make_key(open_task(job.task, job.lcbench), job.method, job.seed, job.trainings)


def run_jobs(missing: Mapping[str, Job], stored: StoredRuns, processes: int) -> None:
    """Run jobs in processes of their own, and write each as soon as it is finished."""
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_use_one_thread) as pool:
        running = {pool.submit(run_job, job): key for key, job in missing.items()}
        for number, finished in enumerate(as_completed(running), 1):
            stored.append(running[finished], finished.result())
            if number % 50 == 0:
                print(f"{number} of {len(running)} runs", flush=True)


def run_job(job: Job) -> dict[str, Any]:
    """Run a method on a task; the trace as JSON."""
    task = open_task(job.task, job.lcbench)
    return run_method(task, job.method, job.seed, job.trainings).as_row()


def _use_one_thread() -> None:
    torch.set_num_threads(1)
