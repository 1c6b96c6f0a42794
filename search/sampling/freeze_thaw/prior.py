"""What recorded campaigns teach about configurations: a small prior that ships with the package."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from search.sampling.freeze_thaw.config_features import (
    FEATURE_NAMES,
    REQUIRED,
    describe_configs,
)
from search.sampling.freeze_thaw.curve_model import CurveData, CurveModel, Scales, fit_scales
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


class Prior(Protocol):
    """What earlier studies teach.

    Attributes:
        lengths_D: logarithms of the length scales that they suggest for the dimensions, if any.
    """

    lengths_D: Floats | None

    def __call__(self, configurations: Sequence[Mapping[str, Scalar]]) -> Floats:
        """Return the expected score of each configuration, in standard deviations of the space."""
        ...


Describe = Callable[[Sequence[Mapping[str, Scalar]]], Floats]
"""Turns sampled values into the features that a model was fitted on."""


class ModelPrior:
    """Expected scores by a model of earlier trials, standardized over the space of the study.

    Args:
        model: of the earlier trials.
        describe: returns the features of sampled values.
        space: of the study.
        least_spread: a smaller standard deviation over the space is not enlarged to 1.
    """

    lengths_D: Floats | None = None

    def __init__(
        self, model: CurveModel, describe: Describe, space: EncodedSpace, least_spread: float = 1e-6
    ) -> None:
        self._model = model
        self._describe = describe
        points = space.sample(np.random.default_rng(0), STANDARDIZED_OVER)
        expected = self._expect([space.decode(points, row) for row in range(len(points))])
        self._center = float(expected.mean())
        self._spread = max(float(expected.std()), least_spread)

    def __call__(self, configurations: Sequence[Mapping[str, Scalar]]) -> Floats:
        """Return the expected score of each configuration, in standard deviations of the space."""
        scaled = (self._expect(configurations) - self._center) / self._spread
        return np.clip(scaled, -MOST, MOST)

    def _expect(self, configurations: Sequence[Mapping[str, Scalar]]) -> Floats:
        return self._model.predict_new(self._describe(configurations)).mean_P


class StudyPrior(ModelPrior):
    """What campaigns teach about the configurations of a study, by the features of all values.

    Args:
        knowledge: what was learned.
        space: of the study.
        fixed: values of the study's configuration that it does not search.
        epochs: of a complete trial.
    """

    def __init__(
        self, knowledge: Knowledge, space: EncodedSpace, fixed: Mapping[str, Any], epochs: int
    ) -> None:
        constant = dict(fixed)

        def describe(configurations: Sequence[Mapping[str, Scalar]]) -> Floats:
            return describe_configs([{**constant, **params} for params in configurations], epochs)

        super().__init__(knowledge.model, describe, space)
        self.lengths_D: Floats | None = self._find_lengths(space)

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
        configurations = [space.decode(points, row) for row in range(len(points))]
        scaled: Floats = self._describe(configurations) / np.exp(self._model.scales.lengths_D)
        return scaled


@dataclass(frozen=True)
class EarlierStudy:
    """An earlier study, whatever its space, that the new one learns from.

    Attributes:
        name: of it.
        params: sampled values of its trials by dotted path.
        scores: their final scores; one that is not finite counts as the worst.
        sign: 1 if a larger score is better, −1 otherwise.
    """

    name: str
    params: Sequence[Mapping[str, Scalar]]
    scores: Sequence[float]
    sign: float


def make_earlier_prior(earlier: EarlierStudy, space: EncodedSpace) -> ModelPrior:
    """Make a prior of the trials of an earlier study, by the dimensions that both have."""

    def describe(configurations: Sequence[Mapping[str, Scalar]]) -> Floats:
        return space.features(space.encode(configurations))[0]

    score_R = rank_to_normal(earlier.sign * np.asarray(earlier.scores, dtype=np.float64))
    rows = np.arange(len(score_R))
    features_RF, owner_F = space.features(space.encode(earlier.params))
    observed = Observations(rows, np.zeros(len(rows)), score_R)
    data = CurveData(features_RF, owner_F, len(space), observed)
    # Scores without a pattern make a model that expects little difference: keep it so.
    return ModelPrior(CurveModel(data, fit_scales(data)), describe, space, least_spread=1.0)


class JoinedPrior:
    """The mean of several priors, with the length scales of the first one that has some.

    Args:
        parts: at least one.
    """

    def __init__(self, parts: Sequence[Prior]) -> None:
        self._parts = parts
        known = [part.lengths_D for part in parts if part.lengths_D is not None]
        self.lengths_D: Floats | None = known[0] if known else None

    def __call__(self, configurations: Sequence[Mapping[str, Scalar]]) -> Floats:
        """Return the expected score of each configuration, in standard deviations of the space."""
        expected: Floats = np.mean([part(configurations) for part in self._parts], axis=0)
        return expected


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
