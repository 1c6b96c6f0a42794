"""The recorded campaigns: studies in which nothing is ever killed, over everything that can be searched."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.campaign import SEEDS, study
from search.planning.plan import make_plan
from spaces.loader import load_study
from spaces.thresholds import SIGNALS

DOCUMENTED = {
    "weights.method",
    "weights.clip_ratio",
    "loss.kind",
    "loss.gamma",
    "loss.alpha_tau",
    "loss.dice_weight",
    "loss.smooth",
    "loss.square_denominator",
    "loss.dice_reduction",
    "schedule.dice_ce_only_epochs",
    "schedule.dice_ramp_epochs",
    "optimizer.lr_multiple",
    "optimizer.grad_clip_norm",
    "schedule.lr",
    "batch_size",
    "optimizer.weight_decay",
}
"""What is searched under class imbalance; a campaign that left something out would not know its failures."""


class TestStudies:
    @pytest.mark.parametrize("name", SEEDS)
    def test_no_kills(self, name: str) -> None:
        """Every signal is off, and so is the pruner: each trial is recorded to its end, 30 epochs."""
        plan = make_plan(load_study(str(study(name))))
        assert not any(getattr(plan.spec.signals, signal).enabled for signal in SIGNALS)
        assert (
            plan.spec.pruner.kind,
            plan.spec.sampler.kind if name != "presets" else "random",
            plan.spec.epochs,
        ) == ("none", "random", 30)

    @pytest.mark.parametrize("name", ["first", "second"])
    def test_space(self, name: str) -> None:
        """The whole of the documented space is searched, by at least 150 trials."""
        spec = load_study(str(study(name)))
        assert set(spec.space) >= DOCUMENTED
        assert spec.trials >= 150

    def test_apart(self) -> None:
        """The second campaign shares the first one's space, and neither its seeds, nor its scenes, nor its architecture."""
        first, second = (load_study(str(study(name))) for name in ("first", "second"))
        assert first.space == second.space
        assert set(SEEDS["first"]).isdisjoint(SEEDS["second"])
        assert first.base["data"].get("seed", 0) != second.base["data"]["seed"]
        assert second.base["model"]["architecture"] != "unet"

    def test_healthy(self) -> None:
        """The presets are run with 20 seeds each, 60 trials in all."""
        spec = load_study(str(study("presets")))
        assert (
            len(SEEDS["presets"]) * spec.trials == 60 == len(SEEDS["presets"]) * len(spec.presets)
        )


def test_small_enough() -> None:
    """What is recorded is committed, and lies below 5 MB a file."""
    for path in Path(study("first")).parent.glob("*.jsonl.gz"):
        assert path.stat().st_size < 5_000_000
