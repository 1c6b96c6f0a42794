"""One's own texts from files: what is read, and what is refused in one message."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from objectives.text import tables
from objectives.text.config import TableData
from objectives.text.tables import load_table
from spaces.errors import DataError

ROWS = [(f"good film number {n}", "praise") for n in range(12)] + [
    (f"bad film number {n}", "blame") for n in range(4)
]
VAL = [("a good one", "praise"), ("a bad one", "blame")]

Write = Callable[[str, list[tuple[Any, Any]]], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows as CSV, JSON Lines or Parquet, by the name of the file."""

    def as_file(name: str, rows: list[tuple[Any, Any]]) -> str:
        path = tmp_path / name
        if name.endswith(".csv"):
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("review", "verdict"), *rows])
        elif name.endswith(".jsonl"):
            path.write_text(
                "".join(
                    json.dumps({"review": text, "verdict": label}) + "\n" for text, label in rows
                ),
                encoding="utf-8",
            )
        else:
            texts, labels = zip(*rows, strict=True)
            pyarrow.parquet.write_table(
                pyarrow.table({"review": list(texts), "verdict": list(labels)}), path
            )
        return str(path)

    return as_file


def config(**given: Any) -> TableData:
    return TableData(**{"kind": "csv", "text": "review", "label": "verdict"} | given)


class TestRead:
    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_kinds(self, write: Write, kind: str) -> None:
        """Each kind of file gives the same texts; classes are sorted by name."""
        files = {
            split: write(f"{split}.{kind}", rows)
            for split, rows in (("train", ROWS), ("val", VAL), ("test", VAL))
        }
        texts = load_table(config(kind=kind, **files))
        assert texts.class_names == ("blame", "praise")
        assert texts.count_classes().counts == (4, 12)
        assert texts.train.texts == tuple(text for text, _ in ROWS)
        assert texts.val == texts.test
        assert texts.val.labels == (1, 0)

    def test_drawn(self, write: Write) -> None:
        """Without a validation file its texts are drawn of every class, the same ones each time; equal texts stay together, and no test is no error."""
        rows = [*ROWS, *ROWS[:3]]
        given = config(train=write("train.csv", rows), val_share=0.25)
        texts = load_table(given)
        assert Counter(texts.val.labels)[0] == 1
        assert not set(texts.val.texts) & set(texts.train.texts)
        assert len(texts.train.texts) + len(texts.val.texts) == len(rows)
        assert texts.test is None
        assert load_table(given) == texts
        assert load_table(given.model_copy(update={"seed": 1})) != texts

    def test_numbers(self, write: Write) -> None:
        """Numbers as labels are classes in the order of their size, and what only looks like one is a word."""
        rows = [
            (f"text {n} {label}", label)
            for label in (10.5, 9, -1, "--5", "²", "inf")
            for n in range(3)
        ]
        assert load_table(config(kind="jsonl", train=write("train.jsonl", rows))).class_names == (
            "-1",
            "9",
            "10.5",
            "--5",
            "inf",
            "²",
        )

    def test_large_share(self, write: Write) -> None:
        """However much is drawn for validation, every class keeps a text to learn from."""
        texts = load_table(
            config(
                train=write("train.csv", [*VAL, ("so good", "praise"), ("so bad", "blame")]),
                val_share=0.9,
            )
        )
        assert (Counter(texts.train.labels), Counter(texts.val.labels)) == (
            Counter({0: 1, 1: 1}),
            Counter({0: 1, 1: 1}),
        )

    def test_long(self, write: Write) -> None:
        """A text of any length is read; max_length cuts it off."""
        assert (
            len(
                load_table(
                    config(
                        train=write("train.csv", [*ROWS, ("so " * 100_000, "praise")]),
                        val=write("val.csv", VAL),
                    )
                ).train.texts[-1]
            )
            > 200_000
        )

    def test_datasets(self, tmp_path: Path) -> None:
        """A folder that `datasets` saved, with classes as numbers that have names, or as words."""
        texts, labels = [text for text, _ in ROWS], [label for _, label in ROWS]
        names = datasets.ClassLabel(names=["praise", "blame"])
        for kind, column in (
            ("words", labels),
            ("numbers", [names.str2int(label) for label in labels]),
        ):
            features = datasets.Features(
                {
                    "review": datasets.Value("string"),
                    "verdict": names if kind == "numbers" else datasets.Value("string"),
                }
            )
            datasets.Dataset.from_dict(
                {"review": texts, "verdict": column}, features=features
            ).save_to_disk(str(tmp_path / kind))
        found = [
            load_table(config(kind="datasets", train=str(tmp_path / kind)))
            for kind in ("words", "numbers")
        ]
        assert found[0] == found[1]
        assert found[0].class_names == ("blame", "praise")

    def test_order(self, write: Write) -> None:
        """Classes that are named keep their order."""
        assert load_table(
            config(train=write("train.csv", ROWS), classes=("praise", "blame"))
        ).class_names == ("praise", "blame")

    def test_marks(self, write: Write) -> None:
        """What class counts belong to changes with a file."""
        given = config(train=write("train.csv", ROWS))
        before = tables.file_marks(given)
        write("train.csv", ROWS[:-1])
        assert tables.file_marks(given) != before


class TestRefused:
    @pytest.mark.parametrize(
        ("rows", "changes", "what", "found"),
        [
            (
                ROWS,
                {"label": "verdikt"},
                "there is no column 'verdikt' (did you mean 'verdict'?)",
                "review, verdict",
            ),
            (ROWS, {"text": "txt"}, "there is no column 'txt'", "review, verdict"),
            ([*ROWS, ("  ", "praise")], {}, "a text is empty", "'  '"),
            ([*ROWS, ("a film", "")], {}, "a label is empty", "''"),
            (
                [*ROWS, ("one alone", "shrug")],
                {},
                "the class 'shrug' has no validation text",
                "no text of shrug",
            ),
            (
                [row for row in ROWS if row[1] == "praise"],
                {},
                "there is only one class",
                "'praise'",
            ),
            (
                ROWS,
                {"classes": ("praise", "blame", "shrug")},
                "the class 'shrug' has no training text",
                "no text of shrug",
            ),
            (
                ROWS,
                {"classes": ("praise", "blam")},
                "the label 'blame' is not one of the classes (did you mean 'blam'?)",
                "blame",
            ),
        ],
    )
    def test_rows(
        self,
        write: Write,
        rows: list[tuple[str, str]],
        changes: dict[str, Any],
        what: str,
        found: str,
    ) -> None:
        """A row that cannot be used is refused with its place and what was found."""
        path = write("train.csv", rows)
        with pytest.raises(DataError) as caught:
            load_table(config(train=path, **changes))
        assert caught.value.what.startswith(what)
        assert caught.value.found == found
        assert path in caught.value.where
        assert caught.value.next_step

    @pytest.mark.parametrize("split", ["val", "test"])
    def test_unseen(self, write: Write, split: str) -> None:
        """A label that training does not know is refused in the other splits, with its row."""
        files = {"val": write("val.csv", VAL)} | {
            split: write(f"{split}.csv", [*VAL, ("hm", "shrug")])
        }
        with pytest.raises(
            DataError, match="the label 'shrug' is not one of the classes"
        ) as caught:
            load_table(config(train=write("train.csv", ROWS), **files))
        assert "row 3, column 'verdict'" in caught.value.where

    def test_absent(self, tmp_path: Path) -> None:
        """A file that is not there is named, with the key that named it."""
        with pytest.raises(DataError, match="there is no file with the train texts") as caught:
            load_table(config(train=str(tmp_path / "none.csv")))
        assert caught.value.where == "base.data.train"

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", b"review,verdict\n\xff\xfe,x\n"),
            ("a.jsonl", b'{"review": "x"\n'),
            ("a.jsonl", b"[1]\n"),
            ("a.parquet", b"PAR1"),
            ("a.csv", b'review,verdict\n"no end,praise\n'),
        ],
    )
    def test_damaged(self, tmp_path: Path, name: str, content: bytes) -> None:
        """A file that is not what its kind says is refused by its name."""
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            load_table(config(kind=name.split(".")[1], train=str(path)))
        assert str(path) in caught.value.where

    def test_several_splits(self, tmp_path: Path) -> None:
        """A folder of several splits is refused with their names and how to name one."""
        split = datasets.Dataset.from_dict({"review": ["x"], "verdict": ["y"]})
        datasets.DatasetDict({"train": split, "test": split}).save_to_disk(str(tmp_path))
        with pytest.raises(DataError, match="the folder contains several splits") as caught:
            load_table(config(kind="datasets", train=str(tmp_path)))
        assert caught.value.found == "train, test"
        assert caught.value.next_step.startswith(f"name {tmp_path / 'train'}")

    @pytest.mark.parametrize(
        ("name", "content"), [("a.csv", b""), ("a.csv", b"review,verdict\n"), ("a.jsonl", b"\n")]
    )
    def test_no_row(self, tmp_path: Path, name: str, content: bytes) -> None:
        """A file without a row is refused."""
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match="there is no row") as caught:
            load_table(config(kind=name.split(".")[1], train=str(path)))
        assert caught.value.where == str(path)

    def test_bad_line(self, tmp_path: Path) -> None:
        """A line that is not valid JSON is refused with its number."""
        path = tmp_path / "a.jsonl"
        path.write_text('{"review": "x", "verdict": "y"}\n{"review": x}\n', encoding="utf-8")
        with pytest.raises(DataError, match="a line is not valid JSON") as caught:
            load_table(config(kind="jsonl", train=str(path)))
        assert caught.value.where == f"{path}, line 2, column 12"

    def test_not_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A reader that is not installed is named, with the command that installs it."""

        def absent(name: str) -> None:
            raise ModuleNotFoundError(name)

        monkeypatch.setattr(tables, "import_module", absent)
        with pytest.raises(
            DataError, match="reading datasets needs datasets, which is not installed"
        ) as caught:
            load_table(config(kind="datasets", train=str(tmp_path)))
        assert caught.value.next_step == "pip install datasets"
