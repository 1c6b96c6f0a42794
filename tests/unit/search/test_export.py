"""best.yaml: exported from a real store, written and read back unchanged."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.export import (
    Export,
    check_out,
    check_output_path,
    load_export,
    make_export,
    write_export,
)
from search.planning.plan import Plan, make_plan
from search.retrain import Retraining
from spaces.errors import ConfigError, DeviceError, StoreError
from spaces.loader import load_study
from spaces.records import EpochRecord, TestScore
from storage.location import StoreLocation
from storage.rows import FinalState, Outcome, StoredStudy
from storage.store import Store

NAN = math.nan
USED = {
    "environment.device": "cpu",
    "environment.threads": 2,
    "environment.torch": "2.0.0+cpu",
    "environment.classes": ["road", "sky", "pedestrian"],
}
TEST = TestScore(0.36, (0.8, None, 0.1))


class Finished:
    """A store with a study and trials that ended."""

    def __init__(
        self, store: Store, make_record: Callable[..., EpochRecord], **changes: Any
    ) -> None:
        self.store, self.make = store, make_record
        self.plan: Plan = make_plan(load_study("focal_gamma", changes))
        self.stored: StoredStudy = store.studies.register_study(
            1, self.plan.spec.name, self.plan.spec.model_dump(mode="json")
        )
        self.count = 0

    def trial(
        self,
        score: float | None,
        metrics: tuple[float, ...] = (0.2, 0.37, 0.3),
        state: FinalState = "complete",
        preset: str | None = None,
    ) -> None:
        """Add a trial with these metrics."""
        claim = self.store.leases.claim_trial(self.stored.id, 100, "box:1", 600)
        assert claim is not None
        config = self.plan.make_config(
            {"loss.gamma": 1 / 3, "optimizer.lr_multiple": 1e-05 + 0.03}, self.count, preset
        )
        claim = self.store.leases.bind_trial(
            claim, self.count, self.count, config.model_dump(mode="json"), preset
        )
        for epoch, metric in enumerate(metrics, 1):
            test = TEST if epoch == len(metrics) else None
            self.store.epochs.append_epoch(
                claim,
                self.make(
                    epoch, metric=metric, class_metric=(0.9, None, epoch / 10), used=USED, test=test
                ),
                600,
            )
        self.store.leases.finish_trial(claim, Outcome(state, score=score))
        self.count += 1

    def export(self, number: int | None = None) -> Export:
        """Export a trial, or the best one."""
        return make_export(self.store, self.stored, number)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    """A fresh store."""
    with StoreLocation.parse(sqlite_url).open() as opened:
        yield opened


@pytest.fixture
def finished(store: Store, make_record: Callable[..., EpochRecord]) -> Finished:
    """Three trials, the second of them the best."""
    made = Finished(store, make_record)
    made.trial(0.3)
    made.trial(0.37, preset="safe")
    made.trial(0.35)
    return made


@pytest.fixture
def file(request: pytest.FixtureRequest, tmp_path: Path, written: dict[str, str]) -> Path:
    """Write the export of the best trial."""
    path = tmp_path / "best.yaml"
    if not written:
        write_export(request.getfixturevalue("finished").export(), path)
        written["best.yaml"] = path.read_text()
    path.write_text(written["best.yaml"])
    return path


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """Cache the text of files, because filling a store is slow."""
    return {}


def edited(file: Path, edit: Callable[[Any], object]) -> Path:
    """Change the file."""
    data = yaml.safe_load(file.read_text())
    edit(data)
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return file


class TestMakeExport:
    def test_best(self, finished: Finished) -> None:
        """The best complete trial is exported, with the configuration that was trained."""
        export = finished.export()
        assert export.provenance.trial == 1
        assert export.trial_config() == finished.plan.make_config(
            {"loss.gamma": 1 / 3, "optimizer.lr_multiple": 1e-05 + 0.03}, 1, "safe"
        )

    def test_score(self, finished: Finished) -> None:
        """Scores are those of validation at the best epoch and of the test, classes by name."""
        score = finished.export().score
        assert (score.metric, score.direction, score.rule, score.validation, score.test) == (
            "miou",
            "maximize",
            "best",
            0.37,
            0.36,
        )
        assert (score.best_epoch, score.epochs) == (2, 3)
        assert {name: (one.validation, one.test) for name, one in score.classes.items()} == {
            "road": (0.9, 0.8),
            "sky": (None, None),
            "pedestrian": (0.2, 0.1),
        }

    def test_provenance(self, finished: Finished) -> None:
        """The origin has the torch version of the training, not the installed one."""
        source = finished.export().provenance
        assert (source.study, source.preset, source.device, source.threads) == (
            "focal_gamma",
            "safe",
            "cpu",
            2,
        )
        assert source.store == finished.store.where
        assert source.versions["torch"] == "2.0.0+cpu"
        assert {
            "python",
            "optuna",
            "numpy",
            "segmentation-models-pytorch",
        } <= source.versions.keys()

    def test_lowest(self, store: Store, make_record: Callable[..., EpochRecord]) -> None:
        """If lower is better, the best trial and its best epoch are the lowest."""
        made = Finished(store, make_record, metric={"name": "val_ce", "direction": "minimize"})
        made.trial(0.9, (0.9, 1.0))
        made.trial(0.4, (0.8, 0.4, 0.6))
        assert (made.export().provenance.trial, made.export().score.best_epoch) == (1, 2)

    def test_last(self, store: Store, make_record: Callable[..., EpochRecord]) -> None:
        """If the last epoch is the score, the classes are those of the last epoch."""
        made = Finished(store, make_record, metric={"name": "miou", "score": "last"})
        made.trial(0.3)
        assert made.export().score.classes["pedestrian"].validation == 0.3

    def test_numbered(self, finished: Finished) -> None:
        """Any trial with a score can be exported, a pruned one, too."""
        finished.trial(0.1, (0.1,), state="pruned")
        assert (finished.export(2).score.validation, finished.export(3).score.validation) == (
            0.35,
            0.1,
        )

    def test_only_complete(self, finished: Finished) -> None:
        """A trial that was stopped is never the best, whatever its score."""
        finished.trial(0.99, state="diverged")
        assert finished.export().provenance.trial == 1

    def test_none_complete(self, store: Store, make_record: Callable[..., EpochRecord]) -> None:
        """Without a complete trial there is none to export."""
        made = Finished(store, make_record)
        made.trial(0.1, (0.1,), state="pruned")
        with pytest.raises(StoreError, match="no trial of the study is complete"):
            made.export()

    def test_unknown(self, finished: Finished) -> None:
        """A number that no trial has is refused with those that exist."""
        with pytest.raises(StoreError, match="there is no trial 9") as caught:
            finished.export(9)
        assert (caught.value.found, caught.value.allowed) == ("9", "0, 1, 2")

    def test_no_score(self, finished: Finished) -> None:
        """A trial without a score is refused, with its state."""
        finished.trial(None, (), state="failed")
        with pytest.raises(StoreError, match="trial 3 has no score: it is failed"):
            finished.export(3)

    def test_never_a_number(self, finished: Finished) -> None:
        """A trial with a NaN score is refused like one without a score."""
        finished.trial(NAN, (NAN,), state="diverged")
        with pytest.raises(StoreError, match="trial 3"):
            finished.export(3)


class TestRoundTrip:
    def test_equal(self, finished: Finished, tmp_path: Path) -> None:
        """A written export is read back unchanged, to the last bit of every number."""
        export = finished.export()
        write_export(export, tmp_path / "best.yaml")
        loaded = load_export(tmp_path / "best.yaml")
        assert loaded == export
        assert loaded.trial_config() == export.trial_config()
        config: Any = loaded.trial_config()
        assert (config.loss.gamma, config.optimizer.lr_multiple) == (1 / 3, 1e-05 + 0.03)

    def test_again(self, file: Path) -> None:
        """An export that is read and written again is the same file."""
        before = file.read_bytes()
        write_export(load_export(file), file)
        assert file.read_bytes() == before

    def test_read_by_people(self, file: Path) -> None:
        """The file starts with what it is and how to train it again."""
        assert file.read_text().splitlines()[:2] == [
            "# Trial 1 of the study focal_gamma: miou 0.3700 on validation.",
            "# Train it again and compare: search train best.yaml",
        ]


class TestWriteExport:
    def test_own(self, finished: Finished, file: Path) -> None:
        """An earlier export is replaced."""
        write_export(finished.export(0), file)
        assert load_export(file).provenance.trial == 0

    @pytest.mark.parametrize(
        "text",
        ["", "precious\n", "config: 1\n", "- config\n- score\n", "a: [\n", "5\n", "- {a: 1}\n"],
    )
    def test_foreign(self, finished: Finished, tmp_path: Path, text: str) -> None:
        """Any other file is not overwritten."""
        path = tmp_path / "notes.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match="another file has this path") as caught:
            write_export(finished.export(), path)
        assert path.read_text() == text
        assert (caught.value.where, caught.value.next_step) == (
            str(path),
            "choose another path with --out",
        )

    def test_binary(self, finished: Finished, tmp_path: Path) -> None:
        """A file that is no text is not overwritten."""
        (tmp_path / "model.pt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="another file has this path"):
            write_export(finished.export(), tmp_path / "model.pt")

    @pytest.mark.parametrize(
        ("place", "found", "next_step"),
        [
            ("a/b/best.yaml", "there is no folder {}/a/b", "`mkdir -p {}/a/b`, or "),
            ("", "a folder", "--out {}/NAME"),
            ("file/best.yaml", "{}/file is not a folder", "--out"),
        ],
    )
    def test_no_place(
        self, finished: Finished, tmp_path: Path, place: str, found: str, next_step: str
    ) -> None:
        """A path where no file can be written is refused, with what to do; no folder is created."""
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(ConfigError, match="the file cannot be written") as caught:
            write_export(finished.export(), tmp_path / place)
        assert (caught.value.where, caught.value.found) == (
            str(tmp_path / place),
            found.format(tmp_path),
        )
        assert next_step.format(tmp_path) in caught.value.next_step
        assert [
            path.name for path in tmp_path.iterdir() if not path.name.startswith("search.db")
        ] == ["file"]

    def test_device(self) -> None:
        """A device such as /dev/null is never replaced by a file."""
        for check in (check_out, lambda path: check_output_path(path, "--save")):
            with pytest.raises(ConfigError):
                check(Path("/dev/null"))
        assert not Path("/dev/null").is_file()

    def test_full(
        self, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A failed write leaves no partial file."""

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(ConfigError, match="the file cannot be written") as caught:
            write_export(finished.export(), tmp_path / "best.yaml")
        assert caught.value.found == "No space left on device"
        assert [
            path.name for path in tmp_path.iterdir() if not path.name.startswith("search.db")
        ] == []

    def test_rights(self, file: Path, tmp_path: Path) -> None:
        """The file has the permissions of any new file."""
        write_export(load_export(file), tmp_path / "fresh.yaml")
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE((tmp_path / "fresh.yaml").stat().st_mode) == 0o666 & ~umask


class TestLoadExport:
    @pytest.mark.parametrize(
        "key",
        [
            "data",
            "model",
            "weights",
            "loss",
            "optimizer",
            "schedule",
            "batch_size",
            "epochs",
            "seed",
            "metric",
        ],
    )
    def test_missing(self, file: Path, key: str) -> None:
        """A missing section of the configuration is refused instead of its default."""
        with pytest.raises(ConfigError, match=f"the key '{key}' is missing") as caught:
            load_export(edited(file, lambda data: data["config"].pop(key)))
        assert str(file) in caught.value.where
        assert key in caught.value.allowed

    def test_missing_below(self, file: Path) -> None:
        """A missing key within a section is refused as well."""
        with pytest.raises(ConfigError, match="gamma"):
            load_export(edited(file, lambda data: data["config"]["loss"].pop("gamma")))

    @pytest.mark.parametrize(
        ("edit", "what", "where"),
        [
            (lambda data: data.pop("score"), "the key 'score' is missing", "score"),
            (
                lambda data: data["score"].pop("validation"),
                "the key 'validation' is missing",
                "score → validation",
            ),
            (lambda data: data.update(format=2), "format cannot be 2", ", line"),
            (lambda data: data.update(notes=1), "unknown key 'notes'", "notes"),
            (
                lambda data: data["config"]["loss"].update(gamma=-1),
                "gamma: input should be greater",
                "config, loss → gamma",
            ),
            (
                lambda data: data["config"]["loss"].update(gama=1),
                "unknown key 'gama' (did you mean 'gamma'?)",
                "config, loss → gama",
            ),
            (
                lambda data: data["config"]["metric"].update(name="mious"),
                "unknown metric 'mious' (did you mean 'miou'?)",
                "config → metric → name",
            ),
            (
                lambda data: data["provenance"].update(threads=-1),
                "threads: input should be greater",
                "provenance → threads",
            ),
            (
                lambda data: data["config"].update(batch_size="x"),
                "batch_size: input should be a valid integer",
                "config, batch_size",
            ),
        ],
    )
    def test_wrong(self, file: Path, edit: Callable[[Any], object], what: str, where: str) -> None:
        """A damaged file is refused, with the file, the path and what is wrong there."""
        with pytest.raises(ConfigError) as caught:
            load_export(edited(file, edit))
        assert what in caught.value.what
        assert str(file) in caught.value.where
        assert where in caught.value.where

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"", "contains no mapping"),
            (b"# no more\n", "contains no mapping"),
            (b"- 1\n", "contains no mapping"),
            (b"\xff\xfe\x00", "cannot read"),
            (b"\x00", "is not valid YAML"),
            (b"a: 2026-99-99\n", "is not valid YAML"),
            (b"{" * 5000, "is not valid YAML"),
            (b"a: !!python/name:os.system\n", "is not valid YAML"),
        ],
    )
    def test_no_export(self, tmp_path: Path, content: bytes, what: str) -> None:
        """A file that is no export is refused and kept."""
        path = tmp_path / "best.yaml"
        path.write_bytes(content)
        for refused in (load_export, check_out):
            with pytest.raises(ConfigError) as caught:
                refused(path)
            assert caught.value.where.startswith(str(path))
            assert what in caught.value.what or refused is check_out
        assert path.read_bytes() == content

    def test_folder(self, tmp_path: Path) -> None:
        """A folder is refused."""
        with pytest.raises(ConfigError, match="cannot read") as caught:
            load_export(tmp_path)
        assert (caught.value.where, caught.value.found) == (str(tmp_path), "Is a directory")

    def test_cut_off(self, file: Path) -> None:
        """A file that was cut off within its first two thirds is refused with its name."""
        text = file.read_text(encoding="utf-8")
        for kept in range(0, len(text) * 2 // 3, 149):
            file.write_text(text[:kept], encoding="utf-8")
            with pytest.raises(ConfigError) as caught:
                load_export(file)
            assert caught.value.where.startswith(str(file))

    def test_device(self, file: Path) -> None:
        """A device that does not exist here is refused with the option for another."""
        export = load_export(
            edited(file, lambda data: data["provenance"].update(device="cuda:99 (a card)"))
        )
        for device, where in ((None, "provenance → device of the export"), ("cuda:98", "--device")):
            with pytest.raises(DeviceError) as caught:
                Retraining(export, device)
            assert caught.value.where.startswith(where)
            assert "--device" in caught.value.next_step

    def test_other_objective(self, file: Path) -> None:
        """An unknown objective is refused as an error in the file."""
        with pytest.raises(ConfigError, match="unknown objective 'detection'"):
            load_export(edited(file, lambda data: data["config"].update(objective="detection")))

    def test_study(self, tmp_path: Path) -> None:
        """A study's YAML is refused as an export."""
        path = tmp_path / "study.yaml"
        path.write_text("name: mine\n")
        with pytest.raises(ConfigError, match="unknown key 'name'"):
            load_export(path)

    def test_absent(self, tmp_path: Path) -> None:
        """A missing file is refused."""
        with pytest.raises(ConfigError, match="cannot read"):
            load_export(tmp_path / "best.yaml")
