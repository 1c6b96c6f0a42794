"""Checks that every sampled hyperparameter reached the training; it could be ignored silently."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from spaces.errors import UnusedHyperparameterError
from spaces.parameters import Scalar

NEXT_STEP = "give the dimension a `when`, so that it exists only where it has an effect"


def check_used(sampled: Mapping[str, Scalar], used: Mapping[str, Any]) -> None:
    """Compare sampled values with those that the objective read back from its parts.

    Raises:
        UnusedHyperparameterError: for the first value that is missing or different.
    """
    for path, value in sampled.items():
        if path not in used:
            raise UnusedHyperparameterError(
                f"the sampled {path} = {value} never reached the training\n"
                f"  used:    {', '.join(sorted(used))}\n"
                f"  next:    {NEXT_STEP}"
            )
        if not _is_same(value, used[path]):
            raise UnusedHyperparameterError(
                f"{path} was sampled as {value}, but the training used {used[path]}\n"
                f"  next:    {NEXT_STEP}"
            )


def _is_same(sampled: Scalar, used: Any) -> bool:
    if isinstance(sampled, float) and isinstance(used, (int, float)):
        return math.isclose(sampled, used, rel_tol=1e-12)
    return bool(sampled == used)
