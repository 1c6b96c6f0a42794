"""`search run`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from search.cli.app import (
    StoreOption,
    TimeoutOption,
    WandbOption,
    app,
    format_store_option,
)
from spaces.errors import InputError
from spaces.exit_codes import ExitCode

if TYPE_CHECKING:
    from search.launch.placement import Hire
    from search.report.models import StudyReport
    from search.session import Session
    from spaces.study import StudySpec
    from storage.location import StoreLocation

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
    from search.cli.parsing import (
        load_spec,
        naming_set_option,
        parse_device_hours,
        parse_duration,
        store_location,
    )
    from search.export import check_out
    from search.launch.placement import Placement, prepare
    from search.session import open_session

    location = store_location(store)
    if remedy is None:
        spec = load_spec(study, change or [], name=name, trials=trials, epochs=epochs, seed=seed)
    else:
        _refuse_changes(remedy, {"--set": change, "--epochs": epochs, "--seed": seed})
        spec = load_stored_spec(name or study, location, trials)
    timeout_s, device_s = parse_duration(timeout), parse_device_hours(device_hours)
    check_out(out)
    place = Placement(
        launcher, devices, workers, workers_per_device, cpus_per_worker, ray_address, slurm or []
    )
    hire, warnings = prepare(place, location, sys.argv)
    with naming_set_option(change or [], spec.name):
        session = open_session(spec, location, accept_change=accept_change)
    arguments = ["--study", spec.name, "--wandb", wandb]
    with session:
        if device_s is not None:
            session.store.budget.set_device_budget(session.stored.id, device_s)
        if remedy is not None:
            session = _prescribe(session, remedy)
        stops = _search(
            session,
            hire,
            [*session.plan.warnings, *warnings],
            arguments,
            timeout_s,
        )
        _conclude(session, out, interrupted=stops > 0)
    if stops:
        raise typer.Exit(ExitCode.INTERRUPTED)


def _refuse_changes(remedy: str, given: Mapping[str, object]) -> None:
    """Refuse options that would change a study in which a remedy is enqueued.

    Raises:
        InputError: when there is such an option, or the remedy is not N or N:M.
    """
    from search.enqueue_remedy import parse_choice

    parse_choice(remedy)
    refused = [option for option, value in given.items() if value is not None]
    if refused:
        raise InputError(
            f"{' and '.join(refused)} cannot be combined with --enqueue-remedy, "
            "which resumes the study as it is stored",
            where="--enqueue-remedy",
            found=", ".join(refused),
            allowed="--study or --name, --trials, and options on workers, devices and output",
            next_step=(
                "remove that option, or start another study with --name "
                "and without --enqueue-remedy"
            ),
        )


def load_stored_spec(study: str, location: StoreLocation, trials: int | None) -> StudySpec:
    """Load a study's definition from the store, where a YAML file may name the study.

    Args:
        study: name of the study, or path of a YAML file with its name.
        location: of the store.
        trials: number of trials; None: as stored.
    """
    from search.stored_study import find_study
    from spaces.loader import check, load_study
    from spaces.study import StudySpec

    with location.open(create=False) as opened:
        name = study
        if study.endswith((".yaml", ".yml")) and not opened.studies.find_study(study):
            name = load_study(study).name
        definition = find_study(opened, name).definition
    changed = {} if trials is None else {"trials": trials}
    return check(StudySpec, {**definition, **changed}, f"study {name} in the store")


def _prescribe(session: Session, text: str) -> Session:
    from search.console import terminal
    from search.enqueue_remedy import enqueue_remedy, parse_choice

    choice = parse_choice(text)
    session, remedy = enqueue_remedy(session, choice)
    terminal.print_paragraph(f"enqueued: trial {choice.trial} again, with {remedy.text}")
    return session


def _search(
    session: Session,
    hire: Hire,
    warnings: list[str],
    arguments: list[str],
    timeout_s: float | None,
) -> int:
    """Run the workers under the live display.

    Returns:
        How many times a stop was requested.
    """
    from search.console import live, terminal
    from search.launch.reaper import TrialCare
    from search.session import discard_untried

    for warning in warnings:
        terminal.print_warning(warning)
    logs = session.location.files_root / session.stored.name
    team = hire(arguments, session.location, logs, timeout_s)
    team.care = TrialCare(session.store, session.stored.id)
    with team.running():
        live.watch_study(
            session.store, session.stored, session.plan, until=team.finished, note=team.note
        )
    for warning in team.warnings():
        terminal.print_warning(warning)
    try:
        team.check()
    except InputError:
        if discard_untried(session):
            team.forget_logs()
        raise
    return team.stops


def _conclude(session: Session, out: Path, *, interrupted: bool) -> None:
    """Print the study, write the best configuration, and print what to run next."""
    from search.console import tables, terminal
    from search.export import make_export, write_export
    from search.report.study import study_report

    report = study_report(session.store, session.stored.name, session.files)
    tables.print_study(report)
    if interrupted or report.states["left"] or report.states["paused"]:
        terminal.print_line(f"\n{_describe_stop(report, interrupted=interrupted)}")
    if not report.leaderboard:
        terminal.print_line(f"\nno trial is complete, so {out} was not written")
        if report.states["failed"]:
            raise typer.Exit(ExitCode.FAILED)
        return
    write_export(make_export(session.store, session.stored, None, session.files), out)
    terminal.print_line(f"\nbest configuration written to {out}\n\nnext:")
    where = format_store_option(session.location)
    study, best = report.name, report.leaderboard[0].number
    commands = {
        f"search explain --study {study} --trial {best}{where}": "its curves and classes",
        f"search train {out}": "train it again and compare the scores",
        f"search dashboard --study {study}{where}": "open the study in the browser",
    }
    for command, purpose in commands.items():
        terminal.print_line(f"  {command:<60}  # {purpose}")


def _describe_stop(report: StudyReport, *, interrupted: bool) -> str:
    """Say why a study is not finished, and how to continue it."""
    from search.console.workers import is_device_time_spent

    if interrupted:
        return "interrupted; run the same command again to continue"
    if is_device_time_spent(report):
        return "device-hour budget exhausted; raise --device-hours to continue"
    return "time limit reached; run the same command again to continue"
