"""When a trial's state is written, and which one it goes on from."""

from __future__ import annotations

import math
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from search.worker.checkpoints import TrialCheckpoints, checkpoint_every_s
from search.worker.stop import StopRequest, StopTraining
from spaces.errors import InputError, LeaseLostError
from spaces.records import EpochRecord
from storage.files.best_weights import BestWeights
from storage.files.checkpoints import StoredCheckpoints
from storage.files.study_files import StudyFiles
from tests.conftest import RECORD

OWNER = {"study": "demo", "trial": 3}


@pytest.fixture
def files(tmp_path: Path) -> StudyFiles:
    """Files in a folder that does not exist yet."""
    return StudyFiles(tmp_path)


def record(epoch: int) -> EpochRecord:
    """Of that epoch."""
    return replace(RECORD, epoch=epoch)


def make(
    files: StudyFiles,
    attempt: int = 1,
    stored_epochs: int = 0,
    stop: StopRequest | None = None,
    at_least_s: float = 10.0,
) -> TrialCheckpoints:
    """What a trainer of trial 3 is handed."""
    return TrialCheckpoints(
        StoredCheckpoints(files, files.trial_stem("demo", 3)),
        attempt,
        OWNER,
        stored_epochs,
        stop or StopRequest(),
        at_least_s=at_least_s,
    )


def write(checkpoints: TrialCheckpoints, epoch: int, content: bytes = b"state") -> None:
    """The state after an epoch, asked for or not."""
    checkpoints.due(record(epoch), last=False)
    checkpoints.save_checkpoint(lambda path: path.write_bytes(content) and None)


def following(files: StudyFiles, stored_epochs: int) -> TrialCheckpoints:
    """What the next attempt is handed, in a copy of the files, so that several can begin from the same ones."""
    copy = StudyFiles(files.root / f"after-{stored_epochs}")
    shutil.copytree(files.root / "demo", copy.root / "demo")
    return make(copy, 2, stored_epochs)


def content(checkpoints: TrialCheckpoints) -> bytes | None:
    """What it would go on from."""
    path = checkpoints.latest()
    return None if path is None else path.read_bytes()


class TestLatest:
    def test_newest(self, files: StudyFiles) -> None:
        """The newest state counts, also for the next attempt, which then knows its epoch."""
        for epoch in (1, 2, 3):
            write(make(files), epoch, b"%d" % epoch)
        following = make(files, attempt=2, stored_epochs=3)
        assert content(following) == b"3"
        assert following.epoch == 3

    def test_broken(self, files: StudyFiles, capsys: pytest.CaptureFixture[str]) -> None:
        """Of a broken one the log says which, and the one before counts; without that, none."""
        first = make(files)
        write(first, 1, b"older")
        write(first, 2, b"newer")
        newest, older = first.states.list_newest_first()
        newest.path.write_bytes(b"newe")
        assert content(make(files, 2, 2)) == b"older"
        assert f"warning: the checkpoint {newest.path} is broken" in capsys.readouterr().out
        for state in first.states.list_newest_first():
            state.path.write_bytes(b"cut")
        assert content(make(files, 3, 2)) is None
        assert older.order == (1, 1)

    def test_newer_than_the_store(self, files: StudyFiles) -> None:
        """A state whose epochs the store has not is passed over for one of which it has all but the last."""
        write(make(files), 4, b"4")
        write(make(files), 6, b"6")
        assert [content(following(files, stored)) for stored in (2, 3, 4, 5)] == [
            None,
            b"4",
            b"4",
            b"6",
        ]

    def test_unheard(self, files: StudyFiles) -> None:
        """Epochs that the store had not heard when a state was written lie in its note, and are carried on from there; with a gap it does not count."""
        first = make(files)
        first.unheard = lambda: [record(3), record(4), replace(record(5), metric=math.nan)]
        write(first, 6, b"6")
        found = {stored: following(files, stored) for stored in (1, 2, 3, 5, 6)}
        assert [content(each) for each in found.values()] == [None, b"6", b"6", b"6", b"6"]
        assert [[record.epoch for record in each.carried] for each in found.values()] == [
            [],
            [3, 4, 5],
            [4, 5],
            [],
            [],
        ]
        assert found[2].carried[:2] == [record(3), record(4)]
        assert math.isnan(found[2].carried[2].metric)

    def test_another_owner(self, files: StudyFiles) -> None:
        """What another trial left under that name is none of this one's."""
        other = make(files)
        other.owner = {"study": "demo", "trial": 99}
        write(other, 1)
        assert content(make(files, 2, 1)) is None

    def test_decided_once(self, files: StudyFiles) -> None:
        """What an attempt resumes from is decided when it begins, and neither replaced nor removed by what an earlier attempt writes later."""
        first = make(files)
        write(first, 1, b"1")
        second = make(files, 2, 3)
        for epoch in (2, 3, 4):
            write(first, epoch, b"%d" % epoch)
        assert content(second) == b"1"
        assert (second.resumed_epoch, second.epoch) == (1, 1)
        first.remove()
        assert content(second) == b"1"

    def test_none_yet(self, files: StudyFiles) -> None:
        """An attempt that begins with none stays with none, and leaves what it cannot use until it has written its own."""
        first = make(files)
        write(first, 4, b"4")
        second = make(files, 2)
        write(first, 5, b"5")
        assert content(second) is None
        assert [state.order for state in second.states.list_newest_first()] == [(1, 2), (1, 1)]
        for epoch in (1, 2):
            write(second, epoch)
        assert [state.order for state in second.states.list_newest_first()] == [(2, 2), (2, 1)]

    def test_lost(self, files: StudyFiles) -> None:
        """An attempt that has lost its trial writes no state, and says so."""
        checkpoints = make(files)
        write(checkpoints, 1)

        def lost() -> None:
            raise LeaseLostError("trial 3 is running since attempt 2")

        checkpoints.confirm = lost
        with pytest.raises(LeaseLostError):
            write(checkpoints, 2)
        assert [state.note["epoch"] for state in checkpoints.states.list_newest_first()] == [1]


class TestStep:
    def test_not_due(self, files: StudyFiles) -> None:
        """A young state is not written again, by the step or by the epoch."""
        checkpoints = make(files)
        assert not checkpoints.step()
        assert not checkpoints.due(record(1), last=True)
        assert checkpoints.declined == 1

    def test_old(self, files: StudyFiles) -> None:
        """An old one is, by either; and one that takes long to write is written less often."""
        checkpoints = make(files)
        checkpoints.last_written -= 1000
        assert checkpoints.step()
        assert checkpoints.due(record(1), last=False)
        checkpoints.every_s = 2000
        assert not checkpoints.step()

    def test_asked_for(self, files: StudyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment names another time between two states, which holds after the first one, too."""
        monkeypatch.setenv("SEARCH_CHECKPOINT_S", "100")
        checkpoints = make(files, at_least_s=checkpoint_every_s())
        for _ in range(2):
            checkpoints.last_written -= 50
            assert not checkpoints.step()
            checkpoints.last_written -= 50
            assert checkpoints.step()
            write(checkpoints, 1)

    @pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "inf", ""])
    def test_no_time(self, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
        """What is no number of seconds is refused, with the variable's name."""
        monkeypatch.setenv("SEARCH_CHECKPOINT_S", given)
        with pytest.raises(InputError, match="SEARCH_CHECKPOINT_S"):
            checkpoint_every_s()

    def test_promising(self, files: StudyFiles) -> None:
        """The last state of a trial that may be the best is written however young, no other one of it."""
        checkpoints = make(files)
        checkpoints.promising = lambda held: held.epoch == 2
        assert not checkpoints.due(record(2), last=False)
        assert not checkpoints.due(record(1), last=True)
        assert checkpoints.due(record(2), last=True)

    def test_interrupted(self, files: StudyFiles) -> None:
        """Ctrl-C waits for the epoch, and does not end the training by itself."""
        stop = StopRequest()
        checkpoints = make(files, stop=stop)
        stop.request()
        assert not checkpoints.step()
        assert checkpoints.due(record(1), last=False)
        checkpoints.save_checkpoint(lambda path: path.write_bytes(b"x") and None)

    def test_hurried(self, files: StudyFiles) -> None:
        """SIGTERM asks for the state at the next step, and ends the training when it is written."""
        stop = StopRequest()
        checkpoints = make(files, stop=stop)
        stop.hurry()
        assert checkpoints.step()
        with pytest.raises(StopTraining):
            checkpoints.save_checkpoint(lambda path: path.write_bytes(b"midway") and None)
        assert content(make(files, 2)) == b"midway"

    def test_hurried_without_a_state(self, files: StudyFiles) -> None:
        """A training that has nothing to write in the midst of an epoch is ended at the step after."""
        stop = StopRequest()
        checkpoints = make(files, stop=stop)
        stop.hurry()
        assert checkpoints.step()
        with pytest.raises(StopTraining):
            checkpoints.step()

    def test_hurried_at_the_end_of_an_epoch(self, files: StudyFiles) -> None:
        """The state after an epoch does not end the training: its record is still to be told."""
        stop = StopRequest()
        checkpoints = make(files, stop=stop)
        stop.hurry()
        assert checkpoints.step()
        assert checkpoints.due(record(1), last=False)
        checkpoints.save_checkpoint(lambda path: path.write_bytes(b"x") and None)


class TestDisk:
    def test_full(self, files: StudyFiles, capsys: pytest.CaptureFixture[str]) -> None:
        """A disk that is full costs the checkpoint, not the trial: a warning, and both former states stay."""
        checkpoints = make(files, stored_epochs=9)
        for epoch in (1, 2):
            write(checkpoints, epoch, b"%d" % epoch)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            write(checkpoints, 3, b"3" * 2000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "warning: no checkpoint written" in capsys.readouterr().out
        assert content(following(files, 8)) == b"2"
        write(checkpoints, 4, b"4")
        assert content(following(files, 9)) == b"4"

    def test_full_and_hurried(self, files: StudyFiles) -> None:
        """Nor does it hold up a stop: the trial goes back as it was checkpointed before."""
        stop = StopRequest()
        checkpoints = make(files, stop=stop)
        stop.hurry()
        assert checkpoints.step()

        def save(path: Path) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(StopTraining):
            checkpoints.save_checkpoint(save)

    def test_no_room_for_the_best(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Where the best weights cannot be kept, the trial is complete all the same."""
        checkpoints = make(StudyFiles(tmp_path))
        write(checkpoints, 1)
        (tmp_path / "demo" / "artifacts").write_text("in the way")
        checkpoints.keep(BestWeights(StudyFiles(tmp_path), "demo", 1.0), 3, 0.5, "maximize")
        assert "warning: the best weights were not kept" in capsys.readouterr().out


class TestKeep:
    @pytest.mark.parametrize(("stale", "kept"), [(False, True), (True, False)])
    def test_last_epoch(self, files: StudyFiles, stale: bool, kept: bool) -> None:
        """The state of the last epoch is kept, an older one is not."""
        checkpoints, artifacts = make(files), BestWeights(files, "demo", 1.0)
        write(checkpoints, 1)
        if stale:
            checkpoints.due(record(2), last=True)
        checkpoints.keep(artifacts, 3, 0.5, "maximize")
        checkpoints.remove()
        assert (artifacts.find_best() is not None) == kept
