"""What holds of every loss for any shape, labels and numbers: symmetries, bounds, and that ignored elements are as good as absent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

from objectives.losses import CombinedLoss, CrossEntropyLoss, DiceLoss, FocalLoss, gradient_shares
from tests.unit.objectives.losses.references import IGNORED, Loss, batch, gradient

torch.set_num_threads(1)

CLASSES = 4

Maker = Callable[[Tensor, Tensor], Loss]
"""From class weights and alphas (C,) to a loss."""


def total(main: CrossEntropyLoss | FocalLoss, dice: DiceLoss) -> Loss:
    combined = CombinedLoss(main, dice)
    return lambda x, t: combined(x, t).total


MAKERS: dict[str, Maker] = {
    "ce": lambda w, _: CrossEntropyLoss(w, ignore_index=IGNORED, label_smoothing=0.1),
    "focal": lambda w, a: FocalLoss(1.5, a, w, ignore_index=IGNORED),
    "focal half": lambda w, a: FocalLoss(0.5, a, w, ignore_index=IGNORED, label_smoothing=0.1),
    "ce_focal": lambda w, a: FocalLoss(2.0, a, w, ignore_index=IGNORED, share=0.3),
    "dice": lambda *_: DiceLoss(1.0, ignore_index=IGNORED),
    "dice square": lambda *_: DiceLoss(
        0.5, square_denominator=True, keep_absent=True, ignore_index=IGNORED
    ),
    "dice image": lambda *_: DiceLoss(2.0, reduction="image", ignore_index=IGNORED),
    "combined": lambda w, a: total(
        FocalLoss(2.0, a, w, ignore_index=IGNORED), DiceLoss(1.0, ignore_index=IGNORED)
    ),
}
names = st.sampled_from(list(MAKERS))
over_the_batch = st.sampled_from([name for name in MAKERS if name != "dice image"])
seeds = st.integers(0, 2**31)
vectors = st.lists(st.floats(0.05, 20), min_size=CLASSES, max_size=CLASSES).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)
holes = st.sampled_from([0.0, 0.3, 0.9])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


class TestSymmetries:
    @given(
        name=names,
        seed=seeds,
        weight=vectors,
        alpha=vectors,
        order=st.permutations(range(CLASSES)),
        ignored=holes,
    )
    def test_classes(
        self, name: str, seed: int, weight: Tensor, alpha: Tensor, order: list[int], ignored: float
    ) -> None:
        """Renaming the classes, their weights and alphas with them, leaves the loss and renames the gradient."""
        logits, target = batch(seed, (2, CLASSES, 3, 4), ignored)
        place = torch.tensor([order.index(c) for c in range(CLASSES)])  # where class c stands now
        renamed = torch.where(target == IGNORED, IGNORED, place[target.clamp(max=CLASSES - 1)])
        moved = logits.detach()[:, order].requires_grad_()
        before, after = MAKERS[name](weight, alpha), MAKERS[name](weight[order], alpha[order])
        close(after(moved, renamed), before(logits, target))
        close(gradient(after, moved, renamed), gradient(before, logits, target)[:, order])

    @given(name=over_the_batch, seed=seeds, weight=vectors, alpha=vectors, ignored=holes)
    def test_elements(
        self, name: str, seed: int, weight: Tensor, alpha: Tensor, ignored: float
    ) -> None:
        """Where elements lie, in which image and in which place, is nothing to a loss over the batch."""
        loss, (logits, target) = MAKERS[name](weight, alpha), batch(seed, (3, CLASSES, 4), ignored)
        shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
        as_samples, labels = (
            logits.detach().movedim(1, -1).reshape(-1, CLASSES)[shuffled],
            target.flatten()[shuffled],
        )
        close(loss(as_samples, labels), loss(logits, target).detach())

    @given(name=names, seed=seeds, weight=vectors, alpha=vectors)
    def test_images(self, name: str, seed: int, weight: Tensor, alpha: Tensor) -> None:
        """The order of the images is nothing to any."""
        loss, (logits, target) = MAKERS[name](weight, alpha), batch(seed, (3, CLASSES, 2, 2))
        close(loss(logits.flip(0), target.flip(0)), loss(logits, target))

    @given(name=names, seed=seeds, weight=vectors, alpha=vectors, shift=st.floats(-50, 50))
    def test_shift(self, name: str, seed: int, weight: Tensor, alpha: Tensor, shift: float) -> None:
        """Logits mean something only by their differences: a shift changes nothing, and an element's gradient sums to 0."""
        loss, (logits, target) = MAKERS[name](weight, alpha), batch(seed, (2, CLASSES, 3, 3))
        torch.testing.assert_close(
            loss(logits + shift, target), loss(logits, target), rtol=1e-9, atol=1e-11
        )
        assert gradient(loss, logits, target).sum(1).abs().max() < 1e-12 * (
            1 + float(weight.max() + alpha.max())
        )

    @given(seed=seeds, weight=vectors, factor=st.floats(0.01, 100))
    def test_scale_of_weights(self, seed: int, weight: Tensor, factor: float) -> None:
        """Class weights are a weighted mean's: a factor on all of them changes nothing."""
        logits, target = batch(seed, (2, CLASSES, 3, 3))
        for make in (
            lambda w: CrossEntropyLoss(w, ignore_index=IGNORED),
            lambda w: FocalLoss(2.0, None, w, ignore_index=IGNORED),
        ):
            close(make(factor * weight)(logits, target), make(weight)(logits, target))

    @given(seed=seeds, weight=vectors, order=st.permutations(range(CLASSES)))
    def test_shares(self, seed: int, weight: Tensor, order: list[int]) -> None:
        """Renaming the classes renames who pulls at the logits, and leaves the parts."""
        logits, target = batch(seed, (2, CLASSES, 3, 3), 0.0)
        place = torch.tensor([order.index(c) for c in range(CLASSES)])
        before, after = (
            CombinedLoss(CrossEntropyLoss(w, ignore_index=IGNORED), DiceLoss(ignore_index=IGNORED))
            for w in (weight, weight[order])
        )
        found, expected = (
            gradient_shares(after, logits[:, order], place[target]),
            gradient_shares(before, logits, target),
        )
        close(found.classes, expected.classes[order])
        close(found.parts, expected.parts)


class TestIgnored:
    @given(name=over_the_batch, seed=seeds, weight=vectors, alpha=vectors, ignored=holes)
    def test_as_good_as_absent(
        self, name: str, seed: int, weight: Tensor, alpha: Tensor, ignored: float
    ) -> None:
        """The loss is that of the valid elements alone, and so is the gradient; ignored ones get 0."""
        loss, (logits, target) = (
            MAKERS[name](weight, alpha),
            batch(seed, (2, CLASSES, 3, 4), ignored),
        )
        valid = (target != IGNORED).flatten()
        alone = logits.detach().movedim(1, -1).reshape(-1, CLASSES)[valid].requires_grad_()
        labels = target.flatten()[valid]
        close(loss(logits, target), loss(alone, labels))
        pulls = gradient(loss, logits, target).movedim(1, -1).reshape(-1, CLASSES)
        close(pulls[valid], gradient(loss, alone, labels))
        assert pulls[~valid].abs().sum() == 0

    @given(name=names, seed=seeds, weight=vectors, alpha=vectors, scale=st.floats(-1e4, 1e4))
    def test_change_nothing(
        self, name: str, seed: int, weight: Tensor, alpha: Tensor, scale: float
    ) -> None:
        """Whatever the logits at ignored elements are, the loss is the same to the last bit."""
        loss, (logits, target) = MAKERS[name](weight, alpha), batch(seed, (2, CLASSES, 3, 4), 0.5)
        changed = torch.where((target == IGNORED).unsqueeze(1), scale, logits)
        assert torch.equal(loss(changed, target), loss(logits, target))


class TestBounds:
    @given(
        name=names,
        seed=seeds,
        weight=vectors,
        alpha=vectors,
        ignored=holes,
        scale=st.sampled_from([0.0, 1.0, 100.0]),
    )
    def test_not_negative(
        self, name: str, seed: int, weight: Tensor, alpha: Tensor, ignored: float, scale: float
    ) -> None:
        """No loss is negative."""
        logits, target = batch(seed, (2, CLASSES, 3, 4), ignored)
        assert float(MAKERS[name](weight, alpha)((scale * logits).detach(), target)) >= -1e-12

    @given(
        seed=seeds,
        smooth=st.floats(0, 20),
        square=st.booleans(),
        image=st.booleans(),
        keep=st.booleans(),
        scale=st.sampled_from([1.0, 100.0, 1e4]),
    )
    def test_dice(
        self, seed: int, smooth: float, square: bool, image: bool, keep: bool, scale: float
    ) -> None:
        """Dice lies within 0 and 1, extreme logits included, right or wrong."""
        logits, target = batch(seed, (2, CLASSES, 5), 0.3)
        loss = DiceLoss(
            smooth,
            square_denominator=square,
            reduction="image" if image else "global",
            keep_absent=keep,
            ignore_index=IGNORED,
        )
        assert -1e-12 <= float(loss((scale * logits).detach(), target)) <= 1 + 1e-12

    @given(
        name=st.sampled_from([name for name in MAKERS if name not in ("ce", "focal half")]),
        seed=seeds,
        weight=vectors,
        alpha=vectors,
        ignored=holes,
    )
    def test_perfect(
        self, name: str, seed: int, weight: Tensor, alpha: Tensor, ignored: float
    ) -> None:
        """A perfect prediction costs nothing, whatever the weights, but for what label smoothing asks."""
        _, target = batch(seed, (2, CLASSES, 3, 3), ignored)
        logits = (
            60.0
            * one_hot(target.masked_fill(target == IGNORED, 0), CLASSES).movedim(-1, 1).double()
        )
        assert abs(float(MAKERS[name](weight, alpha)(logits, target))) < 1e-12

    @given(seed=seeds, weight=vectors, gamma=st.floats(0, 5), share=st.floats(0.01, 0.99))
    def test_mixture_lies_between(
        self, seed: int, weight: Tensor, gamma: float, share: float
    ) -> None:
        """Focal without alpha is never above cross entropy, and a mixture of both lies between them."""
        logits, target = batch(seed, (2, CLASSES, 3, 3), 0.0)
        ce, focal, mixed = (
            float(loss(logits.detach(), target))
            for loss in (
                CrossEntropyLoss(weight),
                FocalLoss(gamma, None, weight),
                FocalLoss(gamma, None, weight, share=share),
            )
        )
        assert focal <= mixed + 1e-12 <= ce + 2e-12

    @given(
        seed=seeds, smoothing=st.sampled_from([0.0, 0.1, 0.5]), alpha=st.booleans(), weight=vectors
    )
    def test_gamma_0(self, seed: int, smoothing: float, alpha: bool, weight: Tensor) -> None:
        """Gamma 0 with alpha 1, named or not, is cross entropy to the last bit, value and gradient."""
        logits, target = batch(seed, (2, CLASSES, 3, 3))
        plain = CrossEntropyLoss(weight, ignore_index=IGNORED, label_smoothing=smoothing)
        zero = FocalLoss(
            0.0,
            [1.0] * CLASSES if alpha else None,
            weight,
            ignore_index=IGNORED,
            label_smoothing=smoothing,
        )
        assert torch.equal(zero(logits, target), plain(logits, target))
        assert torch.equal(gradient(zero, logits, target), gradient(plain, logits, target))

    @given(seed=seeds, smoothing=st.floats(0.01, 0.9))
    def test_smoothing_smooths(self, seed: int, smoothing: float) -> None:
        """Smoothed cross entropy is least not at certainty but where the chances are the smoothed target's own."""
        _, target = batch(seed, (6, CLASSES), 0.0)
        q = (1 - smoothing) * one_hot(target, CLASSES).double() + smoothing / CLASSES
        loss, best = CrossEntropyLoss(label_smoothing=smoothing), q.log().requires_grad_()
        assert gradient(loss, best, target).abs().max() < 1e-12
        close(loss(best, target).detach(), -(q * q.log()).sum(1).mean())
        assert float(loss(100.0 * one_hot(target, CLASSES).double(), target)) > float(
            loss(best.detach(), target)
        )
