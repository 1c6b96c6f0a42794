"""The words of the project: no name, comment, message or page has one that the glossary replaces."""

from __future__ import annotations

from itertools import chain

import pytest

from benchmarks.code_figures.sources import Source, read_pages, read_sources
from benchmarks.code_figures.words import CODE_AREAS, words_in_code, words_in_pages

SOURCES = read_sources(*chain.from_iterable(CODE_AREAS.values()))
PAGES = read_pages()


def test_all_seen() -> None:
    """Files of every part of the project are read; an empty list would have no such word."""
    assert {source.package for source in SOURCES} == set(chain.from_iterable(CODE_AREAS.values()))
    assert {"README.md", "CONTRIBUTING.md", "docs/studies.md"} <= set(PAGES)


@pytest.mark.parametrize("source", SOURCES, ids=[source.path for source in SOURCES])
def test_code(source: Source) -> None:
    """Names that the file defines, its comments and its strings have none of the words."""
    assert [str(place) for place in words_in_code([source])] == []


@pytest.mark.parametrize("path", PAGES)
def test_page(path: str) -> None:
    """The page has none of the words; CONTRIBUTING.md is read without its glossary."""
    assert [str(place) for place in words_in_pages({path: PAGES[path]})] == []
