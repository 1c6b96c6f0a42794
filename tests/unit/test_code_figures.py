"""The figures about the code: what each of them counts, and where it finds that."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.code_figures import measures
from benchmarks.code_figures.__main__ import measure_packages, word_rows
from benchmarks.code_figures.glossary import FORBIDDEN_WORDS, find_forbidden
from benchmarks.code_figures.sources import (
    ROOT,
    Place,
    Source,
    read_pages,
    read_sources,
    text_pieces,
    without_glossary,
)
from benchmarks.code_figures.words import WordPlace, find_words, words_in_code, words_in_pages


def make_source(text: str, path: str = "search/a.py") -> Source:
    """A file of the package `search` with that text."""
    return Source(path, text)


def whats(places: list[Place]) -> list[str]:
    """What was found, in order."""
    return [place.what for place in places]


class TestLines:
    def test_long(self) -> None:
        """A line of 100 characters is not too long, one of 101 is; it is found by its number."""
        source = make_source(f"{'a' * 100}\n{'b' * 101}\n")
        assert [(place.line, place.size) for place in measures.long_lines([source])] == [(2, 101)]

    def test_lengths(self) -> None:
        """Blank lines have no length; indentation counts."""
        assert measures.line_lengths([make_source("ab\n\n    \n  cd\n")]) == [2, 4]

    def test_skipped_formats(self) -> None:
        """Each line that keeps the formatter out is found."""
        source = make_source("a = 1\nb = (2,  3)  # fmt: skip\n")
        assert [place.line for place in measures.skipped_formats([source])] == [2]


class TestLengths:
    def test_files(self) -> None:
        """The longest file comes first, and an empty one has no length."""
        sources = [
            make_source("a\n", "search/short.py"),
            make_source("", "search/__init__.py"),
            make_source("a\nb\n", "search/long.py"),
        ]
        found = [(place.path, place.size) for place in measures.file_lengths(sources)]
        assert found == [("search/long.py", 2), ("search/short.py", 1)]

    def test_functions(self) -> None:
        """A function counts from `def` to its last line, without its docstring and decorators."""
        text = (
            'class A:\n    @property\n    def f(self):\n        """One\n\n        two.\n        """\n'
            "        return 1\n\n\nasync def g(): ...\n"
        )
        found = [
            (place.what, place.size) for place in measures.function_lengths([make_source(text)])
        ]
        assert found == [("f", 2), ("g", 1)]


class TestNames:
    TEXT = (
        "def run(): ...\ndef _load(): ...\ndef read_file(): ...\n"
        "class A:\n    def __len__(self): ...\n    def _as_dict(self): ...\n"
    )

    def test_single_words(self) -> None:
        """Leading underscores separate nothing, and special methods do not count."""
        assert whats(measures.single_words([make_source(self.TEXT)])) == ["run", "load"]

    def test_all(self) -> None:
        """Names are measured without leading underscores."""
        names = whats(measures.function_names([make_source(self.TEXT)]))
        assert names == ["run", "load", "read_file", "as_dict"]

    def test_loose_files(self) -> None:
        """Only files directly in the package's folder are loose; dunder files never are."""
        paths = ("search/a.py", "search/__init__.py", "search/cli/b.py", "storage/c.py")
        assert whats(measures.loose_files([make_source("", path) for path in paths])) == ["a.py"]

    def test_repeated(self) -> None:
        """A base name is repeated within one package only, and dunder files may be."""
        paths = (
            *("search/a.py", "search/cli/a.py", "search/b.py", "storage/b.py"),
            *("search/__init__.py", "search/cli/__init__.py"),
        )
        found = measures.repeated_names([make_source("", path) for path in paths])
        assert [(place.path, place.size) for place in found] == [
            ("search/a.py", 2),
            ("search/cli/a.py", 2),
        ]


class TestAddresses:
    @pytest.mark.parametrize(
        ("parameters", "found"),
        [
            ("url: str", True),
            ("study, *, store_url: str", True),
            ("url: str, /", True),
            ("url: Optional[str] = None", True),
            ("url: str | None", True),
            ("url: StoreLocation", False),
            ("url", False),
            ("path: str", False),
        ],
    )
    def test_found(self, parameters: str, found: bool) -> None:
        """A function takes an address as text when a parameter of that name is a string."""
        places = measures.address_functions([make_source(f"def f({parameters}): ...")])
        assert whats(places) == (["f"] if found else [])


class TestPublicMethods:
    def test_inherited(self) -> None:
        """What a class inherits from another file of the package counts once; private ones never."""
        base = "class Base:\n    def read(self): ...\n    def write(self): ...\n"
        child = (
            "class Child(base.Base, Generic[T], dict):\n    def write(self): ...\n"
            "    @property\n    def size(self): ...\n    def _open(self): ...\n"
            "    def __len__(self): ...\n"
        )
        sources = [make_source(base, "storage/base.py"), make_source(child, "storage/child.py")]
        found = [(place.what, place.size) for place in measures.public_methods(sources)]
        assert found == [("Child", 3), ("Base", 2)]

    def test_other_packages(self) -> None:
        """Classes of other packages are left out."""
        text = "class A:\n    def read(self): ...\n"
        assert measures.public_methods([make_source(text, "search/a.py")]) == []


class TestForms:
    def test_tuple_assignments(self) -> None:
        """Several values for several names count; unpacking one value, and a loop, do not."""
        text = "a, b = 1, 2\nc, d = pair\ne = 1, 2\nfor f, g in pairs: ...\n"
        places = measures.tuple_assignments([make_source(text)])
        assert whats(places) == ["a, b = 1, 2"]

    def test_conditional_expressions(self) -> None:
        """Every one counts, also within another; the statement `if` does not."""
        text = "a = 1 if x else 2 if y else 3\nif x:\n    pass\n"
        found = measures.conditional_expressions([make_source(text)])
        assert [place.line for place in found] == [1, 1]

    def test_comprehensions(self) -> None:
        """All four kinds count, in order of their lines."""
        text = (
            "a = [x for x in y]\nb = {x for x in y}\nc = {x: x for x in y}\nd = sum(x for x in y)\n"
        )
        found = measures.comprehensions([make_source(text)])
        assert [place.line for place in found] == [1, 2, 3, 4]


class TestTable:
    def test_figures(self) -> None:
        """Every bound is judged: a file that breaks the rules misses them, and a clean one meets them."""
        line = "a, b = 1, 2  # fmt: skip"
        bad = make_source(f"def run(url: str):\n    {line} {'x' * 100}\n", "search/a.py")
        clean = make_source("def read_the_file():\n    return 1\n", "search/__init__.py")

        missed = {figure.name for figure in measure_packages([bad]) if figure.reached is False}

        assert missed == {
            "lines over 100 characters",
            "lines that skip the formatter",
            "mean non-blank line",
            "functions named by a single word",
            "mean function name",
        }
        assert [f.name for f in measure_packages([clean]) if f.reached is False] == []

    def test_shares(self) -> None:
        """A share is in percent, and forms are counted per 1,000 lines, blank ones among them."""
        text = "def run(): ...\ndef read_it(): ...\n\na, b = 1, 2\n"
        found = {figure.name: figure.found for figure in measure_packages([make_source(text)])}
        assert found["functions named by a single word"] == 50
        assert found["tuple assignments per 1,000 lines"] == 250

    def test_words(self) -> None:
        """Words are counted by area, with what to say instead."""
        places = [
            WordPlace("search/a.py", 1, "mend"),
            WordPlace("tests/a.py", 1, "mend"),
            WordPlace("spaces/studies/a.yaml", 1, "mend"),
            WordPlace("README.md", 1, "mend"),
        ]
        rows = word_rows(places)
        assert ("mend", "1", "1", "2", "fix") in rows
        assert [row[0] for row in rows] == [word.word for word in FORBIDDEN_WORDS]


class TestForbiddenWords:
    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("what was told", "told"),
            ("Told by a worker", "told"),
            ("_told_store", "told"),
            ("it tells sixteen causes apart", "tell"),
            ("a trial that is held", "held"),
            ("in both books", "books"),
            ("mends", "mend"),
            ("made anew", "anew"),
            ("nobody", "nobody"),
            ("somebody's", "somebody"),
            ("whoever asks", "whoever"),
            ("of whom", "whom"),
            ("whose turn it is", "whose turn"),
            ("the epochs at hand", "at hand"),
            ("it lies\nbeside the store", "lies beside"),
            ("the search goes on", "go on"),
            ("GO_ON", "go on"),
            ("gave the old trial back", "give back"),
            ("give_back", "give back"),
            ("taken up", "take up"),
            ("takes the trial\nup again", "take up"),
        ],
    )
    def test_found(self, text: str, word: str) -> None:
        """Each word is found in all its forms, across a line break, and within a name."""
        assert [found.word.word for found in find_forbidden(text)] == [word]

    @pytest.mark.parametrize(
        "text",
        [
            "a held-out split",
            "withheld",
            "study.tell(trial, 0.5)",
            "the ask-and-tell interface",
            "a notebook",
            "recommended and amended",
            "it takes up to 3 s",
            "give the number of backends",
            "it goes one step on",
            "intelligence",
        ],
    )
    def test_free(self, text: str) -> None:
        """Words that only contain one, other people's names and plain English are left alone."""
        assert list(find_forbidden(text)) == []

    def test_line(self) -> None:
        """A finding has the line on which its phrase starts."""
        assert [found.line for found in find_forbidden("one\ntwo goes\non\n")] == [2]


class TestPieces:
    def test_names(self) -> None:
        """Names count where they are defined, split at their humps; a library's are not read."""
        text = (
            "import a as b\nfrom c import told\nclass StoreTold:\n    seen: int\n"
            "def f(x, *y, z=told.tell()):\n    v = self.w = told\n"
            "    try: ...\n    except E as e: ...\n"
        )
        names = {piece.text for piece in text_pieces(make_source(text)) if piece.kind == "name"}
        expected = {"search/a.py", "b", "Store_Told", "seen", "f", "x", "y", "z", "v", "w", "e"}
        assert names == expected

    def test_comments(self) -> None:
        """Comments on consecutive lines are one piece; a gap in the lines separates them."""
        text = "# one\n# two\n\na = 1  # three\n# four\n'# none'\n"
        found = [piece for piece in text_pieces(make_source(text)) if piece.kind == "comment"]
        assert [(piece.line, piece.text) for piece in found] == [
            (1, " one\n two"),
            (4, " three\n four"),
        ]

    def test_strings(self) -> None:
        """Docstrings, messages and the fixed parts of f-strings are read, each from its line."""
        text = '"""Doc."""\n\nraise E(f"one {two} three")\n'
        found = [piece for piece in text_pieces(make_source(text)) if piece.kind == "string"]
        assert [(piece.line, piece.text) for piece in found] == [
            (1, "Doc."),
            (3, "one "),
            (3, " three"),
        ]


class TestWords:
    def test_in_code(self) -> None:
        """A word in a name, a comment and a string is found, each with its line and its kind."""
        text = '"""First.\n\nIt is held.\n"""\n# nobody\nmended = 1\n'
        found = [(p.line, p.what, p.kind) for p in words_in_code([make_source(text)])]
        assert sorted(found) == [
            (3, "held", "string"),
            (5, "nobody", "comment"),
            (6, "mend", "name"),
        ]

    def test_file_name(self) -> None:
        """The name of a file is read as well."""
        found = words_in_code([make_source("", "search/books.py")])
        assert [str(place) for place in found] == [
            "search/books.py:1: books (name); say: Optuna's tables and ours"
        ]

    def test_lists_of_words(self) -> None:
        """A file that has to name the words may do so in its strings, and nowhere else."""
        source = make_source("a = 'told'\ntold = 1\n", "benchmarks/code_figures/glossary.py")
        assert [(place.line, place.kind) for place in words_in_code([source])] == [(2, "name")]

    def test_in_pages(self) -> None:
        """A page is read whole, but for the glossary, and keeps its line numbers."""
        page = "# A\ntold\n## Glossary\ntold\n### Part\nheld\n## Next\nheld\n"
        found = words_in_pages({"CONTRIBUTING.md": without_glossary(page)})
        assert [(place.line, place.what) for place in found] == [(2, "told"), (8, "held")]

    def test_project(self, tmp_path: Path) -> None:
        """Code, tests, benchmarks, docs, pages at the top and shipped studies are all read."""
        paths = (
            *("search/cli/a.py", "tests/unit/a.py", "benchmarks/a.py"),
            *("docs/a.md", "README.md", "spaces/studies/a.yaml"),
        )
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text("# nobody\n")

        found = find_words(tmp_path)

        assert sorted(place.path for place in found) == sorted(paths)
        assert {place.line for place in found} == {1}


class TestProject:
    def test_all_seen(self) -> None:
        """The files of this project are found: every package, the page of docs and the studies."""
        packages = {source.package for source in read_sources("spaces", "objectives", "storage")}
        pages = read_pages()
        assert packages == {"spaces", "objectives", "storage"}
        assert {"README.md", "docs/studies.md", "spaces/studies/focal_gamma.yaml"} <= set(pages)

    def test_glossary(self) -> None:
        """The glossary of CONTRIBUTING.md has every forbidden word in its column "don't say"."""
        page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        section = page.partition("\n## Glossary\n")[2].partition("\n## ")[0]
        rows = [line.split("|") for line in section.splitlines() if line.startswith("| ")]
        replaced = ", ".join(row[2].strip() for row in rows).split(", ")
        missing = {word.word for word in FORBIDDEN_WORDS} - set(replaced)
        assert missing == set()
