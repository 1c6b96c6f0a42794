"""From a signal to its cause, and to what can be tried."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from objectives.segmentation.config import SegmentationConfig
from search.diagnosis import diagnose
from search.plan import make_plan
from spaces.paths import flatten, nested
from spaces.records import Diagnosis, EpochRecord, Evidence
from spaces.study import StudySpec

NAN = math.nan
Make = Callable[..., EpochRecord]

SIGNALS = ["nonfinite_loss", "gradient_explosion", "loss_rising", "metric_falling", "loss_metric_divorce", "class_collapse", "overfitting"]
EXPLODING = SIGNALS[:3]
UNBALANCED = SIGNALS[3:5]


def diagnosed(signal: str, records: list[EpochRecord], **values: Any) -> Diagnosis:
    """The diagnosis for a trial with these values, by dotted path with __ for the dot, in its configuration."""
    tree = nested({path.replace("__", "."): value for path, value in values.items()})
    config = SegmentationConfig.model_validate(tree).model_dump(mode="json")
    return diagnose(Evidence(signal, records[-1].epoch, None, "", {}, 1.0), records, config)


def patches(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """What the remedies change, in their order."""
    return [dict(remedy.patch) for remedy in diagnosis.remedies]


class TestAll:
    @pytest.mark.parametrize("method", ["inverse_freq", "uniform"])
    @pytest.mark.parametrize("ratio", [1.0, 50.0, 500.0])
    @pytest.mark.parametrize("signal", SIGNALS)
    def test_concrete(self, make_record: Make, signal: str, ratio: float, method: str) -> None:
        """Every signal gets a cause, what speaks for it, and remedies whose text holds the old and the new value of all that they change."""
        found = diagnosed(signal, [make_record(1, weight_ratio=ratio), make_record(2, weight_ratio=ratio, metric=0.3)], weights__method=method)
        assert found.cause
        assert all(found.because)
        assert found.remedies
        for remedy in found.remedies:
            assert remedy.patch
            assert all(f"{path} " in remedy.text for path in remedy.patch)
            assert remedy.text.count(" → ") >= len(remedy.patch)

    @pytest.mark.parametrize("lr_multiple", [0.3, 10.0])
    @pytest.mark.parametrize("signal", SIGNALS)
    def test_patch_fits(self, make_record: Make, signal: str, lr_multiple: float) -> None:
        """Every remedy names paths that the configuration has, gives another value than the trial's, and can be laid over a study's base."""
        records = [make_record(1, weight_ratio=500.0), make_record(2, weight_ratio=500.0, metric=0.3)]
        tried = diagnosed(signal, records, weights__method="inverse_freq", optimizer__lr_multiple=lr_multiple)
        before = dict(flatten(SegmentationConfig.model_validate(nested({"weights.method": "inverse_freq", "optimizer.lr_multiple": lr_multiple})).model_dump(mode="json")))
        for patch in patches(tried):
            study = {"name": "next", "base": nested(patch), "space": {"optimizer.weight_decay": {"kind": "float", "low": 0, "high": 0.1}}}
            assert make_plan(StudySpec.model_validate(study)).spec.base
            assert all(before[path] != value for path, value in patch.items())

    @pytest.mark.parametrize("signal", EXPLODING)
    def test_broken_epoch(self, make_record: Make, signal: str) -> None:
        """A trial whose first epoch broke has nothing but NaN, and is diagnosed nevertheless."""
        broken = make_record(1, train_loss=NAN, grad_norm_max=NAN, metric=NAN, class_metric=(None, None, None), broken_step=1)
        assert diagnosed(signal, [broken]).remedies


@pytest.mark.parametrize("signal", EXPLODING)
class TestExploding:
    def test_too_fast(self, make_record: Make, signal: str) -> None:
        """A high rate without clipping: half the rate, clipping at 1, a third of the rate, warm-up."""
        found = diagnosed(signal, [make_record(3, lr=1.0, grad_norm_max=5000.0)], optimizer__lr_multiple=10.0)
        assert found.cause == "learning rate too high"
        assert found.because[0] == "the learning rate was 1, 10 times the base rate"
        assert "gradients were not clipped" in found.because
        assert "5e+03" in found.because[2]
        assert {"optimizer.lr_multiple": 5.0} in patches(found)
        assert {"optimizer.lr_multiple": 3.0} in patches(found)
        assert {"optimizer.grad_clip_norm": 1.0} in patches(found)
        assert {"schedule.lr_warmup_epochs": 5} in patches(found)
        assert found.remedies[0].text == "learning rate × 0.5: optimizer.lr_multiple 10 → 5"

    def test_not_clipped(self, make_record: Make, signal: str) -> None:
        """At an ordinary rate the missing clipping comes first."""
        found = diagnosed(signal, [make_record(3)], optimizer__lr_multiple=0.3)
        assert found.cause == "no gradient clipping"
        assert patches(found)[0] == {"optimizer.grad_clip_norm": 1.0}

    def test_clipped(self, make_record: Make, signal: str) -> None:
        """What is clipped at 1 already, and warmed up, is not told to be."""
        found = diagnosed(signal, [make_record(3)], optimizer__lr_multiple=0.3, optimizer__grad_clip_norm=1.0, schedule__lr_warmup_epochs=2)
        assert found.cause == "learning rate too high"
        assert "gradients were clipped at 1" in found.because
        assert patches(found) == [{"optimizer.lr_multiple": pytest.approx(0.15)}, {"optimizer.lr_multiple": pytest.approx(0.09)}]


@pytest.mark.parametrize("signal", UNBALANCED)
class TestUnbalanced:
    def test_extreme(self, make_record: Make, signal: str) -> None:
        """Extreme weights: milder ones, clip ratio 100, then 10, then two stages."""
        records = [make_record(1, weight_ratio=500.0, class_metric=(0.9, None, 0.1)), make_record(2, weight_ratio=500.0, metric=0.3, class_metric=(0.4, None, 0.3))]
        found = diagnosed(signal, records, weights__method="inverse_freq")
        assert found.cause == "extreme class weights"
        assert found.because == ("class weights differ by a factor of 500", "since epoch 1: gained class 2 +0.200; lost class 0 -0.500")
        assert patches(found) == [
            {"weights.method": "sqrt_inv_freq"},
            {"weights.clip_ratio": 100.0},
            {"weights.clip_ratio": 10.0},
            {"schedule.stages": [{"before_epoch": 21, "clip_ratio": 4.0}]},
        ]
        assert found.remedies[1].text == "clip ratio 100: weights.clip_ratio none → 100"

    def test_clipped(self, make_record: Make, signal: str) -> None:
        """Only bounds below the ratio that was in use are told."""
        found = diagnosed(signal, [make_record(1, weight_ratio=25.0)], weights__method="sqrt_inv_freq", weights__clip_ratio=25)
        assert patches(found)[0] == {"weights.clip_ratio": 10.0}
        assert found.remedies[0].text == "clip ratio 10: weights.clip_ratio 25 → 10"

    def test_mild(self, make_record: Make, signal: str) -> None:
        """Mild weights are not the cause; the rate is suspected."""
        found = diagnosed(signal, [make_record(1, weight_ratio=4.0)], optimizer__lr_multiple=10.0)
        assert found.cause == "learning rate too high"
        assert "the class weights are mild" in found.because[-1]
        assert {"optimizer.lr_multiple": 5.0} in patches(found)

class TestOrder:
    def test_order(self, make_record: Make) -> None:
        """A rate that is too high is answered in the documented order: × 0.5, × 0.3, clipping at 1, warm-up."""
        found = diagnosed("loss_rising", [make_record(3)], optimizer__lr_multiple=10.0)
        assert [next(iter(patch)) for patch in patches(found)] == [
            "optimizer.lr_multiple",
            "optimizer.lr_multiple",
            "optimizer.grad_clip_norm",
            "schedule.lr_warmup_epochs",
        ]


class TestGains:
    def test_minimize(self, make_record: Make) -> None:
        """Where less is better, gains and losses are told since the epoch with the lowest metric."""
        records = [make_record(1, weight_ratio=500.0, metric=0.9), make_record(2, weight_ratio=500.0, metric=0.3), make_record(3, weight_ratio=500.0, metric=0.7)]
        found = diagnosed("metric_falling", records, metric__name="val_ce", metric__direction="minimize")
        assert found.because[1].startswith("since epoch 2")


class TestCollapsed:
    def test_too_fast(self, make_record: Make) -> None:
        """One class alone at a high rate: the rate threw the weights away."""
        found = diagnosed("class_collapse", [make_record(4, class_metric=(0.7, 0.0, 0.0))], optimizer__lr_multiple=10.0)
        assert found.cause == "learning rate too high"

    def test_unweighted(self, make_record: Make) -> None:
        """Without weights and Dice: weights, Dice, a lower rate."""
        found = diagnosed("class_collapse", [make_record(40, class_metric=(0.7, 0.4, 0.0, 0.0), weight_ratio=1.0)], optimizer__lr_multiple=1.0)
        assert found.cause == "rare classes ignored"
        assert found.because[:2] == ("weight method uniform, weights differ by a factor of 1", "Dice share 0")
        assert patches(found) == [
            {"weights.method": "sqrt_inv_freq", "weights.clip_ratio": 100.0},
            {"loss.dice_weight": 0.3, "loss.smooth": 5.0},
            {"optimizer.lr_multiple": 0.5},
        ]

    def test_weighted(self, make_record: Make) -> None:
        """What is weighted and has Dice is not told to."""
        found = diagnosed("class_collapse", [make_record(40)], weights__method="inverse_freq", loss__dice_weight=0.4)
        assert patches(found) == [{"optimizer.lr_multiple": 0.5}]


class TestOverfitted:
    def test_regularise(self, make_record: Make) -> None:
        """Label smoothing, weight decay, early stopping, each with its documented value."""
        found = diagnosed("overfitting", [make_record(9, train_loss=0.1, val_loss=0.9)])
        assert found.cause == "too little regularisation"
        assert found.because[0] == "training loss 0.1, validation loss 0.9"
        assert patches(found) == [{"loss.label_smoothing": 0.1}, {"optimizer.weight_decay": 1e-4}, {"early_stopping_patience": 3}]

    def test_more(self, make_record: Make) -> None:
        """Weight decay that is there is raised tenfold."""
        assert {"optimizer.weight_decay": pytest.approx(0.01)} in patches(diagnosed("overfitting", [make_record(9)], optimizer__weight_decay=1e-3))
