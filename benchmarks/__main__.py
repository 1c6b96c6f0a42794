"""Run every benchmark, or a few by name, and write docs/figures.md: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import COMMANDS, NAMES

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 7200.0
"""For one benchmark; each ends by itself long before."""


def main() -> int:
    """Exit code 1 when a benchmark failed or missed a bound."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; left out: all of them"
    )
    made.add_argument(
        "--quick",
        action="store_true",
        help="smoke runs, which leave the results and the page alone",
    )
    options = made.parse_args()
    names = options.names or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        made.error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(NAMES)}")
    missed = [name for name in names if not _passes(name, quick=options.quick)]
    if not options.quick:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.figures"], cwd=ROOT, check=True, timeout=TIMEOUT_S
        )
    print(f"failed or missed: {', '.join(missed)}" if missed else "all reached")
    return int(bool(missed))


def _passes(name: str, *, quick: bool) -> bool:
    print(f"\n── {name} ──", flush=True)
    module, *options = COMMANDS.get(name, (name,))
    command = [
        sys.executable,
        "-m",
        f"benchmarks.{module}",
        *options,
        *(["--quick"] if quick else []),
    ]
    try:
        return subprocess.run(command, cwd=ROOT, check=False, timeout=TIMEOUT_S).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"not done after {TIMEOUT_S:.0f} s")
        return False


if __name__ == "__main__":
    sys.exit(main())
