"""Cross entropy and focal loss summed over elements: the fast form, with its hand-written slopes, against the formulas and plain autograd."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from objectives.losses import softmax
from objectives.losses.elements import SMALLEST_P, Numbers, element_sums, plain_elements

torch.set_num_threads(1)

CLASSES = 3
WEIGHTS = torch.tensor([0.5, 1.5, 2.5, 0.0], dtype=torch.float64)
ALPHAS = torch.tensor([0.2, 0.3, 0.5, 0.0], dtype=torch.float64)

ASKED: dict[str, Numbers] = {
    f"{weight} {smoothing} {gamma} {alpha}": Numbers(
        WEIGHTS if weight == "weights" else None,
        smoothing,
        gamma,
        {"alphas": ALPHAS, "alpha": 0.25, "none": None}[alpha],
    )
    for weight, smoothing, gamma, alpha in itertools.product(
        ["weights", "even"], [0.0, 0.1], [None, 0.0, 0.5, 2.0], ["alphas", "alpha", "none"]
    )
    if gamma is not None or alpha == "none"
}
every_question = pytest.mark.parametrize("name", ASKED)


def drawn(
    seed: int, shape: tuple[int, int] = (3, 7), dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """−log p and spread that want gradients, 0 where nothing counts, and labels in 0 … C."""
    random = torch.Generator().manual_seed(seed)
    row = torch.randint(CLASSES + 1, shape, generator=random)
    nll, spread = (
        (4 * torch.rand(shape, generator=random, dtype=torch.float64) * (row < CLASSES))
        .to(dtype)
        .requires_grad_()
        for _ in range(2)
    )
    return nll, spread, row


def by_hand(nll: Tensor, spread: Tensor, row: Tensor, numbers: Numbers) -> tuple[Tensor, Tensor]:
    """c = (1−ε)·w_y·n + ε·u and f = a_y·(1−p)^γ·c, element after element, where the label is a class."""
    c_sum = f_sum = nll.double().sum() * 0
    for n, u, y in zip(
        nll.double().flatten(), spread.double().flatten(), row.flatten().tolist(), strict=True
    ):
        if y == CLASSES:
            continue
        w = 1.0 if numbers.weight is None else numbers.weight[y]
        a = (
            1.0
            if numbers.alpha is None
            else numbers.alpha[y]
            if isinstance(numbers.alpha, Tensor)
            else numbers.alpha
        )
        c = (1 - numbers.smoothing) * w * n + numbers.smoothing * u
        c_sum = c_sum + c
        f_sum = f_sum + a * (1 - torch.exp(-n)) ** (numbers.gamma or 0.0) * c
    return c_sum, f_sum


def sums(
    nll: Tensor, spread: Tensor, row: Tensor, numbers: Numbers, **options: Any
) -> tuple[Tensor | None, Tensor | None]:
    return element_sums(nll, spread if numbers.smoothing else None, row, numbers, **options)


def pulls(value: Tensor, nll: Tensor, spread: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    by_nll, by_spread = torch.autograd.grad(value, (nll, spread), allow_unused=True, **options)
    return by_nll, torch.zeros_like(spread) if by_spread is None else by_spread


@pytest.fixture(params=[1, 4, 1 << 16], ids=["element by element", "uneven", "whole"])
def in_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many elements make a piece."""
    monkeypatch.setattr(softmax, "PIECE_BYTES", 32 * request.param)


class TestAgainstFormulas:
    @every_question
    @pytest.mark.usefixtures("in_pieces")
    def test_values_and_slopes(self, name: str) -> None:
        """Both sums and their gradients are the formulas', however the elements are cut."""
        nll, spread, row = drawn(1)
        c, f = sums(nll, spread, row, ASKED[name])
        c_expected, f_expected = by_hand(nll, spread, row, ASKED[name])
        assert c is not None
        torch.testing.assert_close(c, c_expected, rtol=1e-13, atol=0)
        value, expected = 0.3 * c, 0.3 * c_expected
        assert (f is None) == (ASKED[name].gamma is None)
        if f is not None:
            torch.testing.assert_close(f, f_expected, rtol=1e-13, atol=0)
            value, expected = value + 0.7 * f, expected + 0.7 * f_expected
        valid = (
            row < CLASSES
        )  # elsewhere the probabilities' own gradient is 0, so that nothing of this arrives
        for ours, theirs in zip(
            pulls(value, nll, spread), pulls(expected, nll, spread), strict=True
        ):
            torch.testing.assert_close(ours * valid, theirs, rtol=1e-12, atol=1e-14)

    @every_question
    def test_float32(self, name: str) -> None:
        """Of float32 elements the sums are float64 and the slopes float32, to its digits."""
        nll, spread, row = drawn(2, dtype=torch.float32)
        c, f = sums(nll, spread, row, ASKED[name])
        value, expected = (
            c if f is None else f,
            by_hand(nll, spread, row, ASKED[name])[0 if f is None else 1],
        )
        assert value is not None
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
        found, valid = pulls(value, nll, spread), row < CLASSES
        assert {part.dtype for part in found} == {torch.float32}
        for ours, theirs in zip(found, pulls(expected, nll, spread), strict=True):
            torch.testing.assert_close(ours * valid, theirs, rtol=1e-5, atol=1e-6)

    @given(
        seed=st.integers(0, 2**31),
        gamma=st.one_of(st.none(), st.floats(0, 8)),
        smoothing=st.sampled_from([0.0, 0.05, 0.9]),
        scale=st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 100.0]),
        weighted=st.booleans(),
        alpha=st.sampled_from([None, 0.3, ALPHAS]),
        piece=st.integers(1, 30),
    )
    def test_plain(
        self,
        seed: int,
        gamma: float | None,
        smoothing: float,
        scale: float,
        weighted: bool,
        alpha: Any,
        piece: int,
    ) -> None:
        """For any numbers, near certainty and far from it, the fast form is the plain formulas under autograd."""
        nll, spread, row = drawn(seed)
        nll = (scale * nll).detach().requires_grad_()
        numbers = Numbers(
            WEIGHTS if weighted else None, smoothing, gamma, None if gamma is None else alpha
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(softmax, "PIECE_BYTES", 32 * piece)
            c, f = sums(nll, spread, row, numbers)
        c_NL, f_NL = plain_elements(nll, spread if smoothing else None, row, numbers)
        assert c is not None
        value, expected = (
            (c, c_NL.sum())
            if f is None or f_NL is None
            else (c + 2 * f, c_NL.sum() + 2 * f_NL.sum())
        )
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)
        for ours, theirs in zip(
            pulls(value, nll, spread), pulls(expected, nll, spread), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)

    @every_question
    def test_gradcheck(self, name: str) -> None:
        """The slopes are the numerical ones, also where only one of the sums is used."""
        nll, spread, row = drawn(3)
        nll = (nll.detach() + 0.1).requires_grad_()

        def outputs(n: Tensor, u: Tensor) -> tuple[Tensor, ...]:
            return tuple(part for part in sums(n, u, row, ASKED[name]) if part is not None)

        inputs = (nll, spread) if ASKED[name].smoothing else (nll, spread.detach())
        assert torch.autograd.gradcheck(outputs, inputs)


class TestCertainty:
    @pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.5, 0.999, 1.0, 2.0, 8.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_finite(self, gamma: float, dtype: torch.dtype, smoothing: float) -> None:
        """From p = 1 over the smallest numbers to p = 0 the slope is finite, and no focal one is above cross entropy's by more than gamma."""
        nll = torch.tensor(
            [[0.0, 1e-38, 1e-20, 1e-8, 1e-3, 1.0, 50.0, 1e4, 1e30]], dtype=dtype, requires_grad=True
        )
        row = torch.zeros(nll.shape, dtype=torch.int64)
        _, f = element_sums(
            nll, torch.ones_like(nll) if smoothing else None, row, Numbers(None, smoothing, gamma)
        )
        assert f is not None
        assert f.isfinite()
        slope = torch.autograd.grad(f, nll)[0]
        assert slope.isfinite().all()
        if smoothing == 0:
            assert (slope >= 0).all()
            assert slope.max() <= 1 + gamma

    def test_clamped(self) -> None:
        """With smoothing 1 − p stays within its bounds: the factor has no slope beyond them."""
        nll = torch.tensor([[1e-9, 40.0]], dtype=torch.float64, requires_grad=True)
        row, ε, γ = torch.zeros(1, 2, dtype=torch.int64), 0.1, 2.0
        _, f = element_sums(nll, torch.ones_like(nll), row, Numbers(None, ε, γ))
        assert f is not None
        low, high = SMALLEST_P**γ, (1 - SMALLEST_P) ** γ
        assert float(f.detach()) == pytest.approx(low * (0.9e-9 + ε) + high * (0.9 * 40 + ε))
        assert torch.autograd.grad(f, nll)[0].tolist() == [
            [pytest.approx(0.9 * low), pytest.approx(0.9 * high)]
        ]


class TestGraph:
    NUMBERS = Numbers(WEIGHTS, 0.1, 1.5, ALPHAS)

    def test_kept(self) -> None:
        """Through a graph that is kept, pass after pass gives the same; one that is not kept refuses a second."""
        nll, spread, row = drawn(4)
        c, f = sums(nll, spread, row, self.NUMBERS)
        assert c is not None
        assert f is not None
        value = c + 3 * f
        first = pulls(value, nll, spread, retain_graph=True)
        apart = [pulls(part, nll, spread, retain_graph=True) for part in (c, f)]
        assert all(
            torch.equal(*pair) for pair in zip(first, pulls(value, nll, spread), strict=True)
        )
        for whole, by_c, by_f in zip(first, *apart, strict=True):
            torch.testing.assert_close(whole, by_c + 3 * by_f)
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            pulls(value, nll, spread)

    def test_twice_differentiated(self) -> None:
        """A derivative of the gradient is refused with torch's own error."""
        nll, spread, row = drawn(5)
        _, f = sums(nll, spread, row, self.NUMBERS)
        assert f is not None
        with pytest.raises(
            RuntimeError,
            match="trying to differentiate twice a function that was marked with @once_differentiable",
        ):
            (pulls(f, nll, spread, create_graph=True)[0].sum() + (nll**2).sum()).backward()

    @pytest.mark.parametrize("name", ["weight", "gamma", "alpha"])
    def test_learned_numbers(self, name: str) -> None:
        """A weight, gamma or alpha that wants a gradient gets one, by the plain formulas."""
        nll, spread, row = drawn(6)
        plain = self.NUMBERS._replace(gamma=torch.tensor(1.5, dtype=torch.float64))
        learned = getattr(plain, name).clone().requires_grad_()
        _, f = sums(nll, spread, row, plain._replace(**{name: learned}))
        _, fixed = sums(nll, spread, row, plain)
        assert f is not None
        assert fixed is not None
        torch.testing.assert_close(f, fixed)
        assert torch.autograd.grad(f, learned)[0].abs().sum() > 0

    def test_nothing_asked(self) -> None:
        """What is not asked for is None, and nothing is kept without gradients."""
        nll, spread, row = drawn(7)
        assert sums(nll, spread, row, self.NUMBERS, ce=False)[0] is None
        with torch.no_grad():
            found = sums(nll, spread, row, self.NUMBERS)
        assert not any(part is not None and part.requires_grad for part in found)
        assert sums(nll[:0], spread[:0], row[:0], self.NUMBERS) == (0, 0)
