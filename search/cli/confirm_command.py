"""`search confirm`: its options; what it does is in `confirm_study`."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.app import JsonOption, StoreOption, StudyOption, TimeoutOption, WandbOption, app
from search.cli.run import (
    CpusOption,
    DeviceHoursOption,
    DevicesOption,
    LauncherOption,
    RayAddressOption,
    SlurmOption,
    WorkersOption,
    WorkersPerDeviceOption,
)
from spaces.exit_codes import ExitCode


@app.command(
    epilog=(
        "Examples: search confirm --study focal_gamma · "
        "search confirm --study focal_gamma --top 5 --seeds 3 --json | jq '.trials[0]'"
    )
)
def confirm(
    study: StudyOption,
    top: Annotated[int, typer.Option(help="number of trials to confirm", min=1)] = 3,
    seeds: Annotated[int, typer.Option(help="most seeds per trial", min=1)] = 5,
    workers: WorkersOption = None,
    devices: DevicesOption = "auto",
    workers_per_device: WorkersPerDeviceOption = 1,
    cpus_per_worker: CpusOption = None,
    launcher: LauncherOption = "local",
    ray_address: RayAddressOption = None,
    slurm: SlurmOption = None,
    store: StoreOption = None,
    timeout: TimeoutOption = None,
    device_hours: DeviceHoursOption = None,
    wandb: WandbOption = "off",
    as_json: JsonOption = False,
) -> None:
    """Train the likely best trials of a study again over seeds.

    All are trained with the same seeds, and those that fall behind are dropped. The trainings are
    the trials of a study NAME.confirm. The same command resumes it after an interruption; with
    more --seeds or another --top it is extended.
    """
    from search.cli.confirm_study import confirm_study
    from search.launch.launcher_choice import Placement

    place = Placement(
        launcher, devices, workers, workers_per_device, cpus_per_worker, ray_address, slurm or []
    )
    interrupted = confirm_study(
        study,
        top,
        seeds,
        place,
        store,
        timeout=timeout,
        device_hours=device_hours,
        wandb=wandb,
        as_json=as_json,
    )
    if interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
