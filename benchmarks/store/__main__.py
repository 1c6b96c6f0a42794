"""What the store takes: one worker with a long past, crowds of processes, and a large fleet."""

from __future__ import annotations

import sys
from typing import Any

import optuna

from benchmarks import report
from benchmarks.databases import postgresql, sqlite
from benchmarks.report import Figure, Result
from benchmarks.store import crowd, fleet, past

EPOCHS = 30


def measure(*, quick: bool) -> Result:
    """One after the other, each on databases of its own."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    size, figures, details, facts = past.QUICK if quick else past.FULL, [], {}, {}
    seconds, many, few = (6.0, 3, 2) if quick else (30.0, 32, 8)
    pasts = tuple(f"past_{trials}" for trials in size.trials)
    with sqlite((*pasts, "crowd")) as (urls, facts["sqlite"]):
        _add(
            figures, details, past.epochs_and_asking("SQLite", [urls[name] for name in pasts], size)
        )
        _add(figures, details, crowd.alone(urls["crowd"], "SQLite", few, EPOCHS, seconds))
    with postgresql((*pasts, "ours", "plain", "fleet")) as (urls, facts["postgresql"]):
        _add(
            figures,
            details,
            past.epochs_and_asking("PostgreSQL", [urls[name] for name in pasts], size),
        )
        _add(figures, details, crowd.against_plain(urls, "PostgreSQL", many, EPOCHS, seconds))
        _add(figures, details, fleet.measure(urls["fleet"], fleet.QUICK if quick else fleet.FULL))
    return Result(figures, details, facts)


def _add(
    figures: list[Figure], details: dict[str, Any], found: tuple[list[Figure], dict[str, Any]]
) -> None:
    figures += found[0]
    details |= found[1]
    print(
        report.table(report.HEAD, [figure.cells() for figure in found[0]]), end="\n\n", flush=True
    )


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("store", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
