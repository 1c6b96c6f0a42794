"""The library's losses behind our configuration: its own numbers on valid data, and our manners everywhere else."""

from __future__ import annotations

from typing import Any

import pytest
import segmentation_models_pytorch.losses as smp
import torch
from torch import Tensor

from objectives.losses import CombinedLoss, CrossEntropyLoss, DiceLoss, LibraryLoss, build_criterion
from objectives.losses.library import NAMES, OVERLAPS
from spaces.config import LossConfig, WeightsConfig
from spaces.errors import ConfigError
from spaces.records import ClassCounts
from tests.unit.objectives.losses.references import IGNORED, batch, gradient, reference_softmax

torch.set_num_threads(1)

every_name = pytest.mark.parametrize("name", NAMES)
COUNTS = ClassCounts(("a", "b", "c", "d"), (900, 90, 9, 1))


def made(name: str) -> LibraryLoss:
    return LibraryLoss(
        name,
        smooth=1.5,
        tversky_alpha=0.3,
        tversky_beta=0.7,
        label_smoothing=0.1,
        ignore_index=IGNORED,
    )


def library(name: str) -> torch.nn.Module:
    """The library's own module, with the same numbers."""
    modules: dict[str, torch.nn.Module] = {
        "jaccard": smp.TverskyLoss(
            "multiclass", smooth=1.5, alpha=1.0, beta=1.0, ignore_index=IGNORED
        ),
        "tversky": smp.TverskyLoss(
            "multiclass", smooth=1.5, alpha=0.3, beta=0.7, ignore_index=IGNORED
        ),
        "lovasz": smp.LovaszLoss("multiclass", ignore_index=IGNORED),
        "soft_ce": smp.SoftCrossEntropyLoss(smooth_factor=0.1, ignore_index=IGNORED),
    }
    return modules[name]


class TestIsTheLibrarys:
    @every_name
    @pytest.mark.parametrize("ignored", [0.0, 0.3])
    def test_value_and_gradient(self, name: str, ignored: float) -> None:
        """On images of float32 value and gradient are the library's own, ignored pixels included."""
        logits, target = batch(1, ignored=ignored, dtype=torch.float32)
        assert torch.equal(made(name)(logits, target), library(name)(logits, target))
        torch.testing.assert_close(
            gradient(made(name), logits, target), gradient(library(name), logits, target)
        )

    def test_jaccard(self) -> None:
        """Jaccard is the library's Jaccard loss where every class is there and nothing is ignored."""
        logits, target = batch(2, (2, 3, 6, 6), 0.0, torch.float32)
        ours = LibraryLoss("jaccard", smooth=1.5, ignore_index=IGNORED)(logits, target)
        torch.testing.assert_close(ours, smp.JaccardLoss("multiclass", smooth=1.5)(logits, target))

    def test_tversky_formula(self) -> None:
        """Tversky is 1 − mean of (TP + s)/(TP + α·FP + β·FN + s), over the whole batch."""
        logits, target = batch(3, (2, 3, 6, 6))
        p, valid = reference_softmax(logits), target != IGNORED
        scores = []
        for c in range(3):
            hit = (p[:, c] * (target == c)).sum()
            false_positive, missed = (p[:, c] * valid).sum() - hit, (target == c).sum() - hit
            scores.append((hit + 1.5) / (hit + 0.3 * false_positive + 0.7 * missed + 1.5))
        torch.testing.assert_close(
            made("tversky")(logits, target).double(),
            1 - torch.stack(scores).mean(),
            rtol=1e-5,
            atol=1e-6,
        )

    def test_soft_ce_formula(self) -> None:
        """Soft cross entropy spreads ε evenly over all classes, and divides by all pixels, ignored ones too."""
        logits, target = batch(4)
        log_p, valid = reference_softmax(logits).log(), target != IGNORED
        nll = -log_p.gather(1, target.masked_fill(~valid, 0).unsqueeze(1)).squeeze(1)
        expected = ((0.9 * nll - 0.1 / 4 * log_p.sum(1)) * valid).sum() / target.numel()
        torch.testing.assert_close(
            made("soft_ce")(logits, target).double(), expected, rtol=1e-5, atol=1e-6
        )


class TestManners:
    @every_name
    def test_ignored_change_nothing(self, name: str) -> None:
        """Other logits at ignored pixels give the same loss, and the gradient there is 0; a label that is no class is ignored, too."""
        logits, target = batch(5, dtype=torch.float32)
        holes = (target == IGNORED).unsqueeze(1)
        changed = torch.where(holes, logits * -7 + 1, logits).detach()
        torch.testing.assert_close(
            made(name)(changed, target), made(name)(logits, target), rtol=1e-6, atol=1e-7
        )
        assert gradient(made(name), logits, target).masked_select(holes).abs().sum() == 0
        assert torch.equal(
            made(name)(logits, target.masked_fill(target == IGNORED, -3)),
            made(name)(logits, target),
        )

    @every_name
    @pytest.mark.parametrize("smooth", [0.0, 1.0])
    def test_nothing_valid(self, name: str, smooth: float) -> None:
        """A batch without a valid pixel, or without an image, has the loss 0 with the gradient 0, never NaN."""
        logits, target = batch(6, dtype=torch.float32)
        loss = LibraryLoss(name, smooth=smooth, ignore_index=IGNORED)
        for scores, labels in (
            (logits, torch.full_like(target, IGNORED)),
            (logits[:0], target[:0]),
        ):
            value = loss(scores, labels)
            assert value == 0
            assert torch.autograd.grad(value, scores)[0].abs().sum() == 0

    @every_name
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast(self, name: str, dtype: torch.dtype) -> None:
        """Under autocast, and of half logits, the loss is computed in float32; the gradient is of the logits' own type."""
        logits, target = batch(7, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):
            found = made(name)(logits, target)
        assert found.dtype == torch.float32
        assert torch.equal(found, made(name)(logits.float(), target))
        assert gradient(made(name), logits, target).dtype == dtype

    @every_name
    @pytest.mark.parametrize("shape", [(6, 4), (2, 4, 3), (2, 4, 3, 5), (1, 4, 2, 2, 2)])
    def test_dimensions(self, name: str, shape: tuple[int, ...]) -> None:
        """Any number of dimensions after the classes works, and means what the same elements in an image mean."""
        logits, target = batch(8, shape, dtype=torch.float32)
        as_image = logits.detach().reshape(*shape[:2], -1, 1)
        torch.testing.assert_close(
            made(name)(logits, target), library(name)(as_image, target.reshape(shape[0], -1, 1))
        )
        assert gradient(made(name), logits, target).shape == shape

    @every_name
    def test_one_class(self, name: str) -> None:
        """With a single class there is nothing to learn: no loss and no gradient."""
        logits, target = batch(9, (2, 1, 3, 3), 0.0, torch.float32)
        assert made(name)(logits, target) == 0
        assert gradient(made(name), logits, target).abs().sum() == 0

    @every_name
    def test_perfect(self, name: str) -> None:
        """A perfect prediction costs nothing, but for what label smoothing asks."""
        _, target = batch(10, ignored=0.0)
        logits = 50.0 * torch.nn.functional.one_hot(target, 4).movedim(-1, 1).float()
        assert float(
            LibraryLoss(name, smooth=1.0, ignore_index=IGNORED)(logits, target)
        ) == pytest.approx(0, abs=1e-6)

    @every_name
    def test_extreme(self, name: str) -> None:
        """Logits of ±1e4 give a finite loss and a finite gradient."""
        logits, target = batch(11, dtype=torch.float32)
        logits = (1e4 * logits.detach().sign()).requires_grad_()
        assert made(name)(logits, target).isfinite()
        assert gradient(made(name), logits, target).isfinite().all()

    @every_name
    def test_wrong_shape(self, name: str) -> None:
        """A target of another shape is refused with the found and the expected one."""
        with pytest.raises(ConfigError, match=r"\(2, 5, 3\).*\(2, 3, 5\)"):
            made(name)(batch(12)[0], torch.zeros(2, 5, 3, dtype=torch.int64))


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"name": "dise"}, r"(?s)dise.*jaccard, tversky, lovasz, soft_ce"),
            ({"name": "tversky", "smooth": -1.0}, r"smooth.*-1"),
            ({"name": "tversky", "tversky_alpha": -0.1}, r"tversky_alpha.*-0\.1"),
            ({"name": "tversky", "tversky_beta": float("nan")}, r"tversky_beta.*nan"),
            ({"name": "soft_ce", "label_smoothing": 1.0}, r"label_smoothing.*1\.0"),
        ],
    )
    def test_refused(self, options: dict[str, Any], words: str) -> None:
        """An unknown name, and a number outside its range, are refused with what was found and what is allowed."""
        with pytest.raises(ConfigError, match=words):
            LibraryLoss(**options)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("jaccard", {"loss.overlap": "jaccard", "loss.smooth": 1.5}),
            (
                "tversky",
                {
                    "loss.overlap": "tversky",
                    "loss.smooth": 1.5,
                    "loss.tversky_alpha": 0.3,
                    "loss.tversky_beta": 0.7,
                },
            ),
            ("lovasz", {"loss.overlap": "lovasz"}),
            ("soft_ce", {"loss.kind": "soft_ce", "loss.label_smoothing": 0.1}),
        ],
    )
    def test_used(self, name: str, expected: dict[str, Any]) -> None:
        """Exactly the hyperparameters that reach the loss are named."""
        assert made(name).used() == expected

    def test_smooth_is_live(self) -> None:
        """The smoothing constant is a buffer that a schedule changes in place, and no part of a checkpoint."""
        loss, (logits, target) = made("tversky"), batch(13, dtype=torch.float32)
        loss.smooth.fill_(9.0)
        expected = smp.TverskyLoss(
            "multiclass", smooth=9.0, alpha=0.3, beta=0.7, ignore_index=IGNORED
        )(logits, target)
        assert torch.equal(loss(logits, target), expected)
        assert loss.used()["loss.smooth"] == 9.0
        assert list(loss.state_dict()) == []


class TestCombined:
    @staticmethod
    def built(**changes: Any) -> CombinedLoss:
        criterion = build_criterion(
            LossConfig(**changes), WeightsConfig(method="sqrt_inv_freq"), COUNTS, IGNORED, "cpu"
        )
        assert isinstance(criterion, CombinedLoss)
        return criterion

    @pytest.mark.parametrize("overlap", OVERLAPS)
    def test_in_place_of_dice(self, overlap: Any) -> None:
        """An overlap takes Dice's place in the sum and in the record; the rest is as with Dice."""
        logits, target = batch(14, dtype=torch.float32)
        found = self.built(
            dice_weight=0.4, smooth=1.5, overlap=overlap, tversky_alpha=0.3, tversky_beta=0.7
        )(logits, target)
        expected = library(overlap)(logits, target).detach()
        assert found.dice is not None
        torch.testing.assert_close(found.dice, expected)
        torch.testing.assert_close(found.total.detach(), 0.6 * found.ce + 0.4 * expected)

    def test_in_place_of_cross_entropy(self) -> None:
        """Soft cross entropy replaces the main part next to our Dice; `used` has no class weights."""
        logits, target = batch(15, dtype=torch.float32)
        criterion = self.built(kind="soft_ce", label_smoothing=0.1, dice_weight=0.4, smooth=2.0)
        found = criterion(logits, target)
        torch.testing.assert_close(found.ce, library("soft_ce")(logits, target).detach())
        torch.testing.assert_close(
            found.dice, DiceLoss(2.0, ignore_index=IGNORED)(logits, target).detach()
        )
        assert (
            criterion.used()["loss.kind"],
            criterion.used()["weights.method"],
            criterion.weight_ratio,
        ) == ("soft_ce", "uniform", 1.0)

    def test_bad_labels_are_watched(self) -> None:
        """A label that is no class is named here, too."""
        criterion, (logits, target) = (
            self.built(kind="soft_ce", dice_weight=0.5, overlap="lovasz"),
            batch(16, dtype=torch.float32),
        )
        target[0, 0, 0] = 77
        criterion(logits, target)
        with pytest.raises(Exception, match="77"):
            criterion.check_targets()

    def test_mean_of_batches(self) -> None:
        """Under accumulation an overlap of the library is the mean over the batches."""
        criterion, batches = (
            CombinedLoss(
                CrossEntropyLoss(ignore_index=IGNORED),
                made("tversky"),
                ce_weight=0.0,
                dice_weight=1.0,
            ),
            [batch(seed, dtype=torch.float32) for seed in (17, 18)],
        )
        others = criterion.pooled(batches)
        shares = [criterion(logits, target, others).total for logits, target in batches]
        expected: list[Tensor] = [library("tversky")(logits, target) for logits, target in batches]
        torch.testing.assert_close(torch.stack(shares).sum(), torch.stack(expected).mean())
