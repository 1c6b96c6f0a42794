"""torch.compile: one compilation serves a whole study, since the numbers that trials differ in are tensors; and it computes the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager
from torch._dynamo.utils import counters

from objectives.losses import Criterion, build_criterion
from spaces.config import LossConfig, WeightsConfig
from spaces.records import ClassCounts
from tests.unit.objectives.losses.references import IGNORED, batch

torch.set_num_threads(1)

COUNTS = ClassCounts(("a", "b", "c", "d"), (900, 90, 9, 1))
TRIALS = 20
KINDS: dict[str, dict[str, Any]] = {
    "ce+dice": {"kind": "ce"},
    "focal+dice per image": {
        "kind": "focal",
        "dice_reduction": "image",
        "square_denominator": True,
    },
    "ce+focal+dice": {"kind": "ce_focal"},
    "normalised": {"kind": "ce_focal", "normalize": True},
}


def trial(number: int, kind: dict[str, Any]) -> Criterion:
    """The criterion of a trial: every number that can be searched is another in each."""
    random = np.random.default_rng(number)
    loss = LossConfig(
        **kind,
        gamma=random.uniform(0.5, 5),
        focal_share=random.uniform(0.1, 0.9),
        alpha_tau=random.uniform(0.1, 1),
        smooth=random.uniform(0.1, 10),
        dice_weight=random.uniform(0.1, 0.9),
        label_smoothing=random.uniform(0.01, 0.3),
        normalize_momentum=random.uniform(0.5, 0.99),
    )
    return build_criterion(
        loss,
        WeightsConfig(method="sqrt_inv_freq", clip_ratio=random.uniform(2, 100)),
        COUNTS,
        IGNORED,
        "cpu",
    )


def total(criterion: Criterion, logits: Tensor, target: Tensor) -> Tensor:
    return criterion(logits, target).total


@pytest.fixture
def compiled() -> Iterator[tuple[Callable[..., Tensor], list[torch.fx.GraphModule]]]:
    """`total`, compiled without a C++ compiler's help, and the graphs that were compiled."""
    torch._dynamo.reset()
    counters.clear()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    yield torch.compile(total, backend=backend, fullgraph=True), graphs
    torch._dynamo.reset()


class TestOneCompilation:
    @pytest.mark.parametrize("kind", KINDS)
    def test_twenty_trials(
        self, kind: str, compiled: tuple[Callable[..., Tensor], list[torch.fx.GraphModule]]
    ) -> None:
        """Twenty trials with other numbers throughout, forward and backward, compile once, into one graph, and give what they give uncompiled."""
        function, graphs = compiled
        for number in range(TRIALS):
            logits, target = batch(number, (2, 4, 8, 8), dtype=torch.float32)
            found, expected = (
                call(trial(number, KINDS[kind]), logits, target) for call in (function, total)
            )
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(
                torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits)
            )
        assert (
            len(
                [
                    graph
                    for graph in graphs
                    if any(node.op == "call_function" for node in graph.graph.nodes)
                ]
            )
            == 1
        )
        assert counters["stats"]["unique_graphs"] == 1
        assert not counters["graph_break"]

    @pytest.mark.usefixtures("compiled")
    def test_would_be_noticed(self) -> None:
        """A number that enters as a Python float compiles again with its value: the count counts."""
        scaled = torch.compile(lambda logits, gamma: logits.abs() ** gamma, backend="eager")
        for number, gamma in enumerate((1.5, 2.5), 1):
            scaled(torch.ones(3), gamma)
            assert counters["stats"]["unique_graphs"] == number
