"""Search: plan a study, sample its trials, train and judge them.

The names below are the public ones. They are imported at first use.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.export import Export, load_export
    from search.planning.plan import Plan, make_plan
    from search.pruners.divergence import DivergencePruner
    from search.pruners.signals import find_divergence
    from search.replay.backtest import run_backtest
    from search.replay.ranking import rank_recording
    from search.report.study_report import study_report
    from search.report.trial_report import trial_report
    from search.session import Session, open_session
    from search.worker.loop import run_worker
    from search.worker.options import WorkerOptions
    from storage.location import StoreLocation
else:
    from spaces.lazy_exports import lazy_exports

    __getattr__ = lazy_exports(
        __name__,
        {
            "search.export": (
                "Export",
                "load_export",
            ),
            "search.planning.plan": (
                "Plan",
                "make_plan",
            ),
            "search.pruners.divergence": ("DivergencePruner",),
            "search.pruners.signals": ("find_divergence",),
            "search.replay.backtest": ("run_backtest",),
            "search.replay.ranking": ("rank_recording",),
            "search.report.study_report": ("study_report",),
            "search.report.trial_report": ("trial_report",),
            "search.session": (
                "Session",
                "open_session",
            ),
            "search.worker.loop": ("run_worker",),
            "search.worker.options": ("WorkerOptions",),
            "storage.location": ("StoreLocation",),
        },
    )

__all__ = [
    "DivergencePruner",
    "Export",
    "Plan",
    "Session",
    "StoreLocation",
    "WorkerOptions",
    "find_divergence",
    "load_export",
    "make_plan",
    "open_session",
    "rank_recording",
    "run_backtest",
    "run_worker",
    "study_report",
    "trial_report",
]
