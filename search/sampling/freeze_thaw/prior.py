"""What recorded campaigns teach about configurations: a small prior that ships with the package."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from search.sampling.freeze_thaw.config_features import (
    FEATURE_NAMES,
    REQUIRED,
    describe_configs,
)
from search.sampling.freeze_thaw.curve_model import CurveData, CurveModel, Scales
from search.sampling.freeze_thaw.curves import Floats, Observations, rank_to_normal
from search.sampling.freeze_thaw.encoding import EncodedSpace, Points
from spaces.errors import RecordsError
from spaces.parameters import Scalar

SHIPPED = Path(__file__).with_name("campaigns.json")
VERSION = 1

STANDARDIZED_OVER = 1_000
"""Random configurations of a study over which what was learned is standardized."""

MOVED = 200
LENGTHS = (0.1, 10.0)
"""Random configurations that show what a dimension does to the features; bounds of its length."""

MOST = 3.0
"""No configuration is expected to be further from the mean than this, in standard deviations."""


@dataclass(frozen=True)
class Lesson:
    """Scores of one recorded campaign or study.

    Attributes:
        name: of it.
        features_RF: of each configuration, one row per trial.
        score_R: normal scores of the final scores within the campaign, higher is better.
    """

    name: str
    features_RF: Floats
    score_R: Floats


def make_lesson(
    name: str,
    configurations: Sequence[Mapping[str, Any]],
    scores: Sequence[float],
    epochs: int,
    sign: float = 1.0,
) -> Lesson:
    """Make a lesson from complete configurations and the scores that they reached.

    Args:
        name: of the campaign.
        configurations: dotted path → value.
        scores: final scores; one that is not finite counts as the worst.
        epochs: of a complete trial.
        sign: 1 if a larger score is better, −1 otherwise.
    """
    ranked = rank_to_normal(sign * np.asarray(scores, dtype=np.float64))
    return Lesson(name, describe_configs(configurations, epochs), ranked)


@dataclass(frozen=True)
class Knowledge:
    """Lessons with the length scales that were fitted on all of them.

    Attributes:
        lessons: of campaigns.
        scales: of the model over them.
    """

    lessons: tuple[Lesson, ...]
    scales: Scales

    def without(self, names: Collection[str]) -> Knowledge:
        """Return what the other campaigns teach."""
        kept = tuple(lesson for lesson in self.lessons if lesson.name not in names)
        return Knowledge(kept, self.scales)

    def without_all(self) -> Knowledge:
        """Return the length scales alone."""
        return Knowledge((), self.scales)

    def add_lessons(self, lessons: Sequence[Lesson]) -> Knowledge:
        """Return what these teach together with further ones."""
        return Knowledge((*self.lessons, *lessons), self.scales)

    @cached_property
    def model(self) -> CurveModel:
        """The posterior over final scores, given all lessons."""
        return CurveModel(join_lessons(self.lessons), self.scales)


def join_lessons(lessons: Sequence[Lesson]) -> CurveData:
    """Put the trials of several campaigns together, each observed at its last epoch."""
    features = np.concatenate([lesson.features_RF for lesson in lessons])
    scores = np.concatenate([lesson.score_R for lesson in lessons])
    rows = np.arange(len(scores))
    observed = Observations(rows, np.zeros(len(rows)), scores)
    count = features.shape[1]
    return CurveData(features, np.arange(count), count, observed)


class StudyPrior:
    """Expected scores of a study's configurations, standardized over the study's space.

    Args:
        knowledge: what was learned.
        space: of the study.
        fixed: values of the study's configuration that it does not search.
        epochs: of a complete trial.
    """

    def __init__(
        self, knowledge: Knowledge, space: EncodedSpace, fixed: Mapping[str, Any], epochs: int
    ) -> None:
        self._model = knowledge.model
        self._fixed = dict(fixed)
        self._epochs = epochs
        points = space.sample(np.random.default_rng(0), STANDARDIZED_OVER)
        expected = self._expect([space.decode(points, row) for row in range(len(points))])
        self.lengths_D: Floats | None = self._find_lengths(space)
        self._center = float(expected.mean())
        self._spread = max(float(expected.std()), 1e-6)

    def __call__(self, configurations: Sequence[Mapping[str, Scalar]]) -> Floats:
        """Return the expected score of each configuration, in standard deviations of the space."""
        scaled = (self._expect(configurations) - self._center) / self._spread
        return np.clip(scaled, -MOST, MOST)

    def _find_lengths(self, space: EncodedSpace) -> Floats:
        """Translate the length scales of the features to the dimensions of the study.

        A dimension is moved in random configurations; the length scale is how far it moves per unit
        of distance between the features.
        """
        generator = np.random.default_rng(0)
        points = space.sample(generator, MOVED)
        moved = space.sample(generator, MOVED)
        before = self._scaled_features(space, points)
        lengths = np.zeros(len(space))
        for column in range(len(space)):
            both = space.move(points, moved, column)
            after = self._scaled_features(space, both)
            apart = np.sqrt(((after - before) ** 2).sum(1)).mean()
            left, _ = space.features(points)
            right, _ = space.features(both)
            own = np.sqrt(((left - right) ** 2).sum(1)).mean()
            lengths[column] = np.log(np.clip(own / max(apart, 1e-6), *LENGTHS))
        return lengths

    def _scaled_features(self, space: EncodedSpace, points: Points) -> Floats:
        complete = [{**self._fixed, **space.decode(points, row)} for row in range(len(points))]
        scales = np.exp(self._model.scales.lengths_D)
        scaled: Floats = describe_configs(complete, self._epochs) / scales
        return scaled

    def _expect(self, configurations: Sequence[Mapping[str, Scalar]]) -> Floats:
        complete = [{**self._fixed, **params} for params in configurations]
        return self._model.predict_new(describe_configs(complete, self._epochs)).mean_P


def applies_to(space: EncodedSpace, fixed: Mapping[str, Any]) -> bool:
    """Whether a study's configurations have what the lessons are about, and it searches some."""
    known = {*space.paths, *fixed}
    return all(path in known for path in REQUIRED) and any(path in space.paths for path in REQUIRED)


def load_shipped() -> Knowledge:
    """Load what ships with the package."""
    return load_knowledge(SHIPPED)


def load_knowledge(path: Path) -> Knowledge:
    """Load knowledge from a file.

    Raises:
        RecordsError: when the file is of another version, or none that `save_knowledge` wrote.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        version = read["version"]
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise RecordsError(
            "this is no file of knowledge about configurations",
            where=str(path),
            found=str(problem) or type(problem).__name__,
            next_step="name a file that this program wrote",
        ) from None
    if version != VERSION or read["features"] != list(FEATURE_NAMES):
        raise RecordsError(
            "the knowledge in this file was written by another version of the program",
            where=str(path),
            found=f"version {version}",
            allowed=f"version {VERSION}",
            next_step="write it again from the recorded studies",
        )
    lessons = tuple(
        Lesson(each["name"], np.array(each["configs"]), np.array(each["scores"]))
        for each in read["lessons"]
    )
    return Knowledge(lessons, Scales.from_vector(np.array(read["scales"])))


def save_knowledge(knowledge: Knowledge, path: Path) -> None:
    """Write knowledge as JSON; tens of kilobytes for a few hundred trials."""
    written = {
        "version": VERSION,
        "features": list(FEATURE_NAMES),
        "scales": np.round(knowledge.scales.to_vector(), 4).tolist(),
        "lessons": [
            {
                "name": lesson.name,
                "configs": np.round(lesson.features_RF, 3).tolist(),
                "scores": np.round(lesson.score_R, 3).tolist(),
            }
            for lesson in knowledge.lessons
        ],
    }
    path.write_text(json.dumps(written, separators=(",", ":")) + "\n", encoding="utf-8")
