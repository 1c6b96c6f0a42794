"""What the commands share: the application that they join, options that several of them take, and the store."""

from __future__ import annotations

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
    help="Hyperparameter search for training under class imbalance.\n\nStart with: search run --study focal_gamma",
)


def print_version(wanted: bool) -> None:
    """Print the version and exit, if it was asked for."""
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


StudyOption = Annotated[str, typer.Option("--study", "-s", help="a study in the store, by name")]
StoreOption = Annotated[
    Optional[str],
    typer.Option(
        "--store", help="database URL; default: $SEARCH_STORE, else sqlite:///search.db here"
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="for scripts; docs/scripts.md has the keys")
]
WandbOption = Annotated[
    Literal["off", "offline", "online"],
    typer.Option("--wandb", help="one Weights & Biases run a trial"),
]
TimeoutOption = Annotated[
    Optional[str], typer.Option("--timeout", help="stop after so long: 90s, 30m, 2h")
]


def store_option(location: StoreLocation) -> str:
    """Return the option that names the store in a printed command; empty for the default store."""
    from search.cli.parsing import DEFAULT_STORE

    return "" if location.safe_url == DEFAULT_STORE else f" --store {location.safe_url}"


def existing_store(store: str | None) -> Store:
    """Open the store that `--store` names; a command that only reads does not create one."""
    from search.cli.parsing import store_location

    return store_location(store).open(create=False)
