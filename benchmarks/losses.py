"""The losses against those of other libraries: time, peak memory, and the cost of a mean IoU.

Logits (4, 19, 256, 512) and (2, 19, 512, 1024) in float32, 5% of the pixels ignored (none for
MONAI, whose pairs cannot ignore any), one thread. In every round each loss has its turn; a figure
is the median of the rounds' ratios. All of it twice: with the allocator as it comes, and with
THP_MEM_ALLOC_ENABLE=1, which makes fresh memory cheaper for everyone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.loss_peers import CONTENDERS, TRIALS, faster
from benchmarks.report import Figure, Result

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 3600.0
ROUNDS, QUICK_ROUNDS = 7, 2
PACKAGES = ("segmentation-models-pytorch", "monai", "kornia", "torchmetrics")

AT_LEAST: dict[str, dict[str, float]] = {
    "CE + Dice": {"torch CE + smp Dice": 5.0, "MONAI DiceCE": 1.8},
    "focal + Dice": {
        "smp focal + smp Dice": 15.0,
        "MONAI DiceFocal": 8.0,
        "kornia focal + Dice": 1.8,
        "kornia focal + Dice, weighted": 8.0,
    },
}
"""Loss of ours → peer → how many times as fast it has to be."""

AT_MOST: dict[str, dict[str, float]] = {
    "CE + Dice": {"torch CE": 1.5},
    "CE + focal + Dice": {"CE + Dice": 1.15},
}
"""Loss of ours → another → how many times its time it may take."""

MEMORY_BOUND = 2.0
METRIC_BOUND = 3.0
OURS = ("CE + Dice", "focal + Dice", "CE + focal + Dice")
SETTINGS = {"": {"THP_MEM_ALLOC_ENABLE": "0"}, ", huge pages": {"THP_MEM_ALLOC_ENABLE": "1"}}
"""What is added to a figure's name → the environment that it was measured in."""


def measure(*, quick: bool) -> Result:
    """Everything, one process after the other."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    for added, environment in SETTINGS.items():
        found = child(environment, "times", rounds=rounds, quick=quick)
        metric = child(environment, "metric", rounds=rounds, quick=quick)
        show(f"ms, forward and backward{added}", found)
        show(f"ms, mean IoU of a batch from logits{added}", metric)
        for shape in found:
            figures += list(speed(found[shape], f"{shape}{added}"))
            figures.append(
                Figure(
                    f"mean IoU of a batch, {shape}{added}: times as fast as torchmetrics",
                    faster(metric[shape], "ours", "torchmetrics"),
                    "×",
                    METRIC_BOUND,
                    at_least=True,
                )
            )
        details[f"ms{added}"] = medians(found) | {"metric": medians(metric)}
    watched = (*OURS, "torch CE") if quick else CONTENDERS
    measured = {
        name: child(SETTINGS[""], "memory", name=name, quick=quick)[name] for name in watched
    }
    print(
        report.table(
            ("loss", "peak above the inputs ÷ logits"),
            [(name, f"{value:.2f}") for name, value in measured.items()],
        ),
        end="\n\n",
    )
    figures += [
        Figure(
            f"{name}: peak above the inputs",
            measured[name],
            "× logits",
            MEMORY_BOUND,
            peer="torch CE",
            peer_found=measured["torch CE"],
        )
        for name in OURS
    ]
    compiled = child(SETTINGS[""], "compile", quick=quick)
    figures.append(
        Figure(f"compilations by torch.compile in {TRIALS} trials", compiled["compilations"], "", 1)
    )
    on_gpu = child(SETTINGS[""], "gpu", rounds=rounds, quick=quick)
    figures += list(of_gpu(on_gpu))
    details |= {
        "memory": measured,
        "gpu": on_gpu
        and {
            "ms": medians(on_gpu["times"]),
            "metric": medians(on_gpu["metric"]),
            "waits": on_gpu["waits"],
        },
    }
    return Result(
        figures,
        details,
        {name: version(name) for name in PACKAGES} | ({"gpu": on_gpu["name"]} if on_gpu else {}),
    )


def child(
    environment: dict[str, str], what: str, *, name: str | None = None, rounds: int = 1, quick: bool
) -> Any:
    """One measurement in a process of its own.

    Raises:
        SystemExit: when it fails.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.loss_peers",
        what,
        "--rounds",
        str(rounds),
        *(["--name", name] if name else []),
        *(["--quick"] if quick else []),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def speed(laps: dict[str, list[float]], where: str, *, judged: bool = True) -> Iterator[Figure]:
    """Every promised ratio at one shape."""
    for ours, peers in AT_LEAST.items():
        for peer, bound in peers.items():
            yield Figure(
                f"{ours}, {where}: times as fast as {peer}",
                faster(laps, ours, peer),
                "×",
                bound if judged else None,
                at_least=True,
            )
    for ours, others in AT_MOST.items():
        for other, bound in others.items():
            yield Figure(
                f"{ours}, {where}: time over that of {other}",
                faster(laps, other, ours),
                "×",
                bound if judged else None,
            )


def of_gpu(found: dict[str, Any]) -> Iterator[Figure]:
    """The same on a GPU, which informs, but that nothing waits there, which is promised."""
    if not found:
        yield Figure(
            "available GPUs; without one nothing was measured on CUDA "
            "or in torch's sync-debug mode",
            0,
        )
        return
    for shape, laps in found["times"].items():
        yield from speed(laps, f"{shape}, on a GPU", judged=False)
    yield Figure(
        "steps on a GPU in which torch's sync-debug mode found a wait",
        int(bool(found["waits"])),
        "",
        0,
    )


def medians(found: dict[str, Any]) -> dict[str, Any]:
    """Shape → name → the median of its rounds, in milliseconds."""
    return {
        shape: {
            name: round(median(laps), 3) if isinstance(laps, list) else laps
            for name, laps in table.items()
        }
        for shape, table in found.items()
    }


def show(title: str, found: dict[str, Any]) -> None:
    """The medians as a table."""
    measured = medians(found)
    names = list(next(iter(measured.values())))
    print(
        report.table(
            (title, *measured),
            [(name, *(f"{measured[shape][name]:.3g}" for shape in measured)) for name in names],
        ),
        end="\n\n",
        flush=True,
    )


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("losses", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
