"""Tables with a row for every log call become recorded trials."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.replay.convert import convert_tables
from search.replay.table_files import read_rows
from search.worker.tracker import flatten_record
from spaces.errors import RecordsError
from spaces.record_json import make_record as read_row
from spaces.records import EpochRecord

COLUMNS = {
    "loss": "train/loss",
    "metric": "val/miou",
    "val_loss": "val/loss",
    "class_metric": "val/iou_*",
}

WANDB_CSV = """,_step,epoch,train/loss,grad_norm,val/loss,val/miou,val/iou_road,val/iou_sign
0,0,0,0.9,3.0,,,,
1,1,0,0.7,5.0,,,,
2,2,0,,,0.85,0.30,0.6,0.0
3,3,1,0.5,2.0,,,,
4,4,1,,,0.65,0.40,0.7,0.1
"""
"""As `run.history().to_csv()` writes it: rows of steps and rows of epochs, counted from 0."""


def rows_of(*rows: dict[str, Any]) -> str:
    """JSON Lines."""
    return "\n".join(json.dumps(row) for row in rows)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """A file with that text."""

    def write(text: str, name: str = "run.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


class TestConvert:
    def test_wandb_csv(self, table: Callable[..., Path]) -> None:
        """Rows of an epoch are merged: the mean loss, the largest norm, the last other value."""
        (trial,) = convert_tables(
            [table(WANDB_CSV)], COLUMNS | {"grad_norm_max": "grad_norm"}, "maximize"
        ).trials
        first, second = trial.epochs
        assert (
            first.epoch,
            first.train_loss,
            first.grad_norm_max,
            first.val_loss,
            first.metric,
        ) == (1, pytest.approx(0.8), 5.0, 0.85, 0.30)
        assert (second.epoch, second.train_loss, second.class_metric) == (2, 0.5, (0.7, 0.1))
        assert (trial.state, trial.params) == ("complete", {"run": "run"})

    def test_json(self, table: Callable[..., Path]) -> None:
        """JSON Lines and an array are equal, and so are null, a missing cell and NaN."""
        rows = [
            {"epoch": 1, "train/loss": 0.5, "val/miou": None},
            {
                "epoch": 1,
                "train/loss": math.nan,
                "val/miou": 0.25,
                "val/loss": 1.0,
                "val/iou_a": 0.5,
            },
        ]
        lines, array = table(rows_of(*rows), "lines.jsonl"), table(json.dumps(rows), "array.json")
        runs = [
            convert_tables([path], COLUMNS, "maximize").trials[0].epochs for path in (lines, array)
        ]
        assert repr(runs[0]) == repr(runs[1])
        assert (runs[0][0].train_loss, runs[0][0].metric) == (0.5, 0.25)

    def test_nan(self, table: Callable[..., Path]) -> None:
        """An epoch with NaN losses diverged; one without a metric was not validated."""
        path = table(
            '{"epoch": 1, "loss": 0.5, "metric": 0.2}\n{"epoch": 2, "loss": NaN}\n'
            '{"epoch": 3, "metric": 0.1}',
            "run.jsonl",
        )
        epochs = convert_tables([path], {}, "maximize").trials[0].epochs
        assert [record.epoch for record in epochs] == [1, 2]
        assert (math.isnan(epochs[1].train_loss), math.isnan(epochs[1].metric)) == (True, True)

    def test_fractions(self, table: Callable[..., Path]) -> None:
        """Fractional epochs, as some trainers log them, belong to the epoch that contains them."""
        path = table("epoch,loss,metric\n0.5,3,\n1.0,1,\n1.0,,0.2\n1.5,1,\n2.0,,0.3\n")
        epochs = convert_tables([path], {}, "maximize").trials[0].epochs
        assert [(record.epoch, record.train_loss, record.metric) for record in epochs] == [
            (1, 2.0, 0.2),
            (2, 1.0, 0.3),
        ]

    @pytest.mark.parametrize(
        ("whole", "states"), [(False, ["complete", "pruned"]), (True, ["complete", "complete"])]
    )
    def test_short(self, table: Callable[..., Path], whole: bool, states: list[str]) -> None:
        """A run that is shorter than the longest counts as cut short, unless declared complete."""
        files = [
            table("epoch,loss,metric\n1,1,0.1\n2,1,0.1\n", "a.csv"),
            table("epoch,loss,metric\n1,1,0.1\n", "b.csv"),
        ]
        recording = convert_tables(files, {}, "minimize", whole=whole)
        assert [trial.state for trial in recording.trials] == states
        assert [trial.params["run"] for trial in recording.trials] == ["a", "b"]
        assert recording.study.metric.direction == "minimize"

    def test_own(self, table: Callable[..., Path], make_record: Callable[..., EpochRecord]) -> None:
        """Runs of `search run --wandb` need one named column."""
        record = make_record(1, grad_shares={}, class_metric=(0.9, 0.2, 0.0))
        path = table(rows_of(flatten_record(record, ("road", "car", "sign"))), "run.jsonl")
        (epoch,) = convert_tables([path], {"loss": "train_loss"}, "maximize").trials[0].epochs
        known = read_row(
            {
                "epoch": 1,
                "loss": record.train_loss,
                "metric": record.metric,
                "ce_loss": record.ce_loss,
                "dice_loss": record.dice_loss,
                "ce_weight": 0.6,
                "dice_weight": 0.4,
            }
        )
        assert (epoch.ce_loss, epoch.dice_loss, epoch.dice_weight) == (
            known.ce_loss,
            known.dice_loss,
            known.dice_weight,
        )
        assert (epoch.class_metric, epoch.val_loss, epoch.grad_norm_max) == (
            (0.9, 0.2, 0.0),
            record.val_loss,
            record.grad_norm_max,
        )

    def test_classes(self, table: Callable[..., Path]) -> None:
        """A class has the same place in every epoch and run, whatever the order of the keys."""
        rows = [
            {"class/road": 0.9, "class/car": 0.5, "class/sign": 0.1},
            {"class/sign": 0.2, "class/road": 0.8},
            {"class/car": 0.6, "class/sign": 0.3, "class/road": 0.7},
        ]
        plain = {"loss": 0.5, "metric": 0.2}
        first = table(
            rows_of(*({"epoch": epoch} | plain | row for epoch, row in enumerate(rows, 1))),
            "a.jsonl",
        )
        second = table("epoch,loss,metric,class/sign,class/car\n1,0.5,0.2,0.4,0.6\n", "b.csv")
        trials = convert_tables([first, second], {}, "maximize").trials
        assert [record.class_metric for record in trials[0].epochs] == [
            (0.9, 0.5, 0.1),
            (0.8, None, 0.2),
            (0.7, 0.6, 0.3),
        ]
        assert [record.class_metric for record in trials[1].epochs] == [(None, 0.6, 0.4)]

    @pytest.mark.parametrize(
        ("text", "columns", "what"),
        [
            (WANDB_CSV, {}, r"run.csv has no column 'loss' for loss \(did you mean"),
            (WANDB_CSV, COLUMNS | {"val_ce": "val/ce"}, "has no column 'val/ce' for val_ce"),
            (WANDB_CSV, {"los": "train/loss"}, r"unknown key 'los' \(did you mean 'loss'\?\)"),
            ("epoch,loss,metric\n1,low,0.1\n", {}, r"loss \(column 'loss'\) cannot be 'low'"),
            ("epoch,loss,metric\n,0.1,0.1\n", {}, "has no epoch with a loss"),
            ("", {}, "has no column 'epoch'"),
        ],
    )
    def test_refused(
        self, table: Callable[..., Path], text: str, columns: dict[str, str], what: str
    ) -> None:
        """A missing column, an unknown key, or a cell without a number is an error."""
        with pytest.raises(RecordsError, match=what) as found:
            convert_tables([table(text)], columns, "maximize")
        assert found.value.allowed

    @pytest.mark.parametrize(
        ("text", "name", "column"),
        [
            (
                "epoch,train/loss,metric\n1,0.5,0.1\n\n2,low,0.2\n",
                "run.csv",
                "loss (column 'train/loss')",
            ),
            (
                '{"epoch": 1, "train/loss": 1, "metric": 1}\n'
                '{"epoch": "low", "train/loss": 1, "metric": 1}',
                "run.jsonl",
                "epoch (column 'epoch')",
            ),
        ],
    )
    def test_row(self, table: Callable[..., Path], text: str, name: str, column: str) -> None:
        """The error of a bad cell has the file, the row and the column."""
        path = table(text, name)
        with pytest.raises(RecordsError) as caught:
            convert_tables([path], {"loss": "train/loss"}, "maximize")
        assert (caught.value.what, caught.value.where) == (
            f"{column} cannot be 'low'",
            f"{path}, row 2",
        )

    def test_twice(self, table: Callable[..., Path]) -> None:
        """A table given twice, under any spelling, is refused."""
        path = table("epoch,loss,metric\n1,0.5,0.1\n")
        for again in (path, path.parent / ".." / path.parent.name / path.name):
            with pytest.raises(RecordsError, match="is given twice") as caught:
                convert_tables([path, again], {}, "maximize")
            assert caught.value.found == f"{path}, {again}"


class TestReadRows:
    def test_line(self, table: Callable[..., Path]) -> None:
        """The error of a line that is not JSON has its number."""
        with pytest.raises(RecordsError, match=r"a line of run\.jsonl is not JSON") as caught:
            read_rows(table('{"epoch": 1}\n\n{"epoch": \n', "run.jsonl"))
        assert caught.value.where.endswith("run.jsonl, line 3")

    @pytest.mark.parametrize("text", ["{", "[1]", "3"])
    def test_refused(self, table: Callable[..., Path], text: str) -> None:
        """A file that is not a table is refused."""
        with pytest.raises(RecordsError):
            read_rows(table(text, "run.jsonl"))

    @pytest.mark.parametrize("row", ["1,0.5,0.1,9", "1,0.5"])
    def test_ragged(self, table: Callable[..., Path], row: str) -> None:
        """A row with another number of cells than the first line is refused with its line."""
        with pytest.raises(RecordsError, match=f"has {row.count(',') + 1} cells") as caught:
            read_rows(table(f"epoch,loss,metric\n0,1,1\n{row}\n", "x.csv"))
        assert caught.value.where.endswith("line 3")
        assert caught.value.allowed.startswith("3 cells")

    def test_absent(self, tmp_path: Path) -> None:
        """A missing file is refused."""
        with pytest.raises(RecordsError, match="cannot read"):
            read_rows(tmp_path / "none.csv")
