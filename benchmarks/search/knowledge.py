"""Makes the prior that ships with the package: `python -m benchmarks.search.knowledge`.

It reads the recorded campaigns, fits one model over all of them, and writes the rows and the length
scales. The benchmark leaves a campaign out where it is the task.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from functools import cache

from benchmarks.campaign import records
from benchmarks.search.tasks import SCENES
from benchmarks.search.tasks.scenes import Campaign
from search.planning.plan import complete_config
from search.sampling.freeze_thaw.curve_model import Scales, fit_scales
from search.sampling.freeze_thaw.prior import (
    SHIPPED,
    Knowledge,
    Lesson,
    join_lessons,
    make_lesson,
    save_knowledge,
)
from spaces.recordings import read_recording

NOISE_FACTOR = 3.0
LENGTH_FACTOR = 1.5
"""How much larger than fitted; of 1 to 5 and 1 to 1.5, by what two campaigns teach of each other."""

FITS = 5
"""Fits one after the other, each from the last one's result."""


def read_lesson(name: str) -> Lesson:
    """Read the trials of a campaign that ran to their end, or diverged."""
    campaign = Campaign(name)
    plan = campaign.plan
    fixed = dict(complete_config(plan.objective, plan.starting_tree(None)))
    trials = [trial for trial in read_recording(records(name)).trials if trial.state != "running"]
    configurations = [{**fixed, **trial.params} for trial in trials]
    finals = [max(metrics) for metrics in campaign.metrics]
    return make_lesson(name, configurations, finals, campaign.epochs)


def fit_knowledge(names: list[str]) -> Knowledge:
    """Fit the model over several campaigns."""
    lessons = tuple(read_lesson(name) for name in names)
    data = join_lessons(lessons)
    scales = fit_scales(data)
    for _ in range(FITS - 1):
        scales = fit_scales(data, scales)
    return Knowledge(lessons, smooth_scales(scales))


def smooth_scales(scales: Scales) -> Scales:
    """Make what was learned smoother, because another data set differs more than these do."""
    return replace(
        scales,
        own_final=scales.own_final + math.log(NOISE_FACTOR),
        lengths_D=scales.lengths_D + math.log(LENGTH_FACTOR),
    )


@cache
def fit_without(task: str) -> Knowledge:
    """Fit the model over all campaigns but one, which it is tried on."""
    return fit_knowledge([name for name in recorded_names() if name != task])


def recorded_names() -> list[str]:
    """The campaigns that are recorded in this checkout."""
    return [name for name in SCENES if records(name).exists()]


def main() -> int:
    """Write the file."""
    names = recorded_names()
    knowledge = fit_knowledge(names)
    save_knowledge(knowledge, SHIPPED)
    rows = sum(len(lesson.score_R) for lesson in knowledge.lessons)
    size = SHIPPED.stat().st_size / 1000
    print(f"{rows} trials of {', '.join(names)}: {size:.0f} kB written to {SHIPPED.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
