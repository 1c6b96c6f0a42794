"""What this project promises in numbers, measured: each module prints a table and keeps its result as JSON."""

NAMES = ("demo", "best_against_untuned", "epoch_cost", "warm_worker", "memory", "startup", "retrain", "losses", "judging", "backtest", "faults", "learning")
"""The benchmarks, in the order in which they run and are shown."""
