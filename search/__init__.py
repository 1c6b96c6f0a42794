"""Search: plan a study, sample its trials, train and judge them.

The names below are the public ones. They are imported at first use.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.export import Export, load_export
    from search.planning.plan import Plan, make_plan
    from search.pruners.divergence import DivergencePruner
    from search.replay.backtest import run_backtest
    from search.session import Session, open_session
else:
    from spaces.lazy_exports import lazy_exports

    __getattr__ = lazy_exports(
        __name__,
        {
            "search.export": ("Export", "load_export"),
            "search.planning.plan": ("Plan", "make_plan"),
            "search.pruners.divergence": ("DivergencePruner",),
            "search.replay.backtest": ("run_backtest",),
            "search.session": ("Session", "open_session"),
        },
    )

__all__ = [
    "DivergencePruner",
    "Export",
    "Plan",
    "Session",
    "load_export",
    "make_plan",
    "open_session",
    "run_backtest",
]
