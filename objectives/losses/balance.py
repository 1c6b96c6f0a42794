"""Origin of class weights and alphas: lets them follow a schedule and be recognized."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from objectives.losses.class_weights import Floats, class_weights, focal_alpha
from spaces.config import WeightMethod, WeightsConfig
from spaces.records import ClassCounts

METHODS: tuple[WeightMethod, ...] = get_args(WeightMethod)


@dataclass(frozen=True)
class Balance:
    """Counts and settings from which a loss's class weights and alphas were computed."""

    counts: ClassCounts
    weights: WeightsConfig
    alpha_tau: float | None = None
    class_alpha: Mapping[str, float] = field(default_factory=dict)

    def recognize_alpha(self, live: Floats) -> dict[str, Any]:
        """Return the configured tau and factors if they give exactly the alphas `live` (C,)."""
        expected = focal_alpha(self.counts, self.alpha_tau or 0.0, self.class_alpha)
        if not np.array_equal(live, expected):
            return {}
        tau = {} if self.alpha_tau is None else {"loss.alpha_tau": self.alpha_tau}
        return tau | {
            f"loss.class_alpha.{name}": factor for name, factor in self.class_alpha.items()
        }

    def class_weights(self, clip_ratio: float | None) -> Floats:
        """Compute the weights (C,) with another clip ratio."""
        config = self.weights.model_copy(update={"clip_ratio": clip_ratio})
        return class_weights(self.counts, config).weights

    def recognize_weights(self, live: Floats) -> dict[str, Any]:
        """Return a method and numbers that give exactly the weights `live` (C,).

        They are the configured ones, if those do.
        """
        for config in self._list_candidates():
            if np.array_equal(live, class_weights(self.counts, config).weights):
                found: dict[str, Any] = {"weights.method": config.method}
                if config.method != "uniform":
                    found["weights.clip_ratio"] = config.clip_ratio
                if config.method == "effective_number":
                    found["weights.beta"] = config.beta
                return found
        return {}

    def _list_candidates(self) -> Iterator[WeightsConfig]:
        yield self.weights
        for method, clip_ratio in itertools.product(METHODS, (self.weights.clip_ratio, None)):
            yield self.weights.model_copy(update={"method": method, "clip_ratio": clip_ratio})
