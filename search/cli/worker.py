"""`search worker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from search.cli.app import StoreOption, StudyOption, TimeoutOption, WandbOption, app
from spaces.exit_codes import ExitCode


@app.command(
    epilog=(
        "Example: SEARCH_STORE=postgresql://host/db "
        "search worker --study focal_gamma --device cuda:1"
    )
)
def worker(
    study: StudyOption,
    store: StoreOption = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda:N, or auto: the first visible GPU, else the CPU")
    ] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads", min=1)] = 1,
    wandb: WandbOption = "off",
    timeout: TimeoutOption = None,
    parent: Annotated[Optional[int], typer.Option(hidden=True)] = None,
    events: Annotated[Optional[Path], typer.Option(hidden=True)] = None,
) -> None:
    """Join a running study from another shell or machine."""
    from search.cli.parsing import parse_duration, store_location
    from search.launch.device_slots import resolve_device
    from search.worker.events import log_worker_events
    from search.worker.loop import run_worker
    from search.worker.options import WorkerOptions

    with log_worker_events(events):
        options = WorkerOptions(
            study=study,
            device=resolve_device(device),
            threads=threads,
            wandb=wandb,
            timeout_s=parse_duration(timeout),
            parent=parent,
            events=events,
        )
        interrupted = run_worker(store_location(store), options)
    if interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
