"""Print what the probe of a study's learning rate found."""

from __future__ import annotations

import math

from search.console import terminal
from search.console.formatting import format_count, format_number
from spaces.rate_probe import RateProbe


def print_rate_probe(probe: RateProbe) -> None:
    """Print the base learning rate, and the training loss at one rate of each decade."""
    bound = "stable up to" if probe.is_bounded else "stable at all rates, up to"
    cost = f"{probe.epochs:.1f} epochs"
    if float(probe.epochs).is_integer():
        cost = format_count(int(probe.epochs), "epoch")
    terminal.print_paragraph(
        f"base learning rate: {format_number(probe.base_lr)}, found by a probe of {cost} "
        f"({bound} {format_number(probe.stable_lr)})"
    )
    points = ", ".join(
        f"{format_number(lr)}: {format_number(loss)}" for lr, loss in _pick_decades(probe)
    )
    terminal.print_paragraph(f"training loss of the probe by learning rate: {points}")


def _pick_decades(probe: RateProbe) -> list[tuple[float, float]]:
    """Pick the first point of every half decade, and the last point."""
    picked: dict[int, tuple[float, float]] = {}
    for lr, loss in probe.curve:
        picked.setdefault(math.floor(2 * math.log10(lr)), (lr, loss))
    return list(dict.fromkeys([*picked.values(), probe.curve[-1]]))
