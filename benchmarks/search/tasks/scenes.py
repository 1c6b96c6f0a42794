"""Tasks made of recorded campaigns: segmentation under class imbalance, 30 epochs per trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.campaign import records, study
from benchmarks.search.configurations import Encoding, draw_params, nearest_value
from benchmarks.search.tasks.base import Params, Task
from benchmarks.search.tasks.curves import (
    NEIGHBORS,
    MeanCurves,
    SeedNoise,
    estimate_noise,
    pad_metrics,
)
from benchmarks.search.tasks.gaussian_process import Hyperparameters
from benchmarks.search.tasks.long_search import find_best
from search.planning.plan import complete_config, make_plan
from spaces.loader import load_study
from spaces.parameters import Parameter, Scalar, is_active
from spaces.recordings import read_recording

FITTED = Path(__file__).parent / "fitted"
CACHE = Path(".cache") / "search_tasks"

DESCRIBED, EARLY_EPOCHS = 500, (1, 3, 6, 10)
"""Random configurations and epochs at which the surrogate is compared with its recording."""

PRESETS = ("recommended", "untuned", "safe", "progressive")
"""Those of the shipped study `combined`, as far as a campaign's space can express them."""


class Campaign:
    """The recorded trials of a campaign over its space.

    Args:
        name: of the campaign.
    """

    def __init__(self, name: str) -> None:
        self.plan = make_plan(load_study(str(study(name))))
        self.epochs = self.plan.spec.epochs
        self.space: dict[str, Parameter] = {
            path: self.plan.spec.space[path] for path in self.plan.order
        }
        trials = [
            trial for trial in read_recording(records(name)).trials if trial.state != "running"
        ]
        self.encoding = Encoding(self.space)
        self.points = self.encoding.encode_all([trial.params for trial in trials])
        self.metrics = np.stack([pad_metrics(trial, self.epochs) for trial in trials])

    def presets(self) -> list[Params]:
        """The distinct configurations of the presets in this space."""
        found: list[Params] = []
        for name in PRESETS:
            params = self._preset_params(name)
            if params not in found:
                found.append(params)
        return found

    def _preset_params(self, name: str) -> Params:
        """A preset's values; one outside its dimension, such as no weight decay, is moved into it."""
        values = self.plan.complete_values(name)
        params: Params = {}
        for path, dimension in self.space.items():
            if is_active(dimension.when, params):
                params[path] = nearest_value(dimension, values.get(path))
        return params


class SceneTask(Task):
    """A campaign as a task; its curves are those of a surrogate, with noise as recorded.

    Args:
        name: of the campaign.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        campaign = Campaign(name)
        self.epochs, self.space = campaign.epochs, campaign.space
        self.presets = campaign.presets()
        plan = campaign.plan
        self.fixed = dict(complete_config(plan.objective, plan.starting_tree(None)))
        self.facts = load_facts(name, campaign)
        fitted = [read_hyperparameters(row) for row in self.facts["components"]]
        groups = campaign.encoding.groups
        self._encoding = campaign.encoding
        self._curves = MeanCurves(campaign.points, campaign.metrics, groups, fitted)
        self._dips = campaign.metrics / np.maximum(self._curves.running, 1e-9)
        self._shapes = self._curves.shapes(campaign.points)
        self._seed_noise = SeedNoise.read(self.epochs)
        self.version = self.facts["recording"]
        self.best, self.median = self.facts["best"], self.facts["median"]

    def curve(self, params: Mapping[str, Scalar], seed: int) -> list[float]:
        """The mean curve times the noise of a seed, with shape and dips of a recorded neighbor."""
        row = self._encoding.encode(params)
        generator = np.random.default_rng([seed, _hash(row)])
        mean = self._curves.predict(row[None])[0]
        scale = self.facts["noise"] / self._seed_noise.deviation
        noise = scale * self._seed_noise.draw(generator)
        neighbor = generator.choice(self._curves.parts[0].nearest(row, NEIGHBORS))
        running = np.maximum.accumulate(mean * np.exp(noise + self._shapes[neighbor]))
        return [float(value) for value in np.minimum(running, 1) * self._dips[neighbor]]

    def true_score(self, params: Mapping[str, Scalar]) -> float:
        """The last epoch of the mean curve."""
        return float(self._curves.predict(self._encoding.encode(params)[None])[0, -1])

    def description(self) -> dict[str, Any]:
        """What was fitted, and how early ranks of the surrogate compare with the recorded ones."""
        generator = np.random.default_rng(0)
        curves = [self.curve(draw_params(self.space, generator), seed) for seed in range(DESCRIBED)]
        ranks = {
            "early_ranks_recorded": _early_ranks(self._curves.running),
            "early_ranks_surrogate": _early_ranks(np.array(curves)),
        }
        facts = {name: value for name, value in self.facts.items() if name != "components"}
        return facts | ranks


def load_facts(name: str, campaign: Campaign) -> dict[str, Any]:
    """What was fitted to a campaign: from the committed file, a cached one, or now.

    A file counts only for the recording that it was fitted to.
    """
    key = _recording_key(name)
    for folder in (FITTED, CACHE):
        path = folder / f"{name}.json"
        if path.exists():
            facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if facts["recording"] == key:
                return facts
    return fit_campaign(name, campaign, CACHE)


def fit_campaign(name: str, campaign: Campaign, folder: Path) -> dict[str, Any]:
    """Fit the surrogate of a campaign and search it long; write what was found to a folder."""
    groups = campaign.encoding.groups
    curves = MeanCurves(campaign.points, campaign.metrics, groups)
    finals = curves.running[:, -1]

    def score_many(many: Sequence[Params]) -> np.ndarray:
        return curves.predict(campaign.encoding.encode_all(list(many)))[:, -1]

    best, median = find_best(campaign.space, score_many)
    facts = {
        "recording": _recording_key(name),
        "trials": len(finals),
        "components": [asdict(part.fitted) for part in curves.parts],
        "noise": round(
            max(_noise_floor(campaign), estimate_noise(campaign.points, finals, groups)), 4
        ),
        "best": round(best, 6),
        "median": round(median, 6),
        "best_recorded": round(float(finals.max()), 6),
        "left_out_rank_correlation": _left_out(curves),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(facts, indent=1) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return facts


def read_hyperparameters(row: Mapping[str, Any]) -> Hyperparameters:
    """Hyperparameters from their JSON."""
    return Hyperparameters(tuple(row["lengths"]), row["scale"], row["noise"])


def _early_ranks(metrics: np.ndarray) -> dict[str, float]:
    """Rank correlation of the best metric so far, at some epochs, with the final one."""
    running = np.maximum.accumulate(metrics, axis=1)
    return {
        f"epoch_{epoch}": round(float(spearmanr(running[:, epoch - 1], running[:, -1])[0]), 3)
        for epoch in EARLY_EPOCHS
    }


def _left_out(curves: MeanCurves) -> dict[str, float]:
    """Rank correlation of predicted with recorded running-best metrics, at some epochs."""
    predicted, recorded = curves.predict_left_out(), curves.running
    epochs = {"epoch_3": 2, "final": recorded.shape[1] - 1}
    return {
        name: round(float(spearmanr(predicted[:, epoch], recorded[:, epoch])[0]), 3)
        for name, epoch in epochs.items()
    }


def _noise_floor(campaign: Campaign) -> float:
    return SeedNoise.read(campaign.epochs).deviation


@cache
def _recording_key(name: str) -> str:
    return hashlib.sha256(records(name).read_bytes()).hexdigest()[:16]


def _hash(row: np.ndarray) -> int:
    return int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "big")
