"""What the commands share: the application that they join, options that several of them take, and the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from storage.store import Store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Hyperparameter search for training under class imbalance.\n\nStart with: search run --study focal_gamma",
)

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


def told_store(store: Optional[str]) -> str:
    """The option that finds the store again, for a command that is printed; nothing for the usual one."""
    from search.cli.parsing import store_url
    from storage.database.url import safe_url

    url = store_url(store)
    return "" if url == "sqlite:///search.db" else f" --store {safe_url(url)}"


def existing_store(url: str | None) -> Store:
    """The store that is there already; a command that looks makes none."""
    from search.cli.parsing import store_url
    from storage.store import open_store

    return open_store(store_url(url), create=False)
