"""From a trial to its likely cause, and to what can be tried."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from objectives.segmentation.config import SegmentationConfig
from search.diagnosis.causes import CAUSES, SUSPECTS
from search.diagnosis.label_causes import labels_broken
from search.diagnosis.remedies import describe_remedy, find_remedies
from search.planning.plan import make_plan
from spaces.config_tree import ConfigTree
from spaces.records import EpochRecord
from spaces.study import StudySpec
from spaces.thresholds import SIGNALS
from tests.unit.search.diagnosis.trials import (
    Course,
    diagnosed,
    facts_of,
    patches,
)

NAN = math.nan
Make = Callable[..., EpochRecord]


def broken(
    last_steps: tuple[tuple[float, float], ...], **changes: Any
) -> dict[int, dict[str, Any]]:
    """A first epoch that broke off."""
    nothing = {
        "train_loss": NAN,
        "ce_loss": NAN,
        "grad_norm_max": NAN,
        "metric": NAN,
        "val_loss": NAN,
        "val_ce": NAN,
        "class_metric": (None,) * 4,
    }
    return {1: nothing | {"broken_step": len(last_steps), "last_steps": last_steps} | changes}


CALM = ((1.6, 1.9), (1.5, 2.0), (1.3, 1.4), (NAN, NAN))
GROWING = ((1.6, 2.0), (1.9, 9.0), (6.0, 80.0), (900.0, 4e4))


class TestCauses:
    def test_rate_by_its_validation(self, course: Course) -> None:
        """Weights that were thrown away show in the validation, and a high rate explains them."""
        found = diagnosed(
            course({1: {"val_ce": 300.0}, 2: {"val_ce": 50.0}}, lr=3.0), optimizer__lr_multiple=30.0
        )
        assert found.cause == "learning rate too high"
        assert "the learning rate was 3, 30 times the base rate" in found.because
        assert any("reached 300" in reason for reason in found.because)

    def test_rate_by_its_norms(self, course: Course) -> None:
        """A norm that grew step by step at a high rate is the rate's doing."""
        found = diagnosed(
            course(broken(GROWING), 1, lr=0.8),
            "gradient_explosion",
            optimizer__lr_multiple=8.0,
            optimizer__grad_clip_norm=None,
        )
        assert found.cause == "learning rate too high"

    def test_explosion(self, course: Course) -> None:
        """The same at a documented rate is for want of clipping."""
        found = diagnosed(
            course(broken(GROWING), 1), "gradient_explosion", optimizer__grad_clip_norm=None
        )
        assert found.cause == "exploding gradient"
        assert patches(found)[0] == {"optimizer.grad_clip_norm": 1.0}

    def test_inputs(self, course: Course) -> None:
        """A sudden break with an input that is not finite is caused by the inputs."""
        found = diagnosed(
            course(broken(CALM, inputs_finite=False), 1),
            "nonfinite_loss",
            optimizer__lr_multiple=8.0,
        )
        assert found.cause == "inputs not finite"
        assert found.confidence > 0.9
        assert patches(found) == [{}]

    @pytest.mark.parametrize(("first", "norm"), [(300.0, 400.0), (1e-4, 3e-4)])
    def test_scale(self, course: Course, first: float, norm: float) -> None:
        """A first loss far from that of a guess points to the scale of the loss."""
        records = course({1: {"ce_loss": first}}, 3, grad_norm_median=norm, grad_norm_max=norm)
        found = diagnosed(
            records, loss__kind="focal", loss__alpha=200.0, optimizer__grad_clip_norm=None
        )
        assert found.cause == "loss scale changed"
        assert patches(found)[:2] == [{"loss.alpha": None}, {"loss.normalize": True}]

    def test_weights(self, course: Course) -> None:
        """Weights of a wide ratio, under which frequent classes hardly pull."""
        records = course(weight_ratio=176.0, class_grad_shares=(0.05, 0.2, 0.35, 0.4))
        found = diagnosed(
            records,
            "loss_metric_decoupling",
            weights__method="inverse_freq",
            weights__clip_ratio=None,
        )
        assert found.cause == "extreme class weights"
        assert "class weights differ by a factor of 176" in found.because
        assert patches(found)[:3] == [
            {"weights.method": "sqrt_inv_freq"},
            {"weights.clip_ratio": 100.0},
            {"weights.clip_ratio": 10.0},
        ]

    def test_weights_mild(self, course: Course) -> None:
        """Mild weights speak against themselves, whatever the signal."""
        assert (
            diagnosed(course(weight_ratio=3.0), "metric_falling").cause != "extreme class weights"
        )

    def test_dice(self, course: Course) -> None:
        """Dice has the gradient, cross entropy rises and the validation swings."""
        swings = {
            epoch: {"ce_loss": 1.5 + 0.1 * epoch, "val_ce": 1.0 + 2 * (epoch % 2)}
            for epoch in range(2, 13)
        }
        records = course(swings, grad_shares={"ce": 0.1, "dice": 0.9}, smooth=1e-6, dice_weight=0.9)
        found = diagnosed(
            records,
            loss__dice_weight=0.9,
            loss__ce_weight=0.1,
            loss__smooth=1e-6,
            loss__square_denominator=False,
        )
        assert found.cause == "Dice unstable early"
        assert patches(found)[0] == {"loss.smooth": 5.0}
        assert {"schedule.dice_ce_only_epochs": 5, "schedule.dice_ramp_epochs": 10} in patches(
            found
        )
        assert {"loss.square_denominator": True} in patches(found)

    def test_batch(self, course: Course) -> None:
        """A single sample a step, and norms all over the place."""
        records = course(grad_norm_max=9.0, grad_shares={"ce": 0.5, "dice": 0.5})
        found = diagnosed(records, batch_size=1)
        assert found.cause == "batch too small"
        assert patches(found)[0] == {"optimizer.accumulate": 8}

    def test_imbalance(self, course: Course) -> None:
        """Rare classes at 0 without weights and Dice."""
        records = course(
            class_metric=(0.9, 0.4, 0.0, 0.0),
            weight_ratio=1.0,
            dice_loss=None,
            dice_weight=0.0,
            grad_shares={"ce": 1.0, "dice": 0.0},
        )
        found = diagnosed(
            records,
            "class_collapse",
            weights__method="uniform",
            weights__clip_ratio=None,
            loss__dice_weight=0.0,
            loss__ce_weight=1.0,
        )
        assert found.cause == "imbalance too strong"
        assert "2 of 4 classes at 0: person, rider" in found.because
        assert patches(found)[0] == {"weights.method": "sqrt_inv_freq", "weights.clip_ratio": 100.0}

    def test_alpha(self, course: Course) -> None:
        """A class at 0 whose pixels get no gradient, while a rarer one gets its."""
        records = course(class_metric=(0.9, 0.0, 0.2, 0.2), class_grad_shares=(0.4, 0.0, 0.3, 0.3))
        found = diagnosed(
            records, "class_collapse", loss__kind="focal", loss__alpha=(1.0, 0.0, 1.0, 1.0)
        )
        assert found.cause == "alpha wrong for a class"
        assert "car" in found.because[0]

    def test_dice_late(self, course: Course) -> None:
        """Dice was to take part, and the warm-up never let it."""
        records = course(
            class_metric=(0.9, 0.4, 0.0, 0.0),
            weight_ratio=1.0,
            dice_loss=None,
            dice_weight=0.0,
            grad_shares={"ce": 1.0, "dice": 0.0},
        )
        found = diagnosed(
            records,
            "class_collapse",
            weights__method="uniform",
            weights__clip_ratio=None,
            schedule__dice_ce_only_epochs=30,
        )
        assert found.cause == "Dice too late"
        assert patches(found)[0] == {
            "schedule.dice_ce_only_epochs": 5,
            "schedule.dice_ramp_epochs": 10,
        }

    def test_ended_within_the_warm_up(self, course: Course) -> None:
        """A trial of 30 epochs that ended after 7, within a usual warm-up, does not have Dice too late."""
        records = course(
            epochs=7,
            ce_weight=1.0,
            dice_weight=0.0,
            dice_loss=None,
            class_metric=(0.9, 0.5, 0.0, 0.0),
        )
        warm_up = {"schedule__dice_ce_only_epochs": 5, "schedule__dice_ramp_epochs": 10}
        early = diagnosed(records, epochs=30, **warm_up)
        assert "Dice too late" not in [early.cause, *dict(early.others)]
        endless = {"schedule__dice_ce_only_epochs": 30}
        assert diagnosed(records, epochs=30, **endless).cause == "Dice too late"

    def test_labels(self, course: Course) -> None:
        """The loss jumps at an unchanged rate and falls again, and the metric does not recover."""
        after = {
            epoch: {"metric": 0.02, "ce_loss": 3.0 * 0.7 ** (epoch - 7)} for epoch in range(7, 13)
        }
        found = diagnosed(course(after), "loss_metric_decoupling")
        assert found.cause == "labels broken"
        assert "epoch 7" in found.remedies[0].title

    def test_split_that_moves(self, course: Course) -> None:
        """A loss that rises because Dice ramps up does not point to the labels."""
        after = {
            epoch: {"ce_loss": 1.6 * 0.97 ** (epoch - 6), "dice_weight": 0.8, "ce_weight": 0.2}
            for epoch in range(6, 13)
        }
        found = diagnosed(
            course(after, dice_weight=0.0, ce_weight=1.0),
            loss__dice_weight=0.8,
            loss__ce_weight=0.2,
        )
        assert found.cause != "labels broken"

    def test_overfitted(self, course: Course) -> None:
        """A validation loss that rises from its minimum, with eight training images."""
        rising = {epoch: {"val_loss": 0.8 + 0.03 * epoch} for epoch in range(4, 13)}
        found = diagnosed(course(rising, steps=1), "overfitting")
        assert found.cause == "too little regularization"
        assert patches(found) == [
            {"loss.label_smoothing": 0.1},
            {"optimizer.weight_decay": 1e-4},
            {"early_stopping_patience": 3},
        ]

    def test_too_slow(self, course: Course) -> None:
        """Nothing is learnt at a tiny rate."""
        found = diagnosed(
            course(ce_loss=1.4, clipped_share=0.0),
            optimizer__lr_multiple=3e-4,
            optimizer__grad_clip_norm=None,
        )
        assert found.cause == "learning rate too low"
        assert patches(found)[0] == {"optimizer.lr_multiple": pytest.approx(9e-3)}

    def test_clipped_away(self, course: Course) -> None:
        """Nothing is learnt where nearly all of the gradient is clipped."""
        assert (
            diagnosed(course(ce_loss=1.4, clipped_share=1.0), optimizer__grad_clip_norm=0.001).cause
            == "gradient clipped away"
        )

    def test_gamma(self, course: Course) -> None:
        """The focal loss falls at a gamma under which the probabilities stay vague."""
        assert (
            diagnosed(course(val_ce=0.9), loss__kind="focal", loss__gamma=12.0).cause
            == "focusing too strong"
        )

    def test_decay(self, course: Course) -> None:
        """Weights that are decayed faster than they are trained."""
        records = course(class_metric=(0.9, 0.0, 0.0, 0.0))
        assert (
            diagnosed(records, "class_collapse", optimizer__weight_decay=0.3).cause
            == "weight decay too strong"
        )


class TestDiagnosis:
    def test_likelihoods(self, course: Course) -> None:
        """Likelihoods fall in order, and their sum leaves a share to an unknown cause."""
        found = diagnosed(course(weight_ratio=60.0), weights__method="inverse_freq")
        shares = [found.confidence, *(likelihood for _, likelihood in found.others)]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) < 1

    def test_unsure(self, course: Course) -> None:
        """A healthy trial gives no cause much confidence."""
        assert diagnosed(course()).confidence < 0.5

    def test_against(self, course: Course) -> None:
        """Observations against the cause are listed as well."""
        found = diagnosed(
            course({1: {"val_ce": 300.0}}), "nonfinite_loss", optimizer__lr_multiple=0.3
        )
        assert found.cause == "learning rate too high"
        assert any("0.3 times the base rate" in reason for reason in found.against)

    @pytest.mark.parametrize(("direction", "since"), [("maximize", 3), ("minimize", 1)])
    def test_gains(self, course: Course, direction: str, since: int) -> None:
        """Gains and losses since the best epoch are listed by the names of the classes."""
        records = course(
            {
                1: {"class_metric": (0.9, 0.8, 0.1, 0.0), "metric": 0.1},
                2: {"metric": 0.3},
                3: {"metric": 0.9, "class_metric": (0.5, 0.9, 0.1, 0.0)},
            },
            4,
        )
        name = "miou" if direction == "maximize" else "val_ce"
        gains = diagnosed(records, metric__name=name, metric__direction=direction).because[-1]
        assert gains.startswith(f"since epoch {since}, the best one: gained ")
        assert "car" in gains

    def test_no_counts(self, course: Course) -> None:
        """Without counts classes have numbers, and observations on frequencies are left out."""
        found = diagnosed(
            course(class_metric=(0.9, 0.4, 0.0, 0.0), weight_ratio=1.0),
            "class_collapse",
            counts=None,
            weights__method="uniform",
            weights__clip_ratio=None,
        )
        assert "2 of 4 classes at 0: class 2, class 3" in found.because

    @pytest.mark.parametrize("signal", SIGNALS)
    def test_broken_first_epoch(self, course: Course, signal: str) -> None:
        """A trial that broke in its first epoch has NaN only, and gets a diagnosis."""
        found = diagnosed(course(broken(()), 1), signal)
        assert found.cause in CAUSES
        assert all(found.because)

    @pytest.mark.parametrize(
        "bare",
        [
            {"grad_shares": {}, "class_grad_shares": ()},
            {"grad_norm_median": NAN, "grad_norm_max": NAN},
            {"val_loss": NAN, "val_ce": NAN},
        ],
    )
    def test_curves_from_elsewhere(self, course: Course, bare: dict[str, Any]) -> None:
        """Records that lack numbers are diagnosed from what they have."""
        assert (
            diagnosed(
                course({4: {"val_ce": 300.0}} if "val_ce" not in bare else {}, **bare),
                optimizer__lr_multiple=30.0,
            ).cause
            == "learning rate too high"
        )

    def test_suspects(self) -> None:
        """Every signal has its suspects, all of them known causes."""
        assert set(SUSPECTS) == set(SIGNALS)
        assert {cause for causes in SUSPECTS.values() for cause in causes} <= set(CAUSES)


class TestEffect:
    def test_reaches_the_training(self, course: Course) -> None:
        """Changes without effect are left out, such as two stages without class weights."""
        uniform = find_remedies(
            "imbalance too strong",
            facts_of(course(), weights__method="uniform", weights__clip_ratio=None),
        )
        assert {"schedule.light_clip_epochs": 20} not in [dict(remedy.patch) for remedy in uniform]
        lovasz = find_remedies(
            "Dice unstable early",
            facts_of(course(), loss__overlap="lovasz", loss__square_denominator=False),
        )
        assert not {"loss.square_denominator", "schedule.smooth_steps"} & {
            path for remedy in lovasz for path in remedy.patch
        }
        plain = find_remedies("alpha wrong for a class", facts_of(course()))
        assert [dict(remedy.patch) for remedy in plain] == [{}]

    @pytest.mark.parametrize(
        ("cause", "changes", "path"),
        [
            ("learning rate too low", {"optimizer__lr_multiple": 0.4}, "optimizer.lr_multiple"),
            (
                "too little regularization",
                {"optimizer__weight_decay": 0.001},
                "optimizer.weight_decay",
            ),
        ],
    )
    def test_upwards(self, course: Course, cause: str, changes: dict[str, Any], path: str) -> None:
        """A remedy that raises a value raises it above the current one, with a title that fits."""
        facts = facts_of(course(), **changes)
        values = [
            (remedy.title, remedy.patch[path])
            for remedy in find_remedies(cause, facts)
            if path in remedy.patch
        ]
        assert values
        assert all(value > facts.values[path] for _, value in values)
        assert all("base rate ×" not in text for text, _ in values)

    def test_not_less(self, course: Course) -> None:
        """A remedy never weakens a setting that is strong already, nor lengthens a warm-up."""
        assert [
            dict(remedy.patch)
            for remedy in find_remedies(
                "too little regularization",
                facts_of(course(), loss__label_smoothing=0.3, optimizer__weight_decay=0.5),
            )
        ] == [{"early_stopping_patience": 3}]
        late = facts_of(course(), schedule__dice_ce_only_epochs=2, schedule__dice_ramp_epochs=3)
        assert [dict(remedy.patch) for remedy in find_remedies("Dice too late", late)] == [
            {"schedule.dice_ce_only_epochs": 0, "schedule.dice_ramp_epochs": 0}
        ]


class TestRemedies:
    def test_order_of_the_rate(self, course: Course) -> None:
        """A high rate becomes × 0.5, then × 0.3 of the base rate; then clipping and warm-up."""
        facts = facts_of(course(), optimizer__lr_multiple=10.0, optimizer__grad_clip_norm=None)
        assert [
            dict(remedy.patch) for remedy in find_remedies("learning rate too high", facts)
        ] == [
            {"optimizer.lr_multiple": 0.5},
            {"optimizer.lr_multiple": 0.3},
            {"optimizer.grad_clip_norm": 1.0},
            {"schedule.lr_warmup_epochs": 5},
        ]

    def test_low_rate(self, course: Course) -> None:
        """A rate up to the base rate is multiplied; clipping and warm-up are not repeated."""
        facts = facts_of(course(), optimizer__lr_multiple=0.4, schedule__lr_warmup_epochs=2)
        assert [
            dict(remedy.patch) for remedy in find_remedies("learning rate too high", facts)
        ] == [
            {"optimizer.lr_multiple": pytest.approx(0.2)},
            {"optimizer.lr_multiple": pytest.approx(0.12)},
        ]

    def test_short_training(self, course: Course) -> None:
        """Epoch numbers for 30 epochs are scaled down to a shorter training."""
        found = find_remedies("Dice unstable early", facts_of(course(), epochs=12))
        assert {"schedule.dice_ce_only_epochs": 2, "schedule.dice_ramp_epochs": 4} in [
            dict(remedy.patch) for remedy in found
        ]

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"weights__method": "uniform", "weights__clip_ratio": None},
            {"loss__kind": "focal", "loss__alpha": 5.0},
        ],
    )
    @pytest.mark.parametrize("cause", CAUSES)
    def test_fits(self, course: Course, cause: str, changes: dict[str, Any]) -> None:
        """A remedy shows old and new values, changes some, and fits the trial and a study."""
        facts = facts_of(course(weight_ratio=500.0), **changes)
        for remedy in find_remedies(cause, facts):
            line = describe_remedy(remedy, ConfigTree.from_paths(facts.values).nested)
            assert line.startswith(remedy.title)
            assert all(f"{path} " in line for path in remedy.patch)
            assert line.count(" → ") == len(remedy.patch)
            assert all(facts.values[path] != value for path, value in remedy.patch.items())
            tree = ConfigTree.from_paths({**facts.values, **remedy.patch})
            SegmentationConfig.model_validate(tree.nested)
            study = {
                "name": "next",
                "base": ConfigTree.from_paths(remedy.patch).nested,
                "space": {"optimizer.momentum": {"kind": "float", "low": 0, "high": 0.9}},
            }
            assert make_plan(StudySpec.model_validate(study)).spec.name == "next"


class TestConfiguredOnly:
    @pytest.mark.parametrize(
        "changes",
        [
            {"optimizer__weight_decay": 0.05},
            {"loss__kind": "focal", "loss__gamma": 5.0},
            {"batch_size": 2},
        ],
    )
    def test_no_clear_cause(self, course: Course, changes: dict[str, Any]) -> None:
        """A value of the configuration alone, without a sign in the training, makes no cause clear."""
        assert not diagnosed(course(weight_ratio=100.0), **changes).is_clear

    def test_unknown_classes(self, course: Course) -> None:
        """Without the number of classes no loss is called foreign, and no trial diverged."""
        records = course(
            class_metric=(), class_grad_shares=(), ce_loss=9.0, train_loss=9.0, val_ce=6.9
        )
        found = diagnosed(records, counts=None)
        assert not {"loss scale changed", "learning rate too high"} & {
            found.cause,
            *dict(found.others),
        }

    def test_null(self, course: Course) -> None:
        """A number that a custom configuration leaves null has its default."""
        facts = facts_of(course())
        facts = replace(facts, values={**facts.values, "optimizer.weight_decay": None})
        assert facts.number("optimizer.weight_decay", 0.0) == 0.0

    def test_minimized(self, course: Course) -> None:
        """Where the metric is minimized, a lower one after a jump of the loss speaks for nothing."""
        jumping = {epoch: {"ce_loss": 6.0 * 0.8**epoch} for epoch in range(6, 13)}
        falling = {epoch: {"metric": 0.1} for epoch in range(6, 13)}
        records = course({epoch: jumping[epoch] | falling[epoch] for epoch in jumping})
        texts = [
            item.text
            for item in labels_broken(
                replace(facts_of(records), values={"metric.direction": "minimize"})
            )
        ]
        assert any("jumped" in text for text in texts)
        assert not any("something else" in text for text in texts)


def test_not_learned_yet(course: Course) -> None:
    """Rare classes at 0 in a trial that its peers ended early are not learned yet, not ignored."""
    dead = {"class_metric": (0.9, 0.4, 0.0, 0.0), "weight_ratio": 1.0}
    uniform = {"weights__method": "uniform", "weights__clip_ratio": None}
    records = course(epochs=12, **dead)
    assert diagnosed(records, "median", epochs=12, **uniform).cause == "imbalance too strong"
    assert not diagnosed(records, "median", epochs=30, **uniform).is_clear


def test_larger_clip_ratio(course: Course) -> None:
    """A clip ratio is called larger only if it is, also while a light first stage lowers the weights."""
    records = course(class_metric=(0.9, 0.4, 0.0, 0.0), weight_ratio=3.9)
    for configured, larger in ((100.0, None), (25.0, 100.0), (4.0, 25.0)):
        facts = facts_of(records, weights__clip_ratio=configured)
        titles = {
            remedy.title: dict(remedy.patch)
            for remedy in find_remedies("imbalance too strong", facts)
        }
        expected = None if larger is None else {"weights.clip_ratio": larger}
        assert titles.get("a larger clip ratio") == expected
