"""How values are written: numbers with sensible digits, quantities with units, paths by their shortest clear name."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from search.stored_study import LR_MULTIPLE

VAGUE = {"kind", "method", "lr"}
"""Last steps of paths that need the step before them."""

NO_BREAK = "\N{NO-BREAK SPACE}"


def score(value: float | None) -> str:
    """A metric: `0.3712`, so that a column of them lines up."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.4g}"


def number(value: float) -> str:
    """A number of any size: `0.347`, `2011`, `3.0e-05`."""
    if value == 0 or not math.isfinite(value) or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.1e}"


def setting(value: Any) -> str:
    """A value of a configuration."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(setting, value))}]"
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} {setting(item)}" for key, item in value.items() if item is not None
        )
    return str(value)


def rate(lr: float, multiple: float) -> str:
    """A learning rate, and the multiple of the base rate that it is: `3.0e-02 (0.3 × base)`."""
    return f"{lr:.1e} ({multiple:.3g} × base)"


def sampled(
    params: Mapping[str, Any], lr: float | None, names: Mapping[str, str]
) -> dict[str, str]:
    """Name → value of what was sampled; a multiple of the base rate with the learning rate before it."""
    shown: dict[str, str] = {}
    for path, value in params.items():
        if path == LR_MULTIPLE and lr is not None:
            shown |= {"lr": f"{lr:.1e}", "× base": f"{value:.3g}"}
        else:
            shown[names[path]] = setting(value)
    return shown


def pairs(params: Mapping[str, Any], lr: float | None, names: Mapping[str, str]) -> list[str]:
    """`name value` of what was sampled."""

    def pair(path: str, value: Any) -> str:
        return (
            f"lr {rate(lr, value)}"
            if path == LR_MULTIPLE and lr is not None
            else f"{names[path]} {setting(value)}"
        )

    return [pair(path, value) for path, value in params.items()]


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Dotted path → its last step, or the whole path where two end alike or the last step alone says nothing."""
    lasts = {path: path.rpartition(".")[2] for path in paths}
    shared = Counter(lasts.values())
    return {
        path: last if shared[last] == 1 and last not in VAGUE else path
        for path, last in lasts.items()
    }


def joined(pieces: Sequence[str], width: int) -> list[str]:
    """Lines of the pieces with commas between them; no piece is broken that fits a line."""
    kept = ", ".join(piece.replace(" ", NO_BREAK) for piece in pieces)
    return [
        line.replace(NO_BREAK, " ")
        for line in textwrap.wrap(kept, max(width, 1), break_on_hyphens=False)
    ]


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(amount: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{amount} {noun}{'' if amount == 1 else 's'}"
