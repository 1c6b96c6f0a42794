"""Links between the pages of the documentation lead to files and headings that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

pytestmark = pytest.mark.docs


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def links(page: Path) -> Iterator[str]:
    """Targets of the links of a page that do not lead to other sites."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """What a link can name behind `#`: the headings, spelled as GitHub spells them in a link."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    """Every link of a page leads to a file that exists and, behind `#`, to one of its headings."""
    assert broken_links(page) == []


def test_all_pages_seen() -> None:
    """The README and the pages of docs/ are among the pages that are read."""
    names = {page.name for page in PAGES}
    assert {"README.md", "stores.md"} <= names
    assert sum(len(list(links(page))) for page in PAGES) > 20


def test_broken(tmp_path: Path) -> None:
    """A link to a missing file or heading is found; one in a block of code, or to another site, is none."""
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# `A` title, in words\n", encoding="utf-8")
    text = (
        "# Here\n[a](#here) [b](other.md#a-title-in-words) [c](https://example.org/none)\n"
        "```\n[d](none.md)\n```\n[e](none.md) [f](other.md#none) [g](#there)\n"
    )
    page.write_text(text, encoding="utf-8")
    assert broken_links(page) == ["none.md", "other.md#none", "#there"]
