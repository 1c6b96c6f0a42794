"""How values are written: numbers with sensible digits, quantities with units, paths by their shortest clear name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from search.report import RATE


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
        return ", ".join(f"{key} {setting(item)}" for key, item in value.items() if item is not None)
    return str(value)


def rate(lr: float, multiple: float) -> str:
    """A learning rate, and the multiple of the base rate that it is: `3.0e-02 (0.3 × base)`."""
    return f"{lr:.1e} ({multiple:.3g} × base)"


def sampled(params: Mapping[str, Any], lr: float | None) -> dict[str, str]:
    """Short name → value of what was sampled, with the learning rate in place of its multiple."""
    names = short_names(params)
    shown = {}
    for path, value in params.items():
        is_rate = path == RATE and lr is not None
        shown["lr" if is_rate else names[path]] = rate(lr or 0.0, value) if is_rate else setting(value)
    return shown


def sentence(params: Mapping[str, Any], lr: float | None) -> str:
    """What was sampled, in one line."""
    return ", ".join(f"{name} {value}" for name, value in sampled(params, lr).items())


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Dotted path → its last step, or the whole path where two end alike."""
    lasts = {path: path.rpartition(".")[2] for path in paths}
    shared = Counter(lasts.values())
    return {path: last if shared[last] == 1 else path for path, last in lasts.items()}


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
