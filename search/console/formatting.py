"""Format values: numbers with sensible digits, quantities with units, paths by short names."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from search.stored_study import LR_MULTIPLE

VAGUE = {"kind", "method", "lr"}
"""Last steps of paths that are unclear without the step before them."""

NO_BREAK = "\N{NO-BREAK SPACE}"


def format_score(value: float | None) -> str:
    """Format a metric with a fixed number of digits, `0.3712`, so that a column lines up."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.4g}"


def format_number(value: float) -> str:
    """Format a number of any size: `0.347`, `2011`, `3.0e-05`."""
    if value == 0 or not math.isfinite(value) or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.1e}"


def format_setting(value: Any) -> str:
    """Format a value of a configuration."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(format_setting, value))}]"
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} {format_setting(item)}" for key, item in value.items() if item is not None
        )
    return str(value)


def format_rate(lr: float, multiple: float) -> str:
    """Format a learning rate with its multiple of the base rate: `3.0e-02 (0.3 × base)`."""
    return f"{lr:.1e} ({multiple:.3g} × base)"


def format_params(
    params: Mapping[str, Any], lr: float | None, names: Mapping[str, str]
) -> dict[str, str]:
    """Format the sampled values by name; a multiple of the base rate follows its learning rate."""
    shown: dict[str, str] = {}
    for path, value in params.items():
        if path == LR_MULTIPLE and lr is not None:
            shown |= {"lr": f"{lr:.1e}", "× base": f"{value:.3g}"}
        else:
            shown[names[path]] = format_setting(value)
    return shown


def list_param_pairs(
    params: Mapping[str, Any], lr: float | None, names: Mapping[str, str]
) -> list[str]:
    """Format the sampled values as `name value`."""
    shown = []
    for path, value in params.items():
        if path == LR_MULTIPLE and lr is not None:
            shown.append(f"lr {format_rate(lr, value)}")
        else:
            shown.append(f"{names[path]} {format_setting(value)}")
    return shown


def shorten_paths(paths: Iterable[str]) -> dict[str, str]:
    """Name each dotted path by its last step, or in full if that is ambiguous or unclear."""
    lasts = {path: path.rpartition(".")[2] for path in paths}
    shared = Counter(lasts.values())
    return {
        path: last if shared[last] == 1 and last not in VAGUE else path
        for path, last in lasts.items()
    }


def wrap_pieces(pieces: Sequence[str], width: int) -> list[str]:
    """Wrap pieces, separated by commas, into lines; a piece that fits a line is never broken."""
    kept = ", ".join(piece.replace(" ", NO_BREAK) for piece in pieces)
    return [
        line.replace(NO_BREAK, " ")
        for line in textwrap.wrap(kept, max(width, 1), break_on_hyphens=False)
    ]


def format_duration(seconds: float) -> str:
    """Format a duration: `42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_confidence(confidence: float) -> str:
    """Format the confidence of a diagnosis; no diagnosis is certain."""
    return "over 99% sure" if confidence > 0.995 else f"{confidence:.0%} sure"


def format_count(amount: int, noun: str) -> str:
    """Format a number of things: `1 trial`, `2 trials`."""
    return f"{amount} {noun}{'' if amount == 1 else 's'}"
