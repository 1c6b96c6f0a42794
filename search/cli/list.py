"""`search list`."""

from __future__ import annotations

from search.cli.app import JsonOption, app


@app.command("list", epilog="Examples: search list · search list --json | jq '.[].name'")
def list_studies(as_json: JsonOption = False) -> None:
    """List the shipped studies and what they search."""
    from search.console import tables, terminal
    from spaces.loader import load_study, shipped_studies

    studies = [load_study(name) for name in shipped_studies()]
    if as_json:
        terminal.print_json([study.model_dump(mode="json") for study in studies])
        return
    tables.print_studies(studies)
