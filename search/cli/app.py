"""The Typer application and the options that several commands share."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from storage.location import StoreLocation
    from storage.store import Store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Hyperparameter search for training under class imbalance.\n\n"
        "Start with: search run --study focal_gamma"
    ),
)


def print_version(wanted: bool) -> None:
    """Print the version and exit if `--version` was given."""
    if wanted:
        from importlib.metadata import version

        print(f"search {version('imbalance-search')}")
        raise typer.Exit


@app.callback()
def read_common_options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="print the version and exit",
            callback=print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Options in front of the command."""


StudyOption = Annotated[str, typer.Option("--study", "-s", help="name of a study in the store")]
StoreOption = Annotated[
    Optional[str],
    typer.Option(
        "--store",
        help="database URL of the store; default: $SEARCH_STORE, else sqlite:///search.db",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="print JSON for scripts (docs/scripts.md lists the keys)")
]
Wandb = Literal["off", "offline", "online"]
WandbOption = Annotated[
    Wandb,
    typer.Option("--wandb", help="log each trial as a Weights & Biases run"),
]
TimeoutOption = Annotated[
    Optional[str], typer.Option("--timeout", help="stop after this time: 90s, 30m, 2h")
]


def format_store_option(location: StoreLocation) -> str:
    """Return the `--store` option for a printed command; empty for the default store."""
    from search.cli.parsing import DEFAULT_STORE

    if location.safe_url == DEFAULT_STORE:
        return ""
    return f" --store {shlex.quote(location.safe_url)}"


def open_existing_store(store: str | None) -> Store:
    """Open the store that `--store` names; a command that only reads does not create one."""
    from search.cli.parsing import store_location

    return store_location(store).open(create=False)
