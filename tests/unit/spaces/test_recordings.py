"""Recorded trials as JSON Lines: what is read, what stays unknown, and how bad input is refused."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spaces.errors import InputError, RecordsError
from spaces.record_json import make_record as read_row
from spaces.record_json import make_row
from spaces.recordings import (
    RecordedStudy,
    RecordedTrial,
    Recording,
    check_out,
    read_recording,
    write_recording,
)
from spaces.records import EpochRecord, InputFigures

NAN, INF = math.nan, math.inf
Write = Callable[..., Path]

EPOCH = {"epoch": 1, "loss": 0.8, "metric": 0.45}


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Write a file with the given lines: text as it is, anything else as JSON."""

    def write(*lines: Any, name: str = "curves.jsonl") -> Path:
        path = tmp_path / name
        path.write_text(
            "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines),
            encoding="utf-8",
        )
        return path

    return write


def trial(*metrics: float, **changes: Any) -> dict[str, Any]:
    """Make a line with an epoch for every metric."""
    return {
        "epochs": [
            {"epoch": epoch, "loss": 0.5, "metric": metric}
            for epoch, metric in enumerate(metrics, 1)
        ]
    } | changes


class TestMakeRecord:
    def test_least(self) -> None:
        """Epoch, loss and metric suffice; what is unknown is NaN, empty, or 0 observed steps."""
        record = read_row(EPOCH)
        assert (
            record.epoch,
            record.train_loss,
            record.ce_loss,
            record.dice_loss,
            record.metric,
        ) == (1, 0.8, 0.8, None, 0.45)
        assert (record.steps, record.class_metric, record.settled, record.broken_step) == (
            0,
            (),
            True,
            None,
        )
        assert all(
            math.isnan(value)
            for value in (
                record.val_loss,
                record.grad_norm_max,
                record.grad_norm_median,
                record.seconds,
            )
        )

    def test_all(self, make_record: Callable[..., EpochRecord]) -> None:
        """A complete record is read as it was written, except `used` and the test score."""
        record = make_record(
            3,
            broken_step=4,
            settled=False,
            grad_shares={"ce": 0.7, "dice": 0.3},
            class_grad_shares=(0.2, None, 0.8),
            inputs=InputFigures((0.5, 1.0), (0.1, 0.2), (0.0, 0.1), (0.0, 0.9), 0.25),
            val_inputs=InputFigures((0.5,), (0.1,), (0.0,), (0.0,), 0.0),
            target_shares=(0.9, 0.0, 0.1),
            skipped_steps=3,
            batch_norm_samples=8,
        )
        assert read_row(make_row(record)) == record

    @pytest.mark.parametrize("steps", [{}, {"steps": 7}])
    def test_norm(self, steps: dict[str, int]) -> None:
        """A known norm means at least one observed step; a missing median is the norm itself."""
        record = read_row(EPOCH | {"grad_norm_max": "NaN"} | steps)
        assert record.steps == steps.get("steps", 1)
        assert math.isnan(record.grad_norm_max)
        assert read_row(EPOCH | {"grad_norm_max": 3.0}).grad_norm_median == 3.0

    @pytest.mark.parametrize("without", ["ce_loss", "ce_weight", "dice_weight"])
    def test_parts(self, without: str) -> None:
        """A loss with parts but without their weights counts as one part."""
        parts = {"ce_loss": 0.7, "dice_loss": 0.9, "ce_weight": 0.6, "dice_weight": 0.4}
        whole, less = (
            read_row(EPOCH | parts),
            read_row(EPOCH | {key: value for key, value in parts.items() if key != without}),
        )
        assert (whole.ce_loss, whole.dice_loss, whole.ce_weight, whole.dice_weight) == (
            0.7,
            0.9,
            0.6,
            0.4,
        )
        assert (less.ce_loss, less.dice_loss, less.ce_weight, less.dice_weight) == (
            0.8,
            None,
            1.0,
            0.0,
        )
        assert read_row(EPOCH | parts | {"dice_loss": None}).dice_loss is None

    @pytest.mark.parametrize(
        ("given", "value"),
        [
            ("NaN", NAN),
            ("nan", NAN),
            ("-Infinity", -INF),
            ("inf", INF),
            ("+inf", INF),
            (NAN, NAN),
            (3, 3.0),
        ],
    )
    def test_numbers(self, given: Any, value: float) -> None:
        """NaN and infinities may be text, which JSON cannot express, or Python's own numbers."""
        record = read_row({"epoch": 2.0, "loss": given, "metric": None})
        assert record.train_loss == pytest.approx(value, nan_ok=True)
        assert (record.epoch, math.isnan(record.metric)) == (2, True)

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"epoch": 0}, "epoch cannot be 0"),
            ({"epoch": 1.5}, "epoch cannot be 1.5"),
            ({"epoch": True}, "epoch cannot be True"),
            ({"loss": "low"}, "loss cannot be 'low'"),
            ({"loss": "+-inf"}, r"loss cannot be '\+-inf'"),
            ({"loss": "--Infinity"}, "loss cannot be '--Infinity'"),
            ({"loss": None}, "a loss is null"),
            ({"loss": 10**400}, "loss cannot be 1000"),
            ({"metric": [0.4]}, r"metric cannot be \[0.4\]"),
            ({"class_metric": 0.4}, "class_metric cannot be 0.4"),
            ({"class_metric": [0.4, "x"]}, "cannot be 'x'"),
            ({"metrics": [0.4]}, r"metrics cannot be \[0.4\]"),
            ({"settled": 1}, "settled cannot be 1"),
            ({"val_loss": False}, "val_loss cannot be False"),
            ({"grad_norm_max": 1.0, "steps": -1}, "steps cannot be -1"),
            ({"inputs": {"mean": [0.5]}}, "inputs cannot be"),
            ({"target_shares": 0.5}, "target_shares cannot be 0.5"),
            ({"skipped_steps": 0.5}, "skipped_steps cannot be 0.5"),
        ],
    )
    def test_wrong(self, changes: dict[str, Any], what: str) -> None:
        """A value of another type is refused, with its place, the value and what is allowed."""
        with pytest.raises(RecordsError, match=what) as found:
            read_row(EPOCH | changes, "line 3 → epochs[0]")
        assert found.value.where.startswith("line 3 → epochs[0]")
        assert found.value.allowed

    @pytest.mark.parametrize("key", list(EPOCH))
    def test_missing(self, key: str) -> None:
        """A row without epoch, loss or metric is refused."""
        with pytest.raises(RecordsError, match=f"an epoch has no {key}"):
            read_row({name: value for name, value in EPOCH.items() if name != key})

    def test_other_keys(self) -> None:
        """Other keys are ignored."""
        assert repr(read_row(EPOCH | {"gpu": "hot", "used": {"x": 1}})) == repr(
            read_row(EPOCH)
        )  # NaN equals nothing


class TestRead:
    def test_least(self, written: Write) -> None:
        """A line with nothing but epochs is a complete trial, numbered by its line."""
        recording = read_recording(written(trial(0.1, 0.2), "", trial(0.3)))
        assert [
            (trial.number, trial.state, len(trial.epochs), trial.params)
            for trial in recording.trials
        ] == [(0, "complete", 2, {}), (1, "complete", 1, {})]
        assert (recording.study.name, recording.study.metric.direction, recording.study.epochs) == (
            "records",
            "maximize",
            None,
        )

    def test_numbers(self, written: Write) -> None:
        """Trials are sorted by their numbers."""
        recording = read_recording(
            written(
                trial(0.1, number=7, state="pruned", params={"loss.gamma": 2}), trial(0.2, number=2)
            )
        )
        assert [(trial.number, trial.state) for trial in recording.trials] == [
            (2, "complete"),
            (7, "pruned"),
        ]
        assert recording.trials[1].params == {"loss.gamma": 2}

    @pytest.mark.parametrize("name", ["curves.jsonl.gz", "curves"])
    def test_compressed(self, tmp_path: Path, name: str) -> None:
        """A compressed file is recognized by its content, whatever its name."""
        path = tmp_path / name
        path.write_bytes(gzip.compress(json.dumps(trial(0.1)).encode()))
        assert len(read_recording(path).trials) == 1

    def test_sensible(self, written: Write) -> None:
        """Trials with gaps, NaN, a single epoch or none are read."""
        gaps = {"epochs": [EPOCH | {"epoch": 2}, EPOCH | {"epoch": 9, "metric": NAN}]}
        trials = read_recording(written(gaps, trial(0.5), trial(state="failed"))).trials
        assert [[record.epoch for record in trial.epochs] for trial in trials] == [[2, 9], [1], []]

    def test_absent_classes(self, written: Write) -> None:
        """An epoch without validation may have no classes."""
        rows = [
            EPOCH | {"class_metric": [0.1, None]},
            EPOCH | {"epoch": 2},
            EPOCH | {"epoch": 3, "class_metric": [0.2, None]},
        ]
        assert [
            record.class_metric
            for record in read_recording(written({"epochs": rows})).trials[0].epochs
        ] == [(0.1, None), (), (0.2, None)]

    @pytest.mark.parametrize(
        ("line", "what", "place"),
        [
            ("{", "is not JSON", ", line 2"),
            ("[" * 100_000, "is not JSON", ", line 2"),
            ([1], "is no trial", ", line 2"),
            ({"params": {}}, "a trial has no epochs", ", line 2"),
            ({"epochs": {"1": EPOCH}}, "epochs cannot be", ", line 2"),
            ({"epochs": [3]}, r"epochs\[0\] cannot be 3", ", line 2 → epochs[0]"),
            (
                {"epochs": [EPOCH, {"epoch": 2, "loss": 1}]},
                "an epoch has no metric",
                ", line 2 → epochs[1]",
            ),
            ({"epochs": [EPOCH, EPOCH]}, "epoch 1 is given twice", ", line 2 → epochs[1]"),
            (
                {"epochs": [EPOCH | {"epoch": 2}, EPOCH]},
                "epoch 1 comes after epoch 2",
                ", line 2 → epochs[1]",
            ),
            (
                {
                    "epochs": [
                        EPOCH | {"class_metric": [0.1]},
                        EPOCH | {"epoch": 2, "class_metric": [0.1, 0.2]},
                    ]
                },
                "the number of classes changes",
                ", line 2 → epochs[1] → class_metric",
            ),
            (
                trial(0.1, state="prunned"),
                r"unknown state 'prunned' \(did you mean 'pruned'\?\)",
                ", line 2 → state",
            ),
            (trial(0.1, number=-1), "number cannot be -1", ", line 2 → number"),
            (trial(0.1, number=0), "two trials have the number 0", ", line 2"),
            (trial(0.1, params=[1]), "params cannot be", ", line 2 → params"),
            (
                trial(0.1, study={"name": "other"}),
                "mixes trials of different studies",
                ", line 2 → study",
            ),
            (
                trial(0.1, study={"epoks": 3}),
                r"unknown key 'epoks' \(did you mean 'epochs'\?\)",
                ", line 2",
            ),
        ],
    )
    def test_wrong(self, written: Write, line: Any, what: str, place: str) -> None:
        """A line that cannot be used is one error with the file and the line."""
        path = written(trial(0.1), line)
        with pytest.raises(RecordsError, match=what) as found:
            read_recording(path)
        assert found.value.where.startswith(f"{path}{place}")
        assert "\n" not in found.value.what
        assert found.value.allowed

    def test_nothing(self, written: Write) -> None:
        """A file without a trial is refused."""
        with pytest.raises(RecordsError, match=r"curves.jsonl contains no trial"):
            read_recording(written("", " "))

    def test_unreadable(self, tmp_path: Path) -> None:
        """A file that is missing, is no text or is cut off within its gzip stream is refused."""
        text, half = tmp_path / "text", tmp_path / "half.gz"
        text.write_bytes(b"\xff\xfe\xfa")
        half.write_bytes(gzip.compress(b"x" * 1000)[:-12])
        for path, found in (
            (tmp_path / "none", "No such file"),
            (tmp_path, "Is a directory"),
            (text, "not UTF-8 text"),
            (half, "broken gzip"),
        ):
            with pytest.raises(InputError) as problem:
                read_recording(path)
            assert found in problem.value.found


class TestWrite:
    @pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
    def test_round_trip(
        self, tmp_path: Path, make_record: Callable[..., EpochRecord], name: str
    ) -> None:
        """A written file, compressed by its name, is read back with NaN and infinity."""
        broken = make_record(
            2,
            train_loss=NAN,
            metric=NAN,
            grad_norm_max=INF,
            val_loss=NAN,
            broken_step=3,
            class_metric=(None, None, None),
        )
        trials = (
            RecordedTrial(
                0,
                (make_record(1), broken),
                "failed",
                {"loss.gamma": 2.5, "optimizer.grad_clip_norm": None},
                "safe",
            ),
            RecordedTrial(3, ()),
        )
        written = Recording(RecordedStudy(name="demo", epochs=30), trials)
        write_recording(tmp_path / name, written)
        found = read_recording(tmp_path / name)
        assert repr(found) == repr(written)  # NaN equals nothing, so compare the texts
        assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")

    def test_json(self, tmp_path: Path, make_record: Callable[..., EpochRecord]) -> None:
        """The lines are JSON for any reader, with floats rounded to five digits."""
        path = tmp_path / "out.jsonl"
        write_recording(
            path,
            Recording(
                RecordedStudy(),
                (RecordedTrial(0, (make_record(1, train_loss=INF, metric=0.123456789),)),),
            ),
        )
        line = json.loads(
            path.read_text(encoding="utf-8"), parse_constant=lambda word: pytest.fail(word)
        )
        assert (line["epochs"][0]["loss"], line["epochs"][0]["metric"]) == ("Infinity", 0.12346)

    @pytest.mark.parametrize(
        ("out", "found"),
        [
            ("nowhere/x.jsonl", "no folder"),
            ("", "a folder"),
            ("there.txt/x.jsonl", "is not a folder"),
        ],
    )
    def test_unwritable(self, tmp_path: Path, out: str, found: str) -> None:
        """A path that cannot be written is one error, before the work and at its end."""
        (tmp_path / "there.txt").write_text("")
        for write in (
            check_out,
            lambda path: write_recording(path, Recording(RecordedStudy(), ())),
        ):
            with pytest.raises(RecordsError, match="cannot write") as problem:
                write(tmp_path / out)
            assert problem.value.where == str(tmp_path / out)
            assert "--out" in problem.value.next_step
        with pytest.raises(RecordsError) as problem:
            check_out(tmp_path / out)
        assert found in problem.value.found
        check_out(tmp_path / "there.txt")

    def test_unknown(self, tmp_path: Path) -> None:
        """What is unknown is left out, and is unknown when read again."""
        record = read_row(EPOCH)
        assert make_row(record) == EPOCH | {
            "ce_loss": 0.8,
            "ce_weight": 1.0,
            "dice_weight": 0.0,
            "smooth": 1.0,
            "weight_ratio": 1.0,
            "clipped_share": 0.0,
        }
        assert repr(read_row(make_row(record))) == repr(record)
        assert make_row(replace(record, steps=1))["grad_norm_max"] == "NaN"
