"""The core under every loss: its sums and its hand-written gradient against the formulas in float64 and against plain autograd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from objectives.losses import softmax
from objectives.losses.batch_sums import label_rows
from objectives.losses.softmax import (
    Power,
    SoftmaxSums,
    iterate_pieces,
    plain_softmax_sums,
    softmax_sums,
)
from tests.unit.objectives.losses.references import IGNORED, batch, reference_softmax

torch.set_num_threads(1)

CLASSES = 4
U_4 = torch.tensor([0.1, 0.0, 0.7, 0.4], dtype=torch.float64)
SHAPES = [(7, CLASSES), (1, CLASSES, 9), (3, CLASSES, 5), (2, CLASSES, 3, 5), (2, CLASSES, 2, 3, 2)]
ASKED: list[tuple[Tensor | None, Power | None]] = [
    (None, None),
    (U_4, None),
    (None, 1),
    (None, 2),
    (U_4, 1),
    (U_4, 2),
]

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_question = pytest.mark.parametrize(
    ("u_C", "power"), ASKED, ids=["nll", "spread", "p", "p2", "spread+p", "spread+p2"]
)


def by_hand(logits: Tensor, row_NL: Tensor, u_C: Tensor | None, power: Power | None) -> SoftmaxSums:
    """−log p_y, −Σ u·log p, Σ p^power, Σ p of the label: from exp z / Σ exp z in float64, one element after the other."""
    classes = logits.shape[1]
    p_NCL = reference_softmax(logits).reshape(*logits.shape[:2], -1)
    zero = p_NCL.sum() * 0
    nll = [
        [-p_CL[row, place].log() if row < classes else zero for place, row in enumerate(row_L)]
        for p_CL, row_L in zip(p_NCL, row_NL.tolist(), strict=True)
    ]
    factors = torch.zeros(classes, dtype=torch.float64) if u_C is None else u_C
    spread = [
        [
            -sum((u * p.log() for u, p in zip(factors, p_CL[:, place], strict=True) if u > 0), zero)
            if row < classes
            else zero
            for place, row in enumerate(row_L)
        ]
        for p_CL, row_L in zip(p_NCL, row_NL.tolist(), strict=True)
    ]
    counted_NCL = torch.stack(
        [p_CL * (row_L < classes) for p_CL, row_L in zip(p_NCL, row_NL, strict=True)]
    )
    labelled_NCL = torch.stack(
        [
            p_CL * (row_L == torch.arange(classes).unsqueeze(1))
            for p_CL, row_L in zip(p_NCL, row_NL, strict=True)
        ]
    )
    overlap = (None, None) if power is None else ((counted_NCL**power).sum(2), labelled_NCL.sum(2))
    return SoftmaxSums(stacked(nll), None if u_C is None else stacked(spread), *overlap)


def stacked(values: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(line) for line in values])


def pull(sums: SoftmaxSums) -> Tensor:
    """A scalar that every output has another share in."""
    random = torch.Generator().manual_seed(3)
    return sum(
        (part.double() * torch.rand(part.shape, generator=random, dtype=torch.float64)).sum()
        for part in sums
        if part is not None
    )  # type: ignore[return-value]


def gradient_of(sums: SoftmaxSums, logits: Tensor, **options: Any) -> Tensor:
    (found,) = torch.autograd.grad(pull(sums), logits, **options)
    return found


def with_rows(
    seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Logits, and labels in 0 … C, where C counts for nothing."""
    logits, target = batch(seed, shape, dtype=dtype)
    return logits, label_rows(target, shape[1], IGNORED)


def assert_sums(found: SoftmaxSums, expected: SoftmaxSums, tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(
                ours.double(), theirs.double(), rtol=tolerance, atol=tolerance
            )


@pytest.fixture(
    params=[1, 7, 30, 1 << 16],
    ids=["element by element", "uneven lengths", "several images", "whole"],
)
def in_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many elements make a piece."""
    monkeypatch.setattr(softmax, "PIECE_BYTES", 4 * CLASSES * request.param)
    return int(request.param)


class Storages(TorchDispatchMode):
    """Remembers every new storage of at least so many bytes that comes to be within."""

    def __init__(self, least_bytes: int, known: Tensor) -> None:
        super().__init__()
        self.least_bytes, self.known, self.found = (
            least_bytes,
            known.untyped_storage().data_ptr(),
            list[torch.UntypedStorage](),
        )

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        seen = {self.known, *(tensor.data_ptr() for tensor in self.found)}
        if storage.nbytes() >= self.least_bytes and storage.data_ptr() not in seen:
            self.found.append(storage)


class TestAgainstFormulas:
    @every_shape
    @every_question
    @pytest.mark.usefixtures("in_pieces")
    def test_float64(self, shape: tuple[int, ...], u_C: Tensor | None, power: Power | None) -> None:
        """Values and gradient are the formulas' to float64's digits, for samples, lines, images and volumes, however they are cut."""
        logits, row_NL = with_rows(1, shape)
        found, expected = (
            softmax_sums(logits, row_NL, u_C, power),
            by_hand(logits, row_NL, u_C, power),
        )
        assert_sums(found, expected, 1e-12)
        torch.testing.assert_close(
            gradient_of(found, logits), gradient_of(expected, logits), rtol=1e-10, atol=1e-12
        )

    @every_shape
    @every_question
    @pytest.mark.usefixtures("in_pieces")
    def test_float32(self, shape: tuple[int, ...], u_C: Tensor | None, power: Power | None) -> None:
        """In float32 they are the formulas' to float32's digits."""
        logits, row_NL = with_rows(2, shape, torch.float32)
        wide = logits.detach().double().requires_grad_()
        found, expected = (
            softmax_sums(logits, row_NL, u_C, power),
            by_hand(wide, row_NL, u_C, power),
        )
        assert found.nll_NL.dtype == torch.float32
        assert found.soft_NC is None or found.soft_NC.dtype == torch.float64
        assert_sums(found, expected, 2e-6)
        torch.testing.assert_close(
            gradient_of(found, logits).double(), gradient_of(expected, wide), rtol=1e-5, atol=2e-6
        )

    @pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
    @every_question
    def test_narrow(
        self, dtype: torch.dtype, digits: float, u_C: Tensor | None, power: Power | None
    ) -> None:
        """Half logits are computed with in float32: values as exact as that, and a gradient that is rounded once, at the end."""
        logits, row_NL = with_rows(3, (2, CLASSES, 3, 5), dtype)
        wide = logits.detach().double().requires_grad_()
        found, expected = (
            softmax_sums(logits, row_NL, u_C, power),
            by_hand(wide, row_NL, u_C, power),
        )
        assert_sums(found, expected, 2e-6)
        pulled = gradient_of(found, logits)
        assert pulled.dtype == dtype
        torch.testing.assert_close(
            pulled.double(), gradient_of(expected, wide), rtol=digits, atol=1e-6
        )

    @every_question
    @pytest.mark.usefixtures("in_pieces")
    def test_gradcheck(self, u_C: Tensor | None, power: Power | None) -> None:
        """The gradient is the numerical one, also where only some of the outputs are used."""
        logits, row_NL = with_rows(4, (3, CLASSES, 5))

        def outputs(x: Tensor) -> tuple[Tensor, ...]:
            return tuple(part for part in softmax_sums(x, row_NL, u_C, power) if part is not None)

        assert torch.autograd.gradcheck(outputs, logits)

    @given(
        seed=st.integers(0, 2**31),
        images=st.integers(1, 4),
        classes=st.integers(1, 6),
        length=st.integers(1, 9),
        piece=st.integers(1, 60),
        scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
        spread=st.booleans(),
        power=st.sampled_from([None, 1, 2]),
    )
    def test_plain(
        self,
        seed: int,
        images: int,
        classes: int,
        length: int,
        piece: int,
        scale: float,
        spread: bool,
        power: Power | None,
    ) -> None:
        """For any shape, cut and scale, extreme logits among them, the fast form is the plain formulas under autograd."""
        logits, row_NL = with_rows(seed, (images, classes, length))
        logits = (scale * logits).detach().requires_grad_()
        u_C = torch.linspace(0, 1, classes, dtype=torch.float64) if spread else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(softmax, "PIECE_BYTES", 4 * piece)
            found, expected = (
                softmax_sums(logits, row_NL, u_C, power),
                plain_softmax_sums(logits, row_NL, u_C, power),
            )
            assert_sums(found, expected, 1e-10)
            torch.testing.assert_close(
                gradient_of(found, logits), gradient_of(expected, logits), rtol=1e-9, atol=1e-10
            )


class TestLayouts:
    @staticmethod
    def views() -> Iterator[tuple[str, Tensor]]:
        """(2, 4, 3, 5) in every way that a tensor can lie in memory."""
        random = torch.Generator().manual_seed(5)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random, dtype=torch.float64)

        yield "channels_last", drawn(2, CLASSES, 3, 5).to(memory_format=torch.channels_last)
        yield "every other column", drawn(2, CLASSES, 3, 10)[..., ::2]
        yield "every other class", drawn(2, 2 * CLASSES, 3, 5)[:, ::2]
        yield "a window", drawn(4, CLASSES + 2, 5, 7)[1:3, 1:-1, 1:4, 1:6]
        yield "turned", drawn(2, CLASSES, 5, 3).transpose(2, 3)
        yield "images last", drawn(CLASSES, 3, 5, 2).permute(3, 0, 1, 2)
        yield "one image repeated", drawn(1, CLASSES, 3, 5).expand(2, -1, -1, -1)
        yield "one pixel repeated", drawn(2, CLASSES, 1, 1).expand(-1, -1, 3, 5)

    @pytest.mark.parametrize(("name", "view"), list(views()), ids=[name for name, _ in views()])
    @every_question
    @pytest.mark.usefixtures("in_pieces")
    def test_view(self, name: str, view: Tensor, u_C: Tensor | None, power: Power | None) -> None:
        """However the logits lie in memory, values and gradient are those of a contiguous copy."""
        _, row_NL = with_rows(6, (2, CLASSES, 3, 5))
        ours, copy = (
            view.detach().requires_grad_(),
            view.detach().clone(memory_format=torch.contiguous_format).requires_grad_(),
        )
        found, expected = (
            softmax_sums(ours, row_NL, u_C, power),
            softmax_sums(copy, row_NL, u_C, power),
        )
        assert_sums(found, expected, 1e-14)
        torch.testing.assert_close(
            gradient_of(found, ours), gradient_of(expected, copy), rtol=1e-13, atol=1e-14
        )

    def test_gradient_lies_as_the_logits(self) -> None:
        """Channels_last logits get a gradient in channels_last, which the network's last layer takes as it is."""
        logits, row_NL = with_rows(7, (2, CLASSES, 3, 5))
        logits = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
        assert gradient_of(softmax_sums(logits, row_NL, U_4, 1), logits).is_contiguous(
            memory_format=torch.channels_last
        )

    def test_into_what_was_expanded(self) -> None:
        """A gradient that arrives at repeated logits is summed over the repetitions."""
        _, row_NL = with_rows(8, (3, CLASSES, 5))
        once = torch.randn(
            1, CLASSES, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        ).requires_grad_()
        found = gradient_of(softmax_sums(once.expand(3, -1, 5), row_NL, U_4, 2), once)
        torch.testing.assert_close(
            found, gradient_of(by_hand(once.expand(3, -1, 5), row_NL, U_4, 2), once)
        )


class TestPieces:
    @pytest.mark.parametrize(
        ("shape", "elements", "expected"),
        [
            ((5, CLASSES, 3), 6, [(0, 2, 0, 3), (2, 4, 0, 3), (4, 5, 0, 3)]),
            (
                (2, CLASSES, 10),
                4,
                [
                    (0, 1, 0, 4),
                    (0, 1, 4, 8),
                    (0, 1, 8, 10),
                    (1, 2, 0, 4),
                    (1, 2, 4, 8),
                    (1, 2, 8, 10),
                ],
            ),
            ((2, CLASSES, 3), 100, [(0, 2, 0, 3)]),
            ((7, CLASSES, 1), 3, [(0, 3, 0, 1), (3, 6, 0, 1), (6, 7, 0, 1)]),
            ((0, CLASSES, 3), 6, []),
            ((2, CLASSES, 0), 6, []),
        ],
    )
    def test_cut(
        self,
        monkeypatch: pytest.MonkeyPatch,
        shape: tuple[int, int, int],
        elements: int,
        expected: list[tuple[int, ...]],
    ) -> None:
        """Whole images as long as they fit, parts of one where it does not; what is left over makes a smaller piece."""
        monkeypatch.setattr(softmax, "PIECE_BYTES", 4 * CLASSES * elements)
        images, _, length = shape
        cut = [
            (ns.start, min(ns.stop, images), ls.start, min(ls.stop, length))
            for ns, ls in iterate_pieces(torch.zeros(shape))
        ]
        assert cut == expected

    def test_more_classes_than_fit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A piece has one element at least, however many its classes are."""
        monkeypatch.setattr(softmax, "PIECE_BYTES", 4)
        assert len(list(iterate_pieces(torch.zeros(2, 9, 3)))) == 6

    def test_whole_elsewhere(self) -> None:
        """A device without a cache to fit gets the batch in one piece."""
        assert list(iterate_pieces(torch.zeros(4, 19, 1 << 20, device="meta"))) == [
            (slice(0, 4), slice(0, 4 << 20))
        ]


class TestMemory:
    @pytest.fixture
    def small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(softmax, "PIECE_BYTES", 1 << 10)

    @pytest.mark.usefixtures("small_pieces")
    @pytest.mark.parametrize(("u_C", "power"), ASKED)
    def test_one_tensor(self, u_C: Tensor | None, power: Power | None) -> None:
        """Forward and backward together bring one tensor of the logits' size to be, which ends as the gradient."""
        logits, row_NL = with_rows(9, (4, CLASSES, 16, 32), torch.float32)
        with Storages(logits.nbytes, logits) as large:
            sums = softmax_sums(logits, row_NL, u_C, power)
            assert len(large.found) == 1
            found = gradient_of(sums, logits)
        assert [storage.data_ptr() for storage in large.found] == [
            found.untyped_storage().data_ptr()
        ]

    @pytest.mark.usefixtures("small_pieces")
    @pytest.mark.parametrize(("u_C", "power"), ASKED)
    def test_no_grad(self, u_C: Tensor | None, power: Power | None) -> None:
        """Without gradients the values are the same, and there is no graph."""
        logits, row_NL = with_rows(10, (4, CLASSES, 16, 32), torch.float32)
        with Storages(logits.nbytes, logits) as large, torch.no_grad():
            found = softmax_sums(logits, row_NL, u_C, power)
        assert large.found == []
        assert_sums(found, softmax_sums(logits, row_NL, u_C, power), 0)
        with Storages(logits.nbytes, logits) as large:
            softmax_sums(logits.detach(), row_NL, u_C, power)
        assert large.found == []

    def test_logits_are_left_alone(self) -> None:
        """Nothing is written into the logits."""
        logits, row_NL = with_rows(11, (2, CLASSES, 6))
        before = logits.detach().clone()
        gradient_of(softmax_sums(logits, row_NL, U_4, 2), logits)
        assert torch.equal(logits, before)


class TestGraph:
    def test_kept(self) -> None:
        """Through a graph that is kept two backward passes give the same, right gradient."""
        logits, row_NL = with_rows(12, (2, CLASSES, 6))
        sums = softmax_sums(logits, row_NL, U_4, 2)
        first, second = gradient_of(sums, logits, retain_graph=True), gradient_of(sums, logits)
        assert torch.equal(first, second)
        torch.testing.assert_close(first, gradient_of(by_hand(logits, row_NL, U_4, 2), logits))

    def test_one_output_after_the_other(self) -> None:
        """So do passes from one output at a time: what each leaves is untouched by the other."""
        logits, row_NL = with_rows(13, (2, CLASSES, 6))
        sums, expected = softmax_sums(logits, row_NL, U_4, 1), by_hand(logits, row_NL, U_4, 1)
        for place in range(4):
            ours, theirs = sums[place], expected[place]
            assert ours is not None
            assert theirs is not None
            found = torch.autograd.grad((ours**2).sum(), logits, retain_graph=place < 3)
            torch.testing.assert_close(
                found, torch.autograd.grad((theirs**2).sum(), logits, retain_graph=True)
            )

    def test_not_kept(self) -> None:
        """One that is not kept refuses a second pass, as every graph of torch's does."""
        logits, row_NL = with_rows(14, (2, CLASSES, 6))
        sums = softmax_sums(logits, row_NL)
        gradient_of(sums, logits)
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            gradient_of(sums, logits)

    @pytest.mark.parametrize("curved", [False, True])
    def test_twice_differentiated(self, curved: bool) -> None:
        """A derivative of the gradient is refused with torch's own error, also beside a term that has one; the plain form has it."""
        logits, row_NL = with_rows(15, (2, CLASSES, 6))

        def penalty(sums: SoftmaxSums) -> Tensor:
            value = (sums.nll_NL**2).sum() if curved else sums.nll_NL.sum()
            (once,) = torch.autograd.grad(value, logits, create_graph=True)
            return (once**2).sum() + (logits**2).sum()

        with pytest.raises(
            RuntimeError,
            match="trying to differentiate twice a function that was marked with @once_differentiable",
        ):
            penalty(softmax_sums(logits, row_NL)).backward()
        assert torch.autograd.gradgradcheck(lambda x: plain_softmax_sums(x, row_NL).nll_NL, logits)
        penalty(plain_softmax_sums(logits, row_NL)).backward()
        assert logits.grad is not None

    def test_accumulates(self) -> None:
        """`backward` adds to a gradient that is there, without a share in its memory."""
        logits, row_NL = with_rows(16, (2, CLASSES, 6))
        pull(softmax_sums(logits, row_NL)).backward()
        assert logits.grad is not None
        once = logits.grad.clone()
        pull(softmax_sums(logits, row_NL)).backward()
        torch.testing.assert_close(logits.grad, 2 * once)

    def test_labels_need_none(self) -> None:
        """Factors and labels get no gradient, whatever they ask for."""
        logits, row_NL = with_rows(17, (2, CLASSES, 6))
        u_C = U_4.clone().requires_grad_()
        assert torch.autograd.grad(
            pull(softmax_sums(logits, row_NL, u_C)), u_C, allow_unused=True
        ) == (None,)


class TestEdges:
    @pytest.mark.parametrize(
        "shape", [(0, CLASSES), (0, CLASSES, 3, 5), (2, CLASSES, 0), (2, CLASSES, 0, 5)]
    )
    @every_question
    def test_empty(self, shape: tuple[int, ...], u_C: Tensor | None, power: Power | None) -> None:
        """No image, or images without a pixel, give empty sums (zeros for the classes) and an empty gradient."""
        logits = torch.zeros(shape, requires_grad=True)
        row_NL = label_rows(
            torch.zeros((shape[0], *shape[2:]), dtype=torch.int64), CLASSES, IGNORED
        )
        sums = softmax_sums(logits, row_NL, u_C, power)
        assert sums.nll_NL.numel() == 0
        assert power is None or (sums.soft_NC is not None and sums.soft_NC.abs().sum() == 0)
        assert gradient_of(sums, logits).shape == shape

    @every_question
    def test_one_pixel(self, u_C: Tensor | None, power: Power | None) -> None:
        """A single element works."""
        logits, row_NL = with_rows(18, (1, CLASSES, 1, 1))
        assert_sums(
            softmax_sums(logits, row_NL, u_C, power), by_hand(logits, row_NL, u_C, power), 1e-12
        )

    def test_one_class(self) -> None:
        """With a single class p is 1: no surprise anywhere, and no gradient."""
        logits, row_NL = with_rows(19, (2, 1, 3))
        sums = softmax_sums(logits, row_NL, torch.ones(1, dtype=torch.float64), 1)
        assert sums.spread_NL is not None
        assert sums.soft_NC is not None
        assert sums.nll_NL.abs().sum() == sums.spread_NL.abs().sum() == 0
        assert sums.soft_NC[:, 0].tolist() == (row_NL == 0).sum(1).tolist()
        assert gradient_of(sums, logits).abs().max() < 1e-15

    @pytest.mark.parametrize("label", [IGNORED, -1, -100, CLASSES, CLASSES + 1, 2**40])
    @every_question
    @pytest.mark.usefixtures("in_pieces")
    def test_no_class(self, label: int, u_C: Tensor | None, power: Power | None) -> None:
        """An ignored label, a negative one and one beyond the classes count for nothing: all is 0 there, the gradient included."""
        logits, target = batch(20, (2, CLASSES, 3, 5), ignored=0.0)
        target[0, 1] = label
        row_NL = label_rows(target, CLASSES, IGNORED)
        assert row_NL.view(target.shape)[0, 1].tolist() == [CLASSES] * 5
        sums = softmax_sums(logits, row_NL, u_C, power)
        assert sums.nll_NL.view(target.shape)[0, 1].abs().sum() == 0
        assert sums.spread_NL is None or sums.spread_NL.view(target.shape)[0, 1].abs().sum() == 0
        assert_sums(sums, by_hand(logits, row_NL, u_C, power), 1e-12)
        found = gradient_of(sums, logits)
        assert found[0, :, 1].abs().sum() == 0
        assert (found.abs().sum(1) > 0).sum() == 25

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("size", [1e4, -1e4])
    def test_extreme(self, dtype: torch.dtype, size: float) -> None:
        """A gap of 2·10⁴ between the logits gives finite sums and gradients; −log p is the gap itself."""
        logits = torch.tensor([[size, -size], [size, -size]], dtype=dtype, requires_grad=True)
        sums = softmax_sums(logits, torch.tensor([[0], [1]]), torch.tensor([0.5, 0.5]), 2)
        gap = 2 * float(logits.detach()[0, 0].abs())
        assert sums.nll_NL.flatten().tolist() == ([0, gap] if size > 0 else [gap, 0])
        assert gradient_of(sums, logits).isfinite().all()

    def test_weights_of_another_type(self) -> None:
        """Factors in float64 do not widen a float32 loss."""
        logits, row_NL = with_rows(21, (2, CLASSES, 3), torch.float32)
        spread = softmax_sums(logits, row_NL, U_4).spread_NL
        assert spread is not None
        assert spread.dtype == torch.float32
