"""`search schema`."""

from __future__ import annotations

from search.cli.app import app


@app.command(
    epilog=(
        "Example: search schema > study.schema.json, "
        "then # yaml-language-server: $schema=study.schema.json in your YAML"
    )
)
def schema() -> None:
    """Print the JSON Schema of a study's YAML, for editors."""
    from search.planning.json_schema import schema_text

    print(schema_text())
