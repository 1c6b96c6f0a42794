"""The benchmarks: each module prints a table of figures and stores them as JSON."""

NAMES = (
    "demo",
    "best_against_untuned",
    "best_against_untuned_text_focal",
    "text_step",
    "epoch_cost",
    "store",
    "warm_worker",
    "memory",
    "startup",
    "retrain",
    "losses",
    "judging",
    "backtest",
    "faults",
    "remedies",
    "learning",
    "search",
    "search_workers",
    "search_decisions",
    "confirm",
    "chaos_sqlite",
    "chaos_sqlite_thaw",
    "chaos_postgresql",
)
"""The benchmarks, in the order in which they run and are shown."""

COMMANDS = {
    "remedies": ("remedies", "--folder", ".cache/remedies"),
    "best_against_untuned_text_focal": ("best_against_untuned", "--study", "text_focal"),
    "search_workers": ("search.workers",),
    "search_decisions": ("search.decisions",),
    "chaos_sqlite": ("chaos", "--store", "sqlite"),
    "chaos_sqlite_thaw": ("chaos", "--store", "sqlite", "--only", "thaw", "--trials", "280"),
    "chaos_postgresql": ("chaos", "--store", "postgresql"),
}
"""Those that are not a module of their own: the module that measures them, and its options."""
