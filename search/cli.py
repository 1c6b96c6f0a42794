"""The commands. Each one reads its options, calls the room that does the work, and hands the result to the console.

Imports stand inside the commands: `search --help` must not wait for Optuna, SQLAlchemy or torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from spaces.errors import InputError, SearchError

if TYPE_CHECKING:
    from search.launch.devices import Slot
    from search.session import Session
    from spaces.study import StudySpec
    from storage.store import Store

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Hyperparameter search for training under class imbalance.\n\nStart with: search run --study focal_gamma",
)  # fmt: skip

StudyOption = Annotated[str, typer.Option("--study", "-s", help="a study in the store, by name")]
StoreOption = Annotated[Optional[str], typer.Option("--store", help="database URL; default: $SEARCH_STORE, else sqlite:///search.db here")]
WandbOption = Annotated[Literal["off", "offline", "online"], typer.Option("--wandb", help="one Weights & Biases run a trial")]
TimeoutOption = Annotated[Optional[str], typer.Option("--timeout", help="stop after so long: 90s, 30m, 2h")]


@app.command(epilog="Examples: search run --study focal_gamma · search run --study my.yaml --trials 40 --devices cuda:0,cuda:1 --timeout 8h")
def run(
    study: Annotated[str, typer.Option("--study", "-s", help="a shipped study's name (see `search list`), or the path of your own YAML")],
    trials: Annotated[Optional[int], typer.Option(help="trials in all, those of earlier runs included", min=1)] = None,
    epochs: Annotated[Optional[int], typer.Option(help="epochs a trial", min=1)] = None,
    workers: Annotated[Optional[int], typer.Option(help="worker processes; default: one a GPU, or one a core (four at most)", min=1)] = None,
    devices: Annotated[str, typer.Option(help="auto, cpu, or cuda:0,cuda:1")] = "auto",
    workers_per_device: Annotated[int, typer.Option(help="workers that share a GPU", min=1)] = 1,
    store: StoreOption = None,
    name: Annotated[Optional[str], typer.Option(help="the study's name in the store; default: as in its YAML")] = None,
    seed: Annotated[Optional[int], typer.Option(help="everything random follows from it and the trial's number", min=0)] = None,
    timeout: TimeoutOption = None,
    change: Annotated[Optional[list[str]], typer.Option("--set", help="path=value in the study's YAML, such as base.data.size=64")] = None,
    accept_change: Annotated[bool, typer.Option("--accept-change", help="go on with a stored study although its definition changed")] = False,
    out: Annotated[Path, typer.Option(help="where the best configuration goes")] = Path("best.yaml"),
    remedy: Annotated[Optional[str], typer.Option("--enqueue-remedy", help="try next what `explain` prescribed to a trial: N, or N:2 for its second remedy")] = None,
    wandb: WandbOption = "off",
) -> None:
    """Search: start a study, or go on with it where it stopped.

    The same command goes on after Ctrl-C, a crash or a power cut. Once Ctrl-C: finish the epochs, then stop.
    Twice: stop at once. Exit code 0: done; 2: bad input; 130: interrupted.
    """
    from search.export import check_out
    from search.launch.devices import plan_slots
    from search.options import seconds, store_url, study_spec
    from search.session import open_session

    if remedy is None:
        spec = study_spec(study, change or [], name=name, trials=trials, epochs=epochs, seed=seed)
    else:
        spec = _stored_spec(name or study, store_url(store), trials)
    slots = plan_slots(devices, workers, workers_per_device)
    timeout_s = seconds(timeout)
    check_out(out)
    session = open_session(spec, store_url(store), accept_change=accept_change)
    arguments = ["--study", spec.name, "--wandb", wandb]
    with session.store:
        if remedy is not None:
            session = _prescribe(session, store_url(store), remedy)
        stops = _search(session, slots, arguments, store_url(store), timeout_s)
        _conclude(session, out, store_url(store), interrupted=stops > 0)
    if stops:
        raise typer.Exit(INTERRUPTED)


def _stored_spec(study: str, url: str, trials: Optional[int]) -> StudySpec:
    """A remedy is of a study as it stands in the store, whatever options it was started with."""
    from search.report import find_study
    from spaces.loader import check, load_study
    from spaces.study import StudySpec
    from storage.store import open_store

    with open_store(url, create=False) as held:
        named = study if held.study(study) or not study.endswith((".yaml", ".yml")) else load_study(study).name
        definition = find_study(held, named).definition
    return check(StudySpec, {**definition, **({} if trials is None else {"trials": trials})}, f"study {named} in the store")


def _prescribe(session: Session, url: str, text: str) -> Session:
    from search.console import screen
    from search.remedy import enqueue_remedy, parse_choice

    choice = parse_choice(text)
    session, remedy = enqueue_remedy(session, url, choice)
    screen.tell(f"next: trial {choice.trial} again, with {remedy.text}")
    return session


def _told_store(store: Optional[str]) -> str:
    """The option that finds the store again, for a command that is printed; nothing for the usual one."""
    from search.options import store_url
    from storage.address import safe_url

    url = store_url(store)
    return "" if url == "sqlite:///search.db" else f" --store {safe_url(url)}"


def _search(session: Session, slots: list[Slot], arguments: list[str], url: str, timeout_s: float | None) -> int:
    """Run the workers under the live display; how often a stop was asked for."""
    from search.console import live, screen
    from search.launch.local import LocalWorkers
    from search.session import discard_untried
    from storage.store import open_files

    for warning in session.plan.warnings:
        screen.warn(warning)
    logs = open_files(url).root / session.stored.name
    with LocalWorkers(slots, arguments, url, logs, timeout_s).running() as team:
        live.watch(session.store, session.stored, session.plan, until=team.finished, note=team.note)
    for warning in team.warnings():
        screen.warn(warning)
    try:
        team.check()
    except InputError:
        if discard_untried(session, url):
            team.forget_logs()
        raise
    return team.stops


def _conclude(session: Session, out: Path, url: str, *, interrupted: bool) -> None:
    """Leaderboard, every kill with its cause, best.yaml, and what to do next."""
    from search.console import screen, tables
    from search.export import make_export, write_export
    from search.report import study_report

    report = study_report(session.store, session.stored.name)
    tables.print_study(report)
    if interrupted or report.states["left"] or report.states["paused"]:
        screen.say(f"\n{'interrupted' if interrupted else 'the time is over'}; the same command goes on where it stopped")
    if not report.leaderboard:
        screen.say(f"\nno trial is complete, so {out} was not written")
        return
    write_export(make_export(session.store, session.stored, None), out)
    where = _told_store(url)
    screen.say(f"\nbest configuration written to {out}\n\nnext:")
    for command, why in (
        (f"search explain --study {session.stored.name} --trial {report.leaderboard[0].number}{where}", "its curves and classes"),
        (f"search train {out}", "train it again and compare"),
        (f"search dashboard --study {session.stored.name}{where}", "look at the study in the browser"),
    ):
        screen.say(f"  {command:<60}  # {why}")


@app.command("list", epilog="Example: search list")
def list_studies() -> None:
    """The shipped studies and what they search."""
    from search.console import tables
    from spaces.loader import load_study, shipped_studies

    tables.print_studies([load_study(name) for name in shipped_studies()])


@app.command(epilog="Examples: search show · search show --study focal_gamma --json | jq .leaderboard")
def show(
    study: Annotated[Optional[str], typer.Option("--study", "-s", help="a study in the store; left out: all of them")] = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """States, leaderboard and kills of a running or finished study."""
    import json

    from search.console import screen, tables
    from search.report import study_report

    with _store(store) as held:
        names = [study] if study else [stored.name for stored in held.studies()]
        reports = [study_report(held, name) for name in names]
    if as_json:
        told = [report.as_dict() for report in reports]
        screen.say_raw(json.dumps(told[0] if study else told, indent=2, allow_nan=False))
        return
    for report in reports:
        tables.print_study(report)
    if not reports:
        screen.say("the store holds no study yet; start one with: search run --study focal_gamma")


@app.command(epilog="Example: search explain --study focal_gamma --trial 7")
def explain(study: StudyOption, trial: Annotated[int, typer.Option("--trial", "-t", help="its number")], store: StoreOption = None) -> None:
    """One trial: its configuration, its curves, and why it died, with the numbers."""
    from search.console import curves
    from search.report import trial_report

    with _store(store) as held:
        curves.print_trial(trial_report(held, study, trial), _told_store(store))


@app.command(epilog="Examples: search backtest --study focal_gamma --pruner median · search backtest --records curves.jsonl --tune")
def backtest(
    study: Annotated[Optional[str], typer.Option("--study", "-s", help="a study in the store, by name")] = None,
    records: Annotated[Optional[Path], typer.Option(help="recorded trials as JSON Lines instead (docs/backtest.md)")] = None,
    signals: Annotated[Optional[list[str]], typer.Option(help="name.threshold=value, such as class_collapse.epochs=8")] = None,
    pruner: Annotated[Optional[list[str]], typer.Option(help="median, hyperband or none; or setting=value")] = None,
    tune: Annotated[bool, typer.Option("--tune", help="propose thresholds that save most and spare the best")] = False,
    direction: Annotated[Optional[Literal["maximize", "minimize"]], typer.Option(help="of a file's metric, where it does not say")] = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """Replay recorded trials: whom would each signal and the pruner have killed, what would that have saved, and at what price?"""
    import json

    from search import backtest as replay
    from search.console import backtest as console
    from search.console import screen
    from search.options import pruner_config, thresholds
    from search.recorded import source
    from search.tune import tune as tuned_on

    given = source(study, records, direction, lambda: _store(store))
    on, peers = thresholds(signals or [], given.signals), pruner_config(pruner or [], given.pruner)
    field = replay.make_field(given.recording)
    result, tuned = replay.backtest(field, on, peers), tuned_on(field, on) if tune else None
    if as_json:
        screen.say_raw(json.dumps(result.as_dict() | ({"tuned": tuned.as_dict()} if tuned else {}), indent=2, allow_nan=False))
        return
    console.print_backtest(result)
    if tuned:
        console.print_tuned(tuned, len(result.best))


@app.command(epilog="Example: search convert run1.csv run2.csv --column loss=train/loss --column metric=val/miou --out curves.jsonl")
def convert(
    files: Annotated[list[Path], typer.Argument(help="a table of each run: CSV, JSON Lines, or a JSON array, as W&B's history exports")],
    column: Annotated[Optional[list[str]], typer.Option(help="key=column, such as loss=train/loss or 'class_metric=val/iou_*'")] = None,
    direction: Annotated[Literal["maximize", "minimize"], typer.Option(help="of the metric")] = "maximize",
    whole: Annotated[bool, typer.Option("--whole", help="short runs ended by themselves; else they count as cut short")] = False,
    out: Annotated[Path, typer.Option(help="where to write; .gz compresses")] = Path("curves.jsonl"),
) -> None:
    """Training curves from elsewhere as a file for `search backtest --records`."""
    from search.console import screen
    from search.convert import convert as made_of
    from search.options import columns
    from spaces.recordings import check_out, write_recording

    check_out(out, files)
    recording = made_of(files, columns(column or []), direction, whole=whole)
    write_recording(out, recording)
    screen.say(f"{len(recording.trials)} trials, {sum(len(trial.epochs) for trial in recording.trials)} epochs written to {out}")


@app.command(epilog="Examples: search weights · search weights --study my.yaml --clip-ratio 25")
def weights(
    study: Annotated[str, typer.Option("--study", "-s", help="a shipped study's name, or a YAML: its data are counted")] = "class_weights",
    clip_ratio: Annotated[Optional[float], typer.Option(help="bound of max/min; left out: none", min=1)] = None,
    change: Annotated[Optional[list[str]], typer.Option("--set", help="path=value in the study's YAML")] = None,
) -> None:
    """Class counts of the training data, and the weights that every method makes of them."""
    from typing import get_args

    from objectives.class_weights import class_weights
    from search.console import tables
    from search.options import study_spec
    from search.plan import make_plan
    from spaces.config import WeightMethod, WeightsConfig

    plan = make_plan(study_spec(study, change or []))
    counts = plan.objective.load().count_classes(plan.config({}, 0))
    made = {method: class_weights(counts, WeightsConfig(method=method, clip_ratio=clip_ratio)).weights.tolist() for method in get_args(WeightMethod)}
    tables.print_weights(counts, made)


@app.command(epilog="Examples: search export --study focal_gamma · search export --study focal_gamma --trial 12 --out twelve.yaml")
def export(
    study: StudyOption,
    trial: Annotated[Optional[int], typer.Option("--trial", "-t", help="its number; left out: the best complete one")] = None,
    out: Annotated[Path, typer.Option(help="where to write")] = Path("best.yaml"),
    store: StoreOption = None,
) -> None:
    """Write a trial's configuration, scores and provenance to YAML."""
    from search.console import screen
    from search.export import make_export, write_export
    from search.report import find_study

    with _store(store) as held:
        made = make_export(held, find_study(held, study), trial)
    write_export(made, out)
    screen.say(f"trial {made.provenance.trial} of {study}: {made.score.metric} {made.score.validation:.4f} on validation; written to {out}")


@app.command(epilog="Example: search train best.yaml --save model.pt")
def train(
    file: Annotated[Path, typer.Argument(help="a file that `search export` or `search run` wrote")],
    device: Annotated[Optional[str], typer.Option(help="where; default: as it was trained")] = None,
    threads: Annotated[Optional[int], typer.Option(help="CPU threads; default: as it was trained", min=1)] = None,
    save: Annotated[Optional[Path], typer.Option(help="keep the trained state there (torch.load; the model to keep is under best_weights)")] = None,
) -> None:
    """Train an exported configuration again, and compare with its recorded score.

    Exit code 1 when the score differs although device, threads and torch are the same.
    """
    from search.console import screen
    from search.export import load_export
    from search.retrain import Retraining

    training = Retraining(load_export(file), device, threads, save)
    for record in training.epochs():
        loss = f"loss {record.train_loss:.4f}  val loss {record.val_loss:.4f}"
        screen.say(f"epoch {record.epoch:>3}/{training.config.epochs}  {loss}  {training.config.metric.name} {record.metric:.4f}  {record.seconds:.1f} s")
    found = training.compare()
    test = f", {found.test:.4f} on test" if found.test is not None else ""
    verdict = "equal to the last bit" if found.equal else f"differs by {found.trained - found.recorded:+.2e}"
    screen.say(f"\nrecorded {found.recorded!r}, trained {found.trained!r}{test}: {verdict}")
    for difference in found.differences:
        screen.say(f"  not the same: {difference}")
    if not found.equal and not found.differences:
        raise typer.Exit(1)


@app.command(epilog="Example: search dashboard --study focal_gamma --port 8080")
def dashboard(
    study: Annotated[Optional[str], typer.Option("--study", "-s", help="open at this study")] = None,
    port: Annotated[int, typer.Option(help="on 127.0.0.1 only", min=1, max=65535)] = 8080,
    store: StoreOption = None,
) -> None:
    """optuna-dashboard on the store, reachable from this machine alone."""
    from search.dashboard import serve
    from search.options import store_url

    serve(store_url(store), study, port)


@app.command(epilog="Example: SEARCH_STORE=postgresql://host/db search worker --study focal_gamma --device cuda:1")
def worker(
    study: StudyOption,
    store: StoreOption = None,
    device: Annotated[str, typer.Option(help="cpu or cuda:N")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads", min=1)] = 1,
    wandb: WandbOption = "off",
    timeout: TimeoutOption = None,
    parent: Annotated[Optional[int], typer.Option(hidden=True)] = None,
) -> None:
    """Join a study that `search run` started, from another shell or another machine."""
    from search.options import seconds, store_url
    from search.worker import WorkerSettings, work

    interrupted = work(WorkerSettings(store_url(store), study, device, threads, wandb, seconds(timeout), parent))
    if interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command(epilog="Example: search schema > study.schema.json, then # yaml-language-server: $schema=study.schema.json in your YAML")
def schema() -> None:
    """The JSON Schema of a study's YAML, so that editors complete it."""
    from search.options import schema_text

    print(schema_text())


def _store(url: str | None) -> Store:
    from search.options import store_url
    from storage.store import open_store

    return open_store(store_url(url), create=False)


def main() -> None:
    """Run a command; whatever was foreseen ends in one message and an exit code, never in a traceback."""
    try:
        app()
    except SearchError as problem:
        from search.console import screen

        screen.print_error(problem)
        raise SystemExit(problem.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:  # `search show | head`
        sys.stderr.close()
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
