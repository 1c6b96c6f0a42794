"""When a trial's state is written, and which state an attempt resumes from."""

from __future__ import annotations

import math
import resource
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from search.worker.checkpoints import (
    TrialCheckpoints,
    checkpoint_every_s,
    find_resume_point,
)
from search.worker.stop import StopRequest, StopTraining
from search.worker.watchdog import Watchdog
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
    owner: Mapping[str, object] = OWNER,
    is_promising: Callable[[EpochRecord], bool] = lambda record: False,
    unconfirmed: Sequence[EpochRecord] = (),
    confirm_lease: Callable[[], None] = lambda: None,
) -> TrialCheckpoints:
    """The checkpoints of an attempt at trial 3."""
    states = StoredCheckpoints(files, files.trial_stem("demo", 3))
    return TrialCheckpoints(
        states=states,
        attempt=attempt,
        owner=owner,
        resume_point=find_resume_point(states, attempt, owner, stored_epochs),
        stop=stop or StopRequest(),
        watchdog=Watchdog(),
        is_promising=is_promising,
        unconfirmed_records=lambda: unconfirmed,
        confirm_lease=confirm_lease,
        at_least_s=at_least_s,
    )


def write(checkpoints: TrialCheckpoints, epoch: int, content: bytes = b"state") -> None:
    """The state after an epoch, asked for or not."""
    checkpoints.due(record(epoch), last=False)
    checkpoints.write(lambda path: path.write_bytes(content) and None)


def following(files: StudyFiles, stored_epochs: int) -> TrialCheckpoints:
    """The checkpoints of the next attempt, in a copy of the files, so that several can resume from the same ones."""
    copy = StudyFiles(files.root / f"after-{stored_epochs}")
    shutil.copytree(files.root / "demo", copy.root / "demo")
    return make(copy, 2, stored_epochs)


def content(checkpoints: TrialCheckpoints) -> bytes | None:
    """The state that it resumes from."""
    path = checkpoints.latest()
    return None if path is None else path.read_bytes()


class TestLatest:
    def test_newest(self, files: StudyFiles) -> None:
        """The next attempt resumes from the newest state, and knows its epoch."""
        for epoch in (1, 2, 3):
            write(make(files), epoch, b"%d" % epoch)
        following = make(files, attempt=2, stored_epochs=3)
        assert content(following) == b"3"
        assert following.epoch == 3

    def test_broken(self, files: StudyFiles, caplog: pytest.LogCaptureFixture) -> None:
        """A broken state is named in the log, and the one before is used; without that, none."""
        first = make(files)
        write(first, 1, b"older")
        write(first, 2, b"newer")
        newest, older = first.states.list_newest_first()
        newest.path.write_bytes(b"newe")
        assert content(make(files, 2, 2)) == b"older"
        assert f"the checkpoint {newest.path} cannot be used" in caplog.text
        for state in first.states.list_newest_first():
            state.path.write_bytes(b"cut")
        assert content(make(files, 3, 2)) is None
        assert older.order == (1, 1)

    def test_newer_than_the_store(self, files: StudyFiles) -> None:
        """A state that is newer than the epochs in the store is passed over for an older one."""
        write(make(files), 4, b"4")
        write(make(files), 6, b"6")
        assert [content(following(files, stored)) for stored in (2, 3, 4, 5)] == [
            None,
            b"4",
            b"4",
            b"6",
        ]

    def test_unconfirmed(self, files: StudyFiles) -> None:
        """Epochs that the store may lack are in the state's note, and come from there; with a gap it is not used."""
        unconfirmed = [record(3), record(4), replace(record(5), metric=math.nan)]
        first = make(files, unconfirmed=unconfirmed)
        write(first, 6, b"6")
        found = {stored: following(files, stored) for stored in (1, 2, 3, 5, 6)}
        assert [content(each) for each in found.values()] == [None, b"6", b"6", b"6", b"6"]
        assert [
            [record.epoch for record in each.resume_point.missing] for each in found.values()
        ] == [
            [],
            [3, 4, 5],
            [4, 5],
            [],
            [],
        ]
        assert found[2].resume_point.missing[:2] == (record(3), record(4))
        assert math.isnan(found[2].resume_point.missing[2].metric)

    def test_another_owner(self, files: StudyFiles) -> None:
        """A state of another trial with the same file name is not used."""
        other = make(files, owner={"study": "demo", "trial": 99})
        write(other, 1)
        assert content(make(files, 2, 1)) is None

    def test_decided_once(self, files: StudyFiles) -> None:
        """An attempt keeps the state that it resumed from, whatever an earlier attempt writes or removes later."""
        first = make(files)
        write(first, 1, b"1")
        second = make(files, 2, 3)
        for epoch in (2, 3, 4):
            write(first, epoch, b"%d" % epoch)
        assert content(second) == b"1"
        assert (second.resume_point.epoch, second.epoch) == (1, 1)
        first.remove_states()
        assert content(second) == b"1"

    def test_none_yet(self, files: StudyFiles) -> None:
        """An attempt without a state stays without one, and keeps unusable ones until it has written its own."""
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
        """An attempt that has lost its trial writes no state, and raises that."""
        owners = [1]

        def confirm_lease() -> None:
            if owners != [1]:
                raise LeaseLostError("trial 3 is running since attempt 2")

        checkpoints = make(files, confirm_lease=confirm_lease)
        write(checkpoints, 1)
        owners.append(2)
        with pytest.raises(LeaseLostError):
            write(checkpoints, 2)
        assert [state.note["epoch"] for state in checkpoints.states.list_newest_first()] == [1]


class TestStep:
    def test_not_due(self, files: StudyFiles) -> None:
        """No state is due soon after the last one."""
        checkpoints = make(files)
        assert not checkpoints.step()
        assert not checkpoints.due(record(1), last=True)
        assert checkpoints.declined_epoch == 1

    def test_old(self, files: StudyFiles) -> None:
        """A state is due when the last one is old, and less often if it takes long to write."""
        checkpoints = make(files)
        checkpoints.last_written -= 1000
        assert checkpoints.step()
        assert checkpoints.due(record(1), last=False)
        checkpoints.every_s = 2000
        assert not checkpoints.step()

    def test_configured(self, files: StudyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment sets another time between two states, after the first one too."""
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
        """A value that is not a positive number of seconds is refused, with the variable's name."""
        monkeypatch.setenv("SEARCH_CHECKPOINT_S", given)
        with pytest.raises(InputError, match="SEARCH_CHECKPOINT_S"):
            checkpoint_every_s()

    def test_promising(self, files: StudyFiles) -> None:
        """The last state of a trial that may be the best is due, however recent the one before."""
        checkpoints = make(files, is_promising=lambda last: last.epoch == 2)
        assert not checkpoints.due(record(2), last=False)
        assert not checkpoints.due(record(1), last=True)
        assert checkpoints.due(record(2), last=True)

    def test_interrupted(self, files: StudyFiles) -> None:
        """Ctrl-C waits for the end of the epoch, and its state does not end the training."""
        stop = StopRequest()
        checkpoints = make(files, stop=stop)
        stop.stop_after_epoch()
        assert not checkpoints.step()
        assert checkpoints.due(record(1), last=False)
        checkpoints.write(lambda path: path.write_bytes(b"x") and None)

    def test_urgent(self, files: StudyFiles) -> None:
        """After SIGTERM a state is due at the next step, and ends the training when it is written."""
        stop = StopRequest()
        checkpoints = make(files, stop=stop)
        stop.stop_after_step()
        assert checkpoints.step()
        with pytest.raises(StopTraining):
            checkpoints.write(lambda path: path.write_bytes(b"midway") and None)
        assert content(make(files, 2)) == b"midway"

    def test_urgent_without_a_state(self, files: StudyFiles) -> None:
        """A training that writes no state within an epoch ends at the step after."""
        stop = StopRequest()
        checkpoints = make(files, stop=stop)
        stop.stop_after_step()
        assert checkpoints.step()
        with pytest.raises(StopTraining):
            checkpoints.step()

    def test_urgent_at_the_end_of_an_epoch(self, files: StudyFiles) -> None:
        """The state after an epoch does not end the training: its record still has to be reported."""
        stop = StopRequest()
        checkpoints = make(files, stop=stop)
        stop.stop_after_step()
        assert checkpoints.step()
        assert checkpoints.due(record(1), last=False)
        checkpoints.write(lambda path: path.write_bytes(b"x") and None)


class TestDisk:
    def test_full(self, files: StudyFiles, caplog: pytest.LogCaptureFixture) -> None:
        """On a full disk the trial continues, with a warning, and both earlier states stay."""
        checkpoints = make(files, stored_epochs=9)
        for epoch in (1, 2):
            write(checkpoints, epoch, b"%d" % epoch)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            write(checkpoints, 3, b"3" * 2000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "no checkpoint written" in caplog.text
        assert content(following(files, 8)) == b"2"
        write(checkpoints, 4, b"4")
        assert content(following(files, 9)) == b"4"

    def test_full_and_urgent(self, files: StudyFiles) -> None:
        """A full disk does not delay a stop."""
        stop = StopRequest()
        checkpoints = make(files, stop=stop)
        stop.stop_after_step()
        assert checkpoints.step()

        def save(path: Path) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(StopTraining):
            checkpoints.write(save)

    def test_no_room_for_the_best(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """When the best weights cannot be stored, the trial is complete all the same."""
        checkpoints = make(StudyFiles(tmp_path))
        write(checkpoints, 1)
        (tmp_path / "demo" / "artifacts").write_text("in the way")
        checkpoints.keep_best(BestWeights(StudyFiles(tmp_path), "demo", 1.0), 3, 0.5, "maximize")
        assert "the best weights were not kept" in caplog.text


class TestKeepBest:
    @pytest.mark.parametrize(("stale", "kept"), [(False, True), (True, False)])
    def test_last_epoch(self, files: StudyFiles, stale: bool, kept: bool) -> None:
        """The state of the last epoch is kept, an older one is not."""
        checkpoints, artifacts = make(files), BestWeights(files, "demo", 1.0)
        write(checkpoints, 1)
        if stale:
            checkpoints.due(record(2), last=True)
        checkpoints.keep_best(artifacts, 3, 0.5, "maximize")
        checkpoints.remove_states()
        assert (artifacts.find_best() is not None) == kept
