"""A sampled hyperparameter that never reached the loss or the optimiser would be a silent no-op. It is an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from spaces.errors import UnusedHyperparameterError
from spaces.parameters import Scalar

NEXT_STEP = "give the dimension a `when`, so that it exists only where it has an effect"


def check_used(sampled: Mapping[str, Scalar], used: Mapping[str, Any]) -> None:
    """Compare what was sampled with what the objective read back from its live parts.

    Raises:
        UnusedHyperparameterError: for the first that is absent, or has another value.
    """
    for path, value in sampled.items():
        if path not in used:
            raise UnusedHyperparameterError(
                f"the sampled {path} = {value} never reached the training\n"
                f"  used:    {', '.join(sorted(used))}\n"
                f"  next:    {NEXT_STEP}"
            )
        if not _same(value, used[path]):
            raise UnusedHyperparameterError(
                f"{path} was sampled as {value}, but the training used {used[path]}\n  next:    {NEXT_STEP}"
            )


def _same(sampled: Scalar, used: Any) -> bool:
    if isinstance(sampled, float) and isinstance(used, (int, float)):
        return math.isclose(sampled, used, rel_tol=1e-12)
    return bool(sampled == used)
