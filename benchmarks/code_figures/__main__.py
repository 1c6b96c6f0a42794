"""Figures about the code and what they have to reach: `python -m benchmarks.code_figures`.

    python -m benchmarks.code_figures                    # the table; exit code 1 when one is missed
    python -m benchmarks.code_figures --list words       # the places that a figure counts
    python -m benchmarks.code_figures --list words docs  # those whose path starts like that

Places where the program parses text that it wrote itself are not among them: no rule finds those.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median

from benchmarks.code_figures import measures
from benchmarks.code_figures.glossary import FORBIDDEN_WORDS
from benchmarks.code_figures.sources import PACKAGES, Place, Source, read_sources
from benchmarks.code_figures.words import CODE_AREAS, PAGES, WordPlace, find_words
from benchmarks.report import Figure, table

HEAD = ("figure", "found", "to reach", "verdict")
Listing = Callable[[Sequence[Source]], Sequence[Place]]

LISTINGS: dict[str, Listing] = {
    "long-lines": measures.long_lines,
    "fmt-skip": measures.skipped_formats,
    "files": measures.file_lengths,
    "functions": measures.function_lengths,
    "single-words": measures.single_words,
    "addresses": measures.address_functions,
    "methods": measures.public_methods,
    "loose-files": measures.loose_files,
    "repeated-names": measures.repeated_names,
    "tuples": measures.tuple_assignments,
    "conditionals": measures.conditional_expressions,
    "comprehensions": measures.comprehensions,
}
"""What `--list` shows of the packages; it shows "words", too, which are found everywhere."""


def measure_packages(sources: Sequence[Source]) -> list[Figure]:
    """Every figure about the packages."""
    return [*_layout_figures(sources), *_name_figures(sources), *_form_figures(sources)]


def word_rows(places: Sequence[WordPlace]) -> list[tuple[str, ...]]:
    """For every forbidden word: how often each area has it, and what to say instead."""
    counts = Counter((place.what, place.area) for place in places)
    rows = []
    for word in FORBIDDEN_WORDS:
        cells = [str(counts[word.word, area]) for area in (*CODE_AREAS, PAGES)]
        rows.append((word.word, *cells, word.say))
    return rows


def _layout_figures(sources: Sequence[Source]) -> Iterator[Figure]:
    files = [place.size for place in measures.file_lengths(sources)]
    functions = [place.size for place in measures.function_lengths(sources)]
    yield Figure("lines over 100 characters", len(measures.long_lines(sources)), bound=0)
    yield Figure("lines that skip the formatter", len(measures.skipped_formats(sources)), bound=0)
    yield Figure("mean non-blank line", fmean(measures.line_lengths(sources)), "characters", 45)
    yield Figure("median file", median(files), "lines", 150)
    yield Figure("largest file", max(files), "lines", 400)
    yield Figure("median function", median(functions), "lines", 10)
    yield Figure("largest function", max(functions), "lines", 50)


def _name_figures(sources: Sequence[Source]) -> Iterator[Figure]:
    names = [place.what for place in measures.function_names(sources)]
    single = 100 * len(measures.single_words(sources)) / len(names)
    repeated = {
        (place.path.split("/", 1)[0], place.what) for place in measures.repeated_names(sources)
    }
    yield Figure("functions named by a single word", single, "%", 25)
    yield Figure("mean function name", fmean(map(len, names)), "characters", 11, at_least=True)
    yield Figure("files directly in search/", len(measures.loose_files(sources)), bound=10)
    yield Figure("base names repeated in a package", len(repeated), bound=0)


def _form_figures(sources: Sequence[Source]) -> Iterator[Figure]:
    addresses = measures.address_functions(sources)
    methods = max((place.size for place in measures.public_methods(sources)), default=0)
    yield Figure("functions that take the store's address as str", len(addresses), bound=6)
    yield Figure("public methods of the largest storage class", methods, bound=8)
    lines = sum(len(source.lines) for source in sources)
    for name, found in (
        ("tuple assignments", measures.tuple_assignments(sources)),
        ("conditional expressions", measures.conditional_expressions(sources)),
        ("comprehensions", measures.comprehensions(sources)),
    ):
        yield Figure(f"{name} per 1,000 lines", 1000 * len(found) / lines)


def _print_table() -> int:
    words = find_words()
    found = measure_packages(read_sources(*PACKAGES))
    found.append(Figure("forbidden words in code and on pages", len(words), bound=0))
    rows = [(*figure.cells()[:3], figure.cells()[-1]) for figure in found]
    print(table(HEAD, rows), end="\n\n")
    print(table(("word", *CODE_AREAS, PAGES, "say"), word_rows(words)))
    return int(any(figure.reached is False for figure in found))


def _print_places(what: str, prefix: str) -> None:
    places = find_words() if what == "words" else LISTINGS[what](read_sources(*PACKAGES))
    for place in places:
        if place.path.startswith(prefix):
            print(place)


def main() -> int:
    """Print the table, or the places of one figure. Exit code 1 when a bound is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.code_figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = (*LISTINGS, "words")
    about = f"print the places that a figure counts: {', '.join(what)}"
    parser.add_argument("--list", metavar="WHAT", choices=what, help=about)
    parser.add_argument("prefix", nargs="?", default="", help="--list only: start of a path")
    options = parser.parse_args()
    if options.list is None:
        return _print_table()
    _print_places(options.list, options.prefix)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--list words | head` ends without a traceback
    sys.exit(main())
