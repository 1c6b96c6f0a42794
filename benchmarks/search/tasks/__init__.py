"""Tasks: learning curves that a search method is given instead of trainings, by name."""

from __future__ import annotations

from pathlib import Path

from benchmarks.campaign import records
from benchmarks.search.tasks.base import Task

SCENES = ("first", "second", "camvid", "nuclei")
"""Campaigns that tasks are made of; those without a recording in this checkout are left out."""

LCBENCH = "lcbench:"
"""What the name of a task of LCBench starts with; its id follows."""

PLANTED = "planted"


def make_task(name: str, lcbench: Path | None = None) -> Task:
    """Make the task called `name`.

    Args:
        name: a campaign, `lcbench:ID`, or `planted`.
        lcbench: the folder with LCBench's surrogate.

    Raises:
        SystemExit: when there is no such task, or what it needs is missing.
    """
    if name in SCENES:
        from benchmarks.search.tasks.scenes import SceneTask

        return SceneTask(name)
    if name.startswith(LCBENCH):
        from benchmarks.search.tasks.lcbench import LcbenchTask

        if lcbench is None:
            raise SystemExit(f"{name} needs --lcbench FOLDER, the folder with model.onnx")
        return LcbenchTask(lcbench, name.removeprefix(LCBENCH))
    if name == PLANTED:
        from benchmarks.search.tasks.planted import PlantedTask

        return PlantedTask()
    raise SystemExit(f"there is no task {name!r}; choose from {', '.join(SCENES)}, {LCBENCH}ID")


def list_tasks(lcbench: Path | None = None) -> list[str]:
    """The names of the tasks that can be made here: recorded campaigns, then those of LCBench."""
    names = [name for name in SCENES if records(name).exists()]
    if lcbench is not None:
        from benchmarks.search.tasks.lcbench import TASK_IDS

        names += [f"{LCBENCH}{task_id}" for task_id in TASK_IDS]
    return names
