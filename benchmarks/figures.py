"""Write the table of docs/figures.md from the results of the benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks import NAMES
from benchmarks.report import HEAD, RESULTS, Figure

PAGE = Path(__file__).parents[1] / "docs" / "figures.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
MISSING = "not measured yet"


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Read every result in the folder except smoke runs, by benchmark, in their order."""
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }
    order = [*NAMES, *(name for name in found if name not in NAMES)]
    return {name: found[name] for name in order if name in found and not found[name]["quick"]}


def page_table(results: dict[str, dict[str, Any]]) -> str:
    """The table in Markdown, and the machines that it was measured on."""
    lines = [_line(("benchmark", *HEAD)), _line(("---",) * (len(HEAD) + 1))]
    for name in [*NAMES, *(name for name in results if name not in NAMES)]:
        if name not in results:
            lines.append(_line((f"`{name}`", MISSING, *("",) * (len(HEAD) - 1))))
            continue
        rows = [figure(row).cells() for row in results[name]["figures"]]
        lines += [
            _line((f"`{name}`" if number == 0 else "", *cells)) for number, cells in enumerate(rows)
        ]
    return "\n".join([*lines, "", *machines(results)])


def figure(row: dict[str, Any]) -> Figure:
    """A figure from its JSON."""
    known = {item.name for item in fields(Figure)}
    return Figure(**{key: value for key, value in row.items() if key in known})


def machines(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """One line for every date and machine, with the benchmarks that ran there."""
    ran: dict[str, list[str]] = {}
    for name, result in results.items():
        facts = result["machine"]
        described = ", ".join(
            f"{key} {value}"
            for key, value in facts.items()
            if key not in ("load_at_end", "postgresql")
        )
        ran.setdefault(f"Measured {result['measured']} on: {described}", []).append(name)
    for described, names in ran.items():
        servers = {results[name]["machine"].get("postgresql") for name in names} - {None}
        databases = "".join(f", postgresql {server}" for server in sorted(servers))
        yield f"{described}{databases} ({', '.join(names)})."


def written(page: str, table: str) -> str:
    """The page with the table between its markers.

    Raises:
        SystemExit: when the markers are not there, each once and in order.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in tail:
        raise SystemExit(f"the page needs the lines {BEGIN} and {END}, each once and in this order")
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> int:
    """Write the page, or say whether it would change."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit code 1 when the page is not what the results say",
    )
    made.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="FOLDER",
        help="default: benchmarks/results",
    )
    made.add_argument(
        "--page", type=Path, default=PAGE, metavar="FILE", help="default: docs/figures.md"
    )
    options = made.parse_args()
    before = options.page.read_text(encoding="utf-8")
    after = written(before, page_table(read(options.results)))
    if options.check:
        print("up to date" if after == before else "out of date: run python -m benchmarks.figures")
        return int(after != before)
    options.page.write_text(after, encoding="utf-8")
    print(f"{options.page.name}: {'as it was' if after == before else 'written'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
