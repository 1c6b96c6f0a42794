"""`search worker`."""

from __future__ import annotations

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
) -> None:
    """Join a running study from another shell or machine."""
    from search.cli.parsing import parse_duration, store_location
    from search.launch.devices import own_device
    from search.worker.context import WorkerSettings
    from search.worker.loop import work

    interrupted = work(
        WorkerSettings(
            store_location(store),
            study,
            own_device(device),
            threads,
            wandb,
            parse_duration(timeout),
            parent,
        )
    )
    if interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
