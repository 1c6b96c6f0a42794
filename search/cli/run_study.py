"""What `search run` does: choose the study, run its workers, and print the result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from search.cli.app import Wandb, format_store_option
from search.cli.parsing import (
    load_spec,
    naming_set_option,
    parse_device_hours,
    parse_duration,
    store_location,
)
from search.console import live, tables, terminal
from search.console.workers import is_device_time_spent
from search.enqueue_remedy import enqueue_remedy, parse_choice
from search.export import check_out, write_export
from search.launch.launcher_choice import Placement, PoolFactory, resolve_placement
from search.launch.reaper import TrialReaper
from search.report.confirmed_export import export_trial
from search.report.models import StudyReport
from search.report.study_report import study_report
from search.session import Session, discard_untried, open_session
from search.stored_study import find_study
from search.worker.options import WorkerOptions
from spaces.errors import InputError
from spaces.exit_codes import ExitCode
from spaces.loader import check, load_study
from spaces.study import StudySpec
from storage.location import StoreLocation

SETTLED_GAIN = 0.005
"""Share of the best score below which `--stop-when-settled` ends a study."""

RunEnd = Literal["done", "interrupted", "expired"]
"""What ended a run: its workers, a stop request, or `--timeout`."""


@dataclass(frozen=True)
class StudyChoice:
    """The options of `search run` that choose the study and change its definition.

    Attributes:
        study: `--study`.
        changes: path=value of each `--set`.
        remedy: `--enqueue-remedy`, N or N:M.
    """

    study: str
    name: str | None
    trials: int | None
    epochs: int | None
    seed: int | None
    changes: Sequence[str]
    accept_change: bool
    remedy: str | None
    epochs_budget: int | None = None
    stop_when_settled: bool = False
    learn_from: Sequence[str] = ()

    def load_spec(self, location: StoreLocation) -> StudySpec:
        """Load the study, or the stored one if a remedy is enqueued in it.

        Raises:
            StudyError: when there is no such study, or a change does not fit.
            InputError: when an option would change a study that is only resumed.
        """
        if self.remedy is not None:
            self._refuse_changes(self.remedy)
            return load_stored_spec(self.name or self.study, location, self.trials)
        return load_spec(
            self.study,
            [*self.changes],
            name=self.name,
            trials=self.trials,
            epochs=self.epochs,
            seed=self.seed,
            epochs_budget=self.epochs_budget,
            settled_gain=SETTLED_GAIN if self.stop_when_settled else None,
            learn_from=self.learn_from,
        )

    def _refuse_changes(self, remedy: str) -> None:
        """Refuse options that would change a study in which a remedy is enqueued."""
        parse_choice(remedy)
        given = {
            "--set": self.changes,
            "--epochs": self.epochs is not None,
            "--seed": self.seed is not None,
            "--epochs-budget": self.epochs_budget is not None,
            "--stop-when-settled": self.stop_when_settled,
            "--learn-from": self.learn_from,
        }
        refused = [option for option, is_given in given.items() if is_given]
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
    """Load a study's definition from the store.

    Args:
        study: name of the study, or path of a YAML file with its name.
        location: of the store.
        trials: number of trials; None: as stored.
    """
    with location.open(create=False) as store:
        name = study
        if study.endswith((".yaml", ".yml")) and not store.studies.find_study(study):
            name = load_study(study).name
        definition = find_study(store, name).definition
    changed = {} if trials is None else {"trials": trials}
    return check(StudySpec, {**definition, **changed}, f"study {name} in the store")


def run_study(
    choice: StudyChoice,
    place: Placement,
    store: str | None,
    out: Path,
    *,
    timeout: str | None,
    device_hours: float | None,
    wandb: Wandb,
) -> bool:
    """Start a study, or resume it, run its workers, and print the result.

    Args:
        choice: which study.
        place: where its workers run.
        store: `--store`.
        out: file for the best configuration.
        timeout: `--timeout`.
        device_hours: `--device-hours`.
        wandb: `--wandb`.

    Returns:
        Whether it was interrupted.
    """
    location = store_location(store)
    spec = choice.load_spec(location)
    timeout_s, device_s = parse_duration(timeout), parse_device_hours(device_hours)
    check_out(out)
    make_pool, warnings = resolve_placement(place, location, sys.argv)
    with naming_set_option(choice.changes):
        session = open_session(spec, location, accept_change=choice.accept_change)
    options = WorkerOptions(spec.name, wandb=wandb)
    with session:
        if device_s is not None:
            session.store.budget.set_device_budget(session.stored.id, device_s)
        if choice.remedy is not None:
            session = _enqueue_remedy(session, choice.remedy)
        for warning in (*session.plan.warnings, *warnings):
            terminal.print_warning(warning)
        run_end = run_workers(session, make_pool, options, timeout_s)
        _print_result(session, out, run_end)
    return run_end == "interrupted"


def _enqueue_remedy(session: Session, text: str) -> Session:
    choice = parse_choice(text)
    session, described = enqueue_remedy(session, choice)
    terminal.print_paragraph(f"enqueued: trial {choice.trial} again, with {described}")
    return session


def run_workers(
    session: Session,
    make_pool: PoolFactory,
    options: WorkerOptions,
    timeout_s: float | None,
    *,
    quiet: bool = False,
) -> RunEnd:
    """Run the workers of a study until they end, under the live display.

    Args:
        session: of the study.
        make_pool: makes the workers.
        options: of each worker.
        timeout_s: seconds until a stop.
        quiet: whether to show nothing meanwhile.

    Returns:
        What ended the run.
    """
    logs = session.location.files_root / session.stored.name
    reaper = TrialReaper(session.store, session.stored.id)
    pool = make_pool(options, session.location, logs, reaper, timeout_s)
    with pool.running():
        if quiet:
            live.wait_quietly(pool.is_finished)
            printed: frozenset[str] = frozenset()
        else:
            printed = live.watch_study(
                session.store,
                session.stored,
                session.plan,
                until=pool.is_finished,
                note=pool.describe_status,
            )
    for warning in pool.list_warnings():
        if warning not in printed:
            terminal.print_warning(warning)
    try:
        pool.raise_failure()
    except InputError:
        if discard_untried(session):
            pool.remove_logs()
        raise
    if pool.stops:
        return "interrupted"
    return "expired" if pool.is_expired else "done"


def _print_result(session: Session, out: Path, run_end: RunEnd) -> None:
    """Print the study, write the best configuration, and print what to run next."""
    report = study_report(session.store, session.stored.name, session.files)
    tables.print_study(report)
    if run_end == "interrupted" or _is_unfinished(report):
        terminal.print_line(f"\n{_describe_stop(report, run_end)}")
    if not report.leaderboard:
        terminal.print_line(f"\nno trial is complete, so {out} was not written")
        if report.states["failed"]:
            raise typer.Exit(ExitCode.FAILED)
        return
    export = export_trial(session.store, session.stored, None, session.files)
    write_export(export, out)
    terminal.print_line(f"\n{_describe_export(report, export.provenance.trial, out)}\n\nnext:")
    where = format_store_option(session.location)
    study, best = report.name, export.provenance.trial
    commands = {
        f"search explain --study {study} --trial {best}{where}": "its curves and classes",
        f"search train {out}": "train it again and compare the scores",
        f"search confirm --study {study}{where}": "train the likely best again over seeds",
        f"search dashboard --study {study}{where}": "open the study in the browser",
    }
    for command, purpose in commands.items():
        terminal.print_line(f"  {command:<60}  # {purpose}")


def _describe_export(report: StudyReport, number: int, out: Path) -> str:
    """Say which configuration was written, and why it is not the first of the leaderboard."""
    written = f"best configuration written to {out}"
    first = report.leaderboard[0].number
    if number == first:
        return written
    if report.confirmed is not None and report.confirmed.winner is not None:
        return f"{written}: trial {number}, which was confirmed as the best"
    return (
        f"{written}: trial {number}, likely the best by all curves together; "
        f"the better score of trial {first} is more likely the luck of its seed"
    )


def _is_unfinished(report: StudyReport) -> bool:
    """Whether something is left that the same command would train."""
    released = report.states["paused"] - len(report.paused)
    if _are_epochs_spent(report):
        return bool(report.states["left"] or report.states["paused"])
    if report.search is not None and report.search.is_settled:
        return True
    if report.search is not None and report.search.is_over:
        return bool(released)
    return bool(report.states["left"] or released)


def _are_epochs_spent(report: StudyReport) -> bool:
    return report.epochs_budget is not None and report.trained_epochs >= report.epochs_budget


def _describe_stop(report: StudyReport, run_end: RunEnd) -> str:
    """Say why a study is not finished, and how to continue it."""
    if run_end == "interrupted":
        return "interrupted; run the same command again to continue"
    if is_device_time_spent(report):
        return "device-hour budget exhausted; raise --device-hours to continue"
    if _are_epochs_spent(report):
        return "epoch budget exhausted; raise --epochs-budget to continue"
    if report.search is not None and report.search.is_settled:
        return "settled: the next trial is expected to improve the best score by too little"
    if run_end == "expired":
        return "time limit reached; run the same command again to continue"
    return "the workers ended before all trials were done; run the same command again to continue"
