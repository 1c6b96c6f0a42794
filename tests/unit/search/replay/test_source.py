"""Recordings of studies and files, and their thresholds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from search.replay.source import load_source, study_recording
from spaces.config import Direction
from spaces.errors import InputError, StoreError
from spaces.recordings import RecordedStudy, read_recording, write_recording
from spaces.study import PrunerConfig
from spaces.thresholds import SIGNALS, SignalsConfig

if TYPE_CHECKING:
    from tests.unit.search.conftest import Demo


class TestStudyRecording:
    def test_states(self, demo: Demo) -> None:
        """Every numbered trial has its state, epochs and sampled values; an open one is running."""
        demo.filled()
        found = study_recording(demo.store, "focal_gamma")
        assert [(trial.number, trial.state, len(trial.epochs)) for trial in found.trials] == [
            (0, "complete", 4),
            (1, "complete", 4),
            (2, "pruned", 1),
            (3, "diverged", 2),
            (4, "failed", 0),
            (5, "running", 2),
        ]
        assert (found.trials[0].preset, found.trials[1].params["loss.gamma"]) == ("safe", 0.125)
        assert (found.study.name, found.study.metric.name, found.study.epochs) == (
            "focal_gamma",
            "miou",
            4,
        )

    def test_file(self, demo: Demo, tmp_path: Path) -> None:
        """A recording can be written to a file and read again."""
        demo.filled()
        found = study_recording(demo.store, "focal_gamma")
        write_recording(tmp_path / "out.jsonl.gz", found)
        again = read_recording(tmp_path / "out.jsonl.gz")
        assert again.study == found.study
        assert [trial.params for trial in again.trials] == [trial.params for trial in found.trials]

    def test_unknown(self, demo: Demo) -> None:
        """An unknown study is an error with its name."""
        with pytest.raises(StoreError, match="there is no study 'focal_gama'"):
            study_recording(demo.store, "focal_gama")


class TestSource:
    def test_study(self, demo: Demo) -> None:
        """A study has its own thresholds and pruner, with every signal enabled."""
        spec = demo.plan.spec
        signals = {name: {"enabled": False} for name in SIGNALS} | {
            "class_collapse": {"enabled": False, "epochs": 7}
        }
        demo.store.studies.redefine_study(
            demo.stored.id,
            spec.model_dump(mode="json") | {"signals": signals, "pruner": {"kind": "none"}},
        )
        found = load_source("focal_gamma", None, None, lambda: demo.store)
        assert all(getattr(found.signals, name).enabled for name in SIGNALS)
        assert (found.signals.class_collapse.epochs, found.pruner.kind) == (7, "none")

    def test_file(self, tmp_path: Path) -> None:
        """A file has the default thresholds, and a direction from the command line."""
        path = tmp_path / "curves.jsonl"
        path.write_text('{"epochs": [{"epoch": 1, "loss": 0.8, "metric": 0.45}]}')
        found = load_source(None, path, "minimize", lambda: pytest.fail("no store is needed"))
        assert (found.signals, found.pruner, found.recording.study.metric.direction) == (
            SignalsConfig(),
            PrunerConfig(),
            "minimize",
        )
        assert (
            load_source(None, path, None, lambda: pytest.fail("no store is needed")).recording.study
            == RecordedStudy()
        )

    @pytest.mark.parametrize(
        ("metric", "asked", "used"),
        [
            ({}, "minimize", "minimize"),
            ({"name": "ce"}, "minimize", "minimize"),
            ({"name": "ce", "direction": "minimize"}, "minimize", "minimize"),
        ],
    )
    def test_direction(
        self, tmp_path: Path, metric: dict[str, str], asked: Direction, used: str
    ) -> None:
        """A direction on the command line is for a file that has none, with or without a metric."""
        path = tmp_path / "curves.jsonl"
        study = {"metric": metric}
        path.write_text(
            json.dumps({"study": study, "epochs": [{"epoch": 1, "loss": 0.8, "metric": 0.45}]})
        )
        assert (
            load_source(
                None, path, asked, lambda: pytest.fail("no store is needed")
            ).recording.study.metric.direction
            == used
        )

    def test_other_direction(self, tmp_path: Path) -> None:
        """Another direction than the recorded one is an error, and so is any for a study."""
        path = tmp_path / "curves.jsonl"
        path.write_text(
            '{"study": {"metric": {"direction": "maximize"}}, '
            '"epochs": [{"epoch": 1, "loss": 0.8, "metric": 0.45}]}'
        )
        with pytest.raises(InputError, match=r"the metric in curves.jsonl is to be maximized"):
            load_source(None, path, "minimize", lambda: pytest.fail("no store is needed"))
        with pytest.raises(InputError, match="a study in the store has its own direction"):
            load_source("demo", None, "maximize", lambda: pytest.fail("nothing is opened"))

    @pytest.mark.parametrize(
        ("study", "records", "found"),
        [(None, None, "neither"), ("demo", Path("curves.jsonl"), "both")],
    )
    def test_one(self, study: str | None, records: Path | None, found: str) -> None:
        """Exactly one of study and file is replayed."""
        with pytest.raises(InputError, match="give either a study or a file to replay") as problem:
            load_source(study, records, None, lambda: pytest.fail("nothing is opened"))
        assert problem.value.found == found
