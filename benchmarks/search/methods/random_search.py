"""Random search: full trials, one after the other."""

from __future__ import annotations

from benchmarks.search.methods.base import ObservingMethod, Run


class RandomSearch(ObservingMethod):
    """Presets, then random configurations, each trained to the end."""

    def next_run(self) -> Run:
        """A new trial over all epochs."""
        return self.make_run(self.draw_trial(), self.epochs)
