"""`search run`: its options; what it does is in `run_study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from search.cli.app import StoreOption, TimeoutOption, WandbOption, app
from spaces.exit_codes import ExitCode

SpecOption = Annotated[
    str,
    typer.Option(
        "--study", "-s", help="name of a shipped study (`search list`), or path of your own YAML"
    ),
]
TrialsOption = Annotated[
    Optional[int], typer.Option(help="number of trials, including those of earlier runs", min=1)
]
EpochsOption = Annotated[Optional[int], typer.Option(help="epochs per trial", min=1)]
WorkersOption = Annotated[
    Optional[int],
    typer.Option(
        help="number of workers; default: one per GPU, or one per CPU core (at most 4)", min=1
    ),
]
DevicesOption = Annotated[
    str, typer.Option(help="auto, cpu, or cuda:0,cuda:1; on a cluster: auto, cpu or cuda")
]
WorkersPerDeviceOption = Annotated[int, typer.Option(help="workers per GPU", min=1)]
CpusOption = Annotated[
    Optional[int],
    typer.Option(help="CPU threads per worker; default: all cores, divided equally", min=1),
]
LauncherOption = Annotated[
    Literal["local", "ray", "slurm"],
    typer.Option(help="where workers run: on this machine, on a Ray cluster, on a Slurm cluster"),
]
RayAddressOption = Annotated[
    Optional[str],
    typer.Option(
        help="host:port of the Ray cluster; default: the cluster of this machine, else a new one"
    ),
]
SlurmOption = Annotated[
    Optional[list[str]],
    typer.Option(help="name=value for sbatch, such as partition=gpu, time=2:00:00, gres=gpu:1"),
]
NameOption = Annotated[
    Optional[str],
    typer.Option(help="name of the study in the store; default: the name in its YAML"),
]
SeedOption = Annotated[
    Optional[int],
    typer.Option(help="random seed of the study; each trial's seed is derived from it", min=0),
]
DeviceHoursOption = Annotated[
    Optional[float],
    typer.Option(
        help="limit on the device hours of all trials, earlier runs included; stored with the study"
    ),
]
EpochsBudgetOption = Annotated[
    Optional[int], typer.Option(help="epochs of all trials together, earlier runs included", min=1)
]
SettledOption = Annotated[
    bool,
    typer.Option(
        "--stop-when-settled",
        help="end when the next trial is expected to improve the best score by less than 0.5%",
    ),
]
LearnFromOption = Annotated[
    Optional[list[str]],
    typer.Option(
        help="earlier study with the same metric: its name, STORE#STUDY, or a file of records"
    ),
]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option("--set", help="path=value in the study's YAML, such as base.data.size=64"),
]
AcceptChangeOption = Annotated[
    bool,
    typer.Option(
        "--accept-change", help="resume a stored study although its definition has changed"
    ),
]
OutOption = Annotated[Path, typer.Option(help="file for the best configuration")]
RemedyOption = Annotated[
    Optional[str],
    typer.Option(
        "--enqueue-remedy",
        help="enqueue trial N again with its suggested fix (N:2 = the second one)",
    ),
]


@app.command(
    epilog=(
        "Examples: search run --study focal_gamma · "
        "search run --study my.yaml --trials 40 --devices cuda:0,cuda:1 --timeout 8h"
    )
)
def run(
    study: SpecOption,
    trials: TrialsOption = None,
    epochs: EpochsOption = None,
    workers: WorkersOption = None,
    devices: DevicesOption = "auto",
    workers_per_device: WorkersPerDeviceOption = 1,
    cpus_per_worker: CpusOption = None,
    launcher: LauncherOption = "local",
    ray_address: RayAddressOption = None,
    slurm: SlurmOption = None,
    store: StoreOption = None,
    name: NameOption = None,
    seed: SeedOption = None,
    timeout: TimeoutOption = None,
    device_hours: DeviceHoursOption = None,
    epochs_budget: EpochsBudgetOption = None,
    stop_when_settled: SettledOption = False,
    learn_from: LearnFromOption = None,
    change: SetOption = None,
    accept_change: AcceptChangeOption = False,
    out: OutOption = Path("best.yaml"),
    remedy: RemedyOption = None,
    wandb: WandbOption = "off",
) -> None:
    """Start a study, or resume it.

    The same command resumes the study after Ctrl-C, a crash or a power failure. Ctrl-C once:
    finish the current epochs, then stop. Twice: stop immediately. Exit code 0: done; 1: something
    failed; 2: bad input; 130: interrupted.
    """
    from search.cli.run_study import StudyChoice, run_study
    from search.launch.launcher_choice import Placement

    choice = StudyChoice(
        study,
        name,
        trials,
        epochs,
        seed,
        change or [],
        accept_change,
        remedy,
        epochs_budget,
        stop_when_settled,
        learn_from or [],
    )
    place = Placement(
        launcher, devices, workers, workers_per_device, cpus_per_worker, ray_address, slurm or []
    )
    interrupted = run_study(
        choice, place, store, out, timeout=timeout, device_hours=device_hours, wandb=wandb
    )
    if interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
