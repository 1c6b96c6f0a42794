"""What this project promises in numbers, measured: each module prints tables and keeps its results as JSON."""

NAMES = ("demo", "best_against_untuned", "epoch_cost", "store", "warm_worker", "memory", "startup", "retrain", "losses", "judging", "backtest", "faults", "learning", "chaos_sqlite", "chaos_postgresql")
"""The benchmarks, in the order in which they run and are shown."""

COMMANDS = {"chaos_sqlite": ("chaos", "--store", "sqlite"), "chaos_postgresql": ("chaos", "--store", "postgresql")}
"""Those that are not a module of their own: the module that measures them, and its options."""
