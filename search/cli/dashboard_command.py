"""`search dashboard`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from search.cli.app import StoreOption, app


@app.command(epilog="Example: search dashboard --study focal_gamma --port 8080")
def dashboard(
    study: Annotated[
        Optional[str], typer.Option("--study", "-s", help="study that the browser opens first")
    ] = None,
    port: Annotated[int, typer.Option(help="port on 127.0.0.1", min=1, max=65535)] = 8080,
    store: StoreOption = None,
) -> None:
    """Open optuna-dashboard on the store, for this machine only."""
    from search.cli.parsing import store_location
    from search.dashboard import serve_dashboard

    serve_dashboard(store_location(store), study, port)
