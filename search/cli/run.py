"""The commands that train: `run` and `worker`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from search.cli.app import (
    StoreOption,
    StudyOption,
    TimeoutOption,
    WandbOption,
    app,
    store_option,
)
from spaces.errors import InputError
from spaces.exit_codes import ExitCode

if TYPE_CHECKING:
    from search.launch.placement import PoolFactory
    from search.session import Session
    from search.worker.options import WorkerOptions
    from spaces.study import StudySpec
    from storage.location import StoreLocation


@app.command(
    epilog="Examples: search run --study focal_gamma · search run --study my.yaml --trials 40 --devices cuda:0,cuda:1 --timeout 8h"
)
def run(
    study: Annotated[
        str,
        typer.Option(
            "--study",
            "-s",
            help="a shipped study's name (see `search list`), or the path of your own YAML",
        ),
    ],
    trials: Annotated[
        Optional[int], typer.Option(help="trials in all, those of earlier runs included", min=1)
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(help="epochs a trial", min=1)] = None,
    workers: Annotated[
        Optional[int],
        typer.Option(
            help="worker processes; default: one a GPU, or one a core (four at most)", min=1
        ),
    ] = None,
    devices: Annotated[
        str, typer.Option(help="auto, cpu, or cuda:0,cuda:1; on a cluster auto, cpu or cuda")
    ] = "auto",
    workers_per_device: Annotated[int, typer.Option(help="workers that share a GPU", min=1)] = 1,
    cpus_per_worker: Annotated[
        Optional[int],
        typer.Option(
            help="CPU threads of a worker; default: the cores, divided among the workers", min=1
        ),
    ] = None,
    launcher: Annotated[
        Literal["local", "ray", "slurm"],
        typer.Option(help="who places the workers: this machine, a Ray cluster, a Slurm cluster"),
    ] = "local",
    ray_address: Annotated[
        Optional[str],
        typer.Option(
            help="host:port of a Ray cluster's head; default: the one of this machine, else a new one"
        ),
    ] = None,
    slurm: Annotated[
        Optional[list[str]],
        typer.Option(help="name=value for sbatch, such as partition=gpu, time=2:00:00, gres=gpu:1"),
    ] = None,
    store: StoreOption = None,
    name: Annotated[
        Optional[str], typer.Option(help="the study's name in the store; default: as in its YAML")
    ] = None,
    seed: Annotated[
        Optional[int],
        typer.Option(help="everything random follows from it and the trial's number", min=0),
    ] = None,
    timeout: TimeoutOption = None,
    device_hours: Annotated[
        Optional[float],
        typer.Option(
            help="device time of all trials together, those of earlier runs included; stays with the study"
        ),
    ] = None,
    change: Annotated[
        Optional[list[str]],
        typer.Option("--set", help="path=value in the study's YAML, such as base.data.size=64"),
    ] = None,
    accept_change: Annotated[
        bool,
        typer.Option(
            "--accept-change", help="go on with a stored study although its definition changed"
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="where the best configuration goes")] = Path(
        "best.yaml"
    ),
    remedy: Annotated[
        Optional[str],
        typer.Option(
            "--enqueue-remedy",
            help="try next what `explain` prescribed to a trial: N, or N:2 for its second remedy",
        ),
    ] = None,
    wandb: WandbOption = "off",
) -> None:
    """Search: start a study, or go on with it where it stopped.

    The same command goes on after Ctrl-C, a crash or a power cut. Once Ctrl-C: finish the epochs, then stop.
    Twice: stop at once. Exit code 0: done; 2: bad input; 130: interrupted.
    """
    from search.cli.parsing import (
        blame_options,
        device_seconds,
        seconds,
        store_location,
        study_spec,
    )
    from search.export import check_out
    from search.launch.placement import Placement, resolve_placement
    from search.session import open_session
    from search.worker.options import WorkerOptions

    location = store_location(store)
    if remedy is None:
        spec = study_spec(study, change or [], name=name, trials=trials, epochs=epochs, seed=seed)
    else:
        _check_as_stored(remedy, {"--set": change, "--epochs": epochs, "--seed": seed})
        spec = _stored_spec(name or study, location, trials)
    timeout_s, device_s = seconds(timeout), device_seconds(device_hours)
    check_out(out)
    place = Placement(
        launcher, devices, workers, workers_per_device, cpus_per_worker, ray_address, slurm or []
    )
    make_pool, warnings = resolve_placement(place, location, sys.argv)
    with blame_options(change or []):
        session = open_session(spec, location, accept_change=accept_change)
    options = WorkerOptions(spec.name, wandb=wandb)
    with session:
        if device_s is not None:
            session.store.budget.set_device_budget(session.stored.id, device_s)
        if remedy is not None:
            session = _prescribe(session, remedy)
        stops = _search(
            session,
            make_pool,
            [*session.plan.warnings, *warnings],
            options,
            timeout_s,
        )
        _conclude(session, out, interrupted=stops > 0)
    if stops:
        raise typer.Exit(ExitCode.INTERRUPTED)


def _check_as_stored(remedy: str, given: Mapping[str, object]) -> None:
    """A remedy is tried in the study as it is stored: what would change the study is refused beside it, and not left aside.

    Raises:
        InputError: when something would, or when the remedy itself is not well named.
    """
    from search.enqueue_remedy import parse_choice

    parse_choice(remedy)
    beside = [option for option, value in given.items() if value is not None]
    if beside:
        raise InputError(
            f"{' and '.join(beside)} cannot stand beside --enqueue-remedy: it takes the study as it is stored",
            where="--enqueue-remedy",
            found=", ".join(beside),
            allowed="--study or --name, --trials, and how to run",
            next_step="leave it out, or start a study of its own with --name and without --enqueue-remedy",
        )


def _stored_spec(study: str, location: StoreLocation, trials: Optional[int]) -> StudySpec:
    """A remedy is of a study as it stands in the store, whatever options it was started with."""
    from search.stored_study import find_study
    from spaces.loader import check, load_study
    from spaces.study import StudySpec

    with location.open(create=False) as held:
        named = (
            study
            if held.studies.find_study(study) or not study.endswith((".yaml", ".yml"))
            else load_study(study).name
        )
        definition = find_study(held, named).definition
    return check(
        StudySpec,
        {**definition, **({} if trials is None else {"trials": trials})},
        f"study {named} in the store",
    )


def _prescribe(session: Session, text: str) -> Session:
    from search.console import terminal
    from search.enqueue_remedy import enqueue_remedy, parse_choice

    choice = parse_choice(text)
    session, described = enqueue_remedy(session, choice)
    terminal.tell(f"next: trial {choice.trial} again, with {described}")
    return session


def _search(
    session: Session,
    make_pool: PoolFactory,
    warnings: list[str],
    options: WorkerOptions,
    timeout_s: float | None,
) -> int:
    """Run the workers under the live display; how often a stop was asked for."""
    from search.console import live, terminal
    from search.launch.reaper import TrialReaper
    from search.session import discard_untried

    for warning in warnings:
        terminal.warn(warning)
    logs = session.location.files_root / session.stored.name
    reaper = TrialReaper(session.store, session.stored.id)
    pool = make_pool(options, session.location, logs, reaper, timeout_s)
    with pool.running():
        live.watch(
            session.store,
            session.stored,
            session.plan,
            until=pool.is_finished,
            note=pool.describe_status,
        )
    for warning in pool.list_warnings():
        terminal.warn(warning)
    try:
        pool.raise_failure()
    except InputError:
        if discard_untried(session):
            pool.remove_logs()
        raise
    return pool.stops


def _conclude(session: Session, out: Path, *, interrupted: bool) -> None:
    """Leaderboard, every kill with its cause, best.yaml, and what to do next."""
    from search.console import tables, terminal
    from search.console.workers import spent_device_time
    from search.export import make_export, write_export
    from search.report.study import study_report

    report = study_report(session.store, session.stored.name, session.files)
    tables.print_study(report)
    if interrupted or report.states["left"] or report.states["paused"]:
        over = (
            "interrupted"
            if interrupted
            else "the device time is spent"
            if spent_device_time(report)
            else "the time is over"
        )
        goes_on = (
            "the same command"
            if interrupted or not spent_device_time(report)
            else "a larger --device-hours"
        )
        terminal.say(f"\n{over}; {goes_on} goes on where it stopped")
    if not report.leaderboard:
        terminal.say(f"\nno trial is complete, so {out} was not written")
        if report.states["failed"]:
            raise typer.Exit(ExitCode.FAILED)
        return
    write_export(make_export(session.store, session.stored, None, session.files), out)
    where = store_option(session.location)
    terminal.say(f"\nbest configuration written to {out}\n\nnext:")
    for command, why in (
        (
            f"search explain --study {session.stored.name} --trial {report.leaderboard[0].number}{where}",
            "its curves and classes",
        ),
        (f"search train {out}", "train it again and compare"),
        (
            f"search dashboard --study {session.stored.name}{where}",
            "look at the study in the browser",
        ),
    ):
        terminal.say(f"  {command:<60}  # {why}")


@app.command(
    epilog="Example: SEARCH_STORE=postgresql://host/db search worker --study focal_gamma --device cuda:1"
)
def worker(
    study: StudyOption,
    store: StoreOption = None,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda:N, or auto: the first GPU that CUDA_VISIBLE_DEVICES leaves, else the CPU"
        ),
    ] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads", min=1)] = 1,
    wandb: WandbOption = "off",
    timeout: TimeoutOption = None,
    parent: Annotated[Optional[int], typer.Option(hidden=True)] = None,
    events: Annotated[Optional[Path], typer.Option(hidden=True)] = None,
) -> None:
    """Join a study that `search run` started, from another shell or another machine."""
    from search.cli.parsing import seconds, store_location
    from search.launch.devices import resolve_device
    from search.worker.events import log_worker_events
    from search.worker.loop import run_worker
    from search.worker.options import WorkerOptions

    with log_worker_events(events):
        options = WorkerOptions(
            study=study,
            device=resolve_device(device),
            threads=threads,
            wandb=wandb,
            timeout_s=seconds(timeout),
            parent=parent,
            events=events,
        )
        interrupted = run_worker(store_location(store), options)
    if interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
