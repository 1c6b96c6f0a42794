"""One Weights & Biases run a trial, read back from the very files; and a broken wandb, which harms nothing."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from wandb.proto import wandb_internal_pb2 as protocol

from tests.acceptance.studies import repeatable, stored_records
from tests.integration.conftest import Ended

BLOCK = 32 * 1024
HEADER = struct.Struct("<IHB")
WHOLE, LAST = 1, 4


@dataclass
class Run:
    """What a run's file holds."""

    run_id: str = ""
    name: str = ""
    group: str = ""
    project: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read(path: Path) -> Run:
    """A run's file, as wandb itself would send it."""
    run = Run()
    for data in pieces(path.read_bytes()):
        record = protocol.Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run.run_id, run.name = record.run.run_id, record.run.display_name
                run.group, run.project = record.run.run_group, record.run.project
                run.config |= values(record.run.config.update)
            case "history":
                run.history.append(values(record.history.item))
            case "summary":
                run.summary |= values(record.summary.update)
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def pieces(log: bytes) -> Iterator[bytes]:
    """The records of a .wandb file, which is framed as LevelDB's log: blocks of 32 KiB, in them pieces with checksum, length and kind."""
    assert log.startswith(b":W&B")
    place, kept = HEADER.size, b""
    while place + HEADER.size <= len(log):
        room = BLOCK - place % BLOCK
        if room < HEADER.size:
            place += room  # no piece begins in the last bytes of a block
            continue
        _, length, kind = HEADER.unpack_from(log, place)
        kept += log[place + HEADER.size : place + HEADER.size + length]
        place += HEADER.size + length
        if kind in (WHOLE, LAST):
            yield kept
            kept = b""


def values(items: Any) -> dict[str, Any]:
    """Keys, nested ones with slashes, and their values."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture(scope="module")
def tracked(runs: dict[str, Ended]) -> dict[str, Run]:
    """Run id → what its file holds."""
    found = [
        read(path)
        for path in sorted((runs["sqlite"].folder / "wandb").glob("offline-run-*/*.wandb"))
    ]
    return {run.run_id: run for run in found}


class TestOffline:
    def test_one_run_a_trial(self, runs: dict[str, Ended], tracked: dict[str, Run]) -> None:
        """Every trial has one run, named by study and number, in the study's group."""
        assert (runs["sqlite"].answer.code, runs["sqlite"].answer.err) == (0, "")
        assert len(list((runs["sqlite"].folder / "wandb").glob("offline-run-*"))) == 4
        assert sorted(tracked) == ["tiny-0", "tiny-1", "tiny-2", "tiny-3"]
        assert {(run.name, run.group, run.project) for run in tracked.values()} == {
            (name, "tiny", "imbalance-search") for name in tracked
        }

    def test_config(self, runs: dict[str, Ended], tracked: dict[str, Run]) -> None:
        """A run's configuration is the trial's, and its preset."""
        for trial in runs["sqlite"].trials:
            reported = tracked[f"tiny-{trial.number}"].config
            assert {key: reported.get(key) for key in trial.config or {}} == trial.config
            assert reported["preset"] == trial.preset

    def test_figures(self, runs: dict[str, Ended], tracked: dict[str, Run]) -> None:
        """Every epoch is a step with all of its figures, the IoU of a class under the class's name."""
        classes = ("background", "digit_1", "digit_3", "digit_2", "digit_7", "digit_0", "digit_4")
        for number, records in stored_records(runs["sqlite"].url).items():
            history = tracked[f"tiny-{number}"].history
            assert (
                [step["_step"] for step in history]
                == [record.epoch for record in records]
                == [1, 2, 3, 4]
            )
            for step, record in zip(history, records, strict=True):
                plain = {
                    key: value
                    for key, value in asdict(record).items()
                    if isinstance(value, (int, float))
                }
                assert {key: step.get(key) for key in plain} == pytest.approx(plain)
                named = {
                    f"class/{name}": value
                    for name, value in zip(classes, record.class_metric, strict=True)
                }
                assert {key: step.get(key) for key in named} == pytest.approx(named)
                assert step["metrics/miou"] == pytest.approx(record.metric)
            assert history[-1].get("test/metric") == (
                pytest.approx(records[-1].test.metric) if records[-1].test else None
            )

    def test_verdict(self, runs: dict[str, Ended], tracked: dict[str, Run]) -> None:
        """A run ends well for wandb, and its summary says how the trial ended and why."""
        for trial in runs["sqlite"].trials:
            run = tracked[f"tiny-{trial.number}"]
            assert (run.summary["verdict"], run.summary["reason"]) == (trial.state, trial.reason)
            assert run.exit_code == 0


class TestBroken:
    @pytest.mark.parametrize("name", ["unwritable", "raising"])
    def test_harmless(self, runs: dict[str, Ended], name: str) -> None:
        """With a wandb that cannot write, or that raises, the trials are those of a healthy one; the worker's log says once that it is off."""
        broken, healthy = runs[name], runs["sqlite"]
        assert broken.answer.code == 0
        assert "Traceback" not in broken.answer.text
        assert [trial.state for trial in broken.trials] == ["complete", "complete"]
        assert [trial.score for trial in broken.trials] == [
            trial.score for trial in healthy.trials[:2]
        ]
        assert repeatable(stored_records(broken.url)) == {
            number: repeatable(stored_records(healthy.url))[number] for number in (0, 1)
        }
        log = (broken.folder / "search.files" / "tiny" / "worker-0.log").read_text()
        assert log.count("warning: wandb is off from here on: ") == 1
