"""What confirming a trial found, as it is exported with the trial."""

from __future__ import annotations

from pydantic import Field

from spaces.frozen import Frozen


class ConfirmedScore(Frozen):
    """What `search confirm` found for the trial: scores of other trainings than the exported one."""

    seeds: int
    diverged: int
    mean: float
    low: float
    high: float
    chance: float = Field(description="that it is the best of the confirmed trials")
    trials: int = Field(description="number of confirmed trials")
    test: float | None

    def describe(self, metric: str) -> str:
        """Say in one line what was found, and how sure that is."""
        return (
            f"Confirmed: mean {metric} {self.mean:.4f} ({self.low:.4f} … {self.high:.4f}) over "
            f"{self.seeds} seeds; {self.chance:.0%} chance to be the best of {self.trials}."
        )
