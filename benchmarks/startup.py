"""How long light commands take, against an empty Python and Optuna's own command."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from statistics import median

from benchmarks import report
from benchmarks.commands import environment, script
from benchmarks.report import Figure, Result

HELP_S, LIST_S = 0.3, 0.6
ROUNDS, QUICK_ROUNDS = 7, 2
TIMEOUT_S = 60.0


def measure(*, quick: bool) -> Result:
    """Run every command once per round; a first round is not counted."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "optuna --help": [script("optuna"), "--help"],
        "search --help": [script("search"), "--help"],
        "search list": [script("search"), "list"],
    }
    times_s: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as folder:
        for number in range((QUICK_ROUNDS if quick else ROUNDS) + 1):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(
                    command,
                    cwd=folder,
                    env=environment(),
                    capture_output=True,
                    check=True,
                    timeout=TIMEOUT_S,
                )
                if number:
                    times_s[name].append(time.perf_counter() - began)
    middle = {name: median(times) for name, times in times_s.items()}
    peer = "optuna --help"
    figures = [
        Figure(
            "search --help",
            middle["search --help"],
            "s",
            HELP_S,
            peer=peer,
            peer_found=middle[peer],
        ),
        Figure(
            "search list", middle["search list"], "s", LIST_S, peer=peer, peer_found=middle[peer]
        ),
        Figure(
            "search --help",
            middle["search --help"],
            "s",
            peer="python -c pass",
            peer_found=middle["python -c pass"],
        ),
    ]
    return Result(figures, {"times_s": times_s})


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("startup", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
