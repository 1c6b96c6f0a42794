"""The last two checkpoints of a trial, and the best weights of a study."""

from __future__ import annotations

import fcntl
import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.files import best_weights
from storage.files.best_weights import BestWeights
from storage.files.checkpoints import StoredCheckpoint, StoredCheckpoints, hash_file
from storage.files.study_files import StudyFiles


@pytest.fixture
def files(tmp_path: Path) -> StudyFiles:
    """Files in a folder that does not exist yet."""
    return StudyFiles(tmp_path / "files")


@pytest.fixture
def states(files: StudyFiles) -> StoredCheckpoints:
    """The checkpoints of trial 3."""
    return StoredCheckpoints(files, files.trial_stem("demo", 3))


def holding(content: bytes) -> Callable[[Path], None]:
    """A function that saves this content."""

    def save(draft: Path) -> None:
        draft.write_bytes(content)

    return save


def names(files: StudyFiles) -> list[str]:
    """The names of all files."""
    return sorted(path.name for path in files.root.rglob("*") if path.is_file())


def found(states: StoredCheckpoints) -> list[tuple[bytes, int]]:
    """The checkpoints to resume from, newest first: content and epoch of the note."""
    return [(state.path.read_bytes(), state.note["epoch"]) for state in states.list_newest_first()]


class TestTrialStates:
    def test_none(self, files: StudyFiles, states: StoredCheckpoints) -> None:
        """A trial without a checkpoint has nothing to resume from, and nothing to remove."""
        assert states.list_newest_first() == []
        states.remove_up_to(1)
        assert not files.root.exists()

    def test_last_two(self, files: StudyFiles, states: StoredCheckpoints) -> None:
        """Two are kept, newest first; a later attempt's come before an earlier one's late ones."""
        for epoch in range(1, 5):
            states.save_checkpoint(1, holding(b"%d" % epoch), {"epoch": epoch})
        assert found(states) == [(b"4", 4), (b"3", 3)]
        assert names(files) == [
            "trial-00003.1.3.ckpt",
            "trial-00003.1.3.json",
            "trial-00003.1.4.ckpt",
            "trial-00003.1.4.json",
        ]
        states.save_checkpoint(2, holding(b"two"), {"epoch": 4})
        assert found(states) == [(b"two", 4), (b"4", 4)]
        states.save_checkpoint(1, holding(b"late"), {"epoch": 9})
        assert found(states)[0] == (b"two", 4)
        assert states.list_newest_first()[0].is_intact()
        states.save_checkpoint(12, holding(b"twelve"), {"epoch": 5})
        states.save_checkpoint(12, holding(b"thirteen"), {"epoch": 5})
        assert [content for content, _ in found(states)] == [b"thirteen", b"twelve"]

    @pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
    def test_broken(self, states: StoredCheckpoints, harm: str) -> None:
        """A truncated, changed or missing checkpoint is not intact; the one before it is."""
        states.save_checkpoint(1, holding(b"older"), {"epoch": 1})
        path = states.save_checkpoint(1, holding(b"newer"), {"epoch": 2}).path
        assert all(state.is_intact() for state in states.list_newest_first())
        if harm == "gone":
            path.unlink()
        else:
            path.write_bytes(b"newe" if harm == "cut" else b"neweR")
        assert [state.is_intact() for state in states.list_newest_first()] == [False, True]

    @pytest.mark.parametrize("note", ["", "{", "[]", '"x"'])
    def test_broken_note(self, states: StoredCheckpoints, note: str) -> None:
        """A checkpoint with a broken note does not count."""
        states.save_checkpoint(1, holding(b"older"), {"epoch": 1})
        states.save_checkpoint(1, holding(b"newer"), {"epoch": 2}).path.with_suffix(
            ".json"
        ).write_text(note)
        assert found(states) == [(b"older", 1)]

    def test_left_by_a_killed_process(self, files: StudyFiles, states: StoredCheckpoints) -> None:
        """A checkpoint without a note does not count; drafts are removed with the trial's files."""
        neighbour = StoredCheckpoints(files, files.trial_stem("demo", 31))
        neighbour.save_checkpoint(1, holding(b"x"), {"epoch": 1})
        states.save_checkpoint(1, holding(b"whole"), {"epoch": 1})
        (states.stem.parent / "trial-00003.1.2.ckpt").write_bytes(b"without a note")
        (states.stem.parent / ".trial-00003.1.3.ckpt.99-abcd").write_bytes(b"half")
        assert found(states) == [(b"whole", 1)]
        states.save_checkpoint(1, holding(b"next"), {"epoch": 2})
        assert found(states) == [(b"next", 2), (b"whole", 1)]
        assert not (states.stem.parent / "trial-00003.1.2.ckpt").exists()
        states.remove_up_to(1)
        assert names(files) == ["trial-00031.1.1.ckpt", "trial-00031.1.1.json"]

    @pytest.mark.parametrize("limit", [1000, 20])
    def test_too_large(self, files: StudyFiles, states: StoredCheckpoints, limit: int) -> None:
        """A write that fails in the file or its note leaves only the two earlier checkpoints."""
        for epoch in (1, 2):
            states.save_checkpoint(1, holding(b"%d" % epoch), {"epoch": epoch})
        before, (soft, hard) = names(files), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                states.save_checkpoint(
                    1, holding(b"x" * (2000 if limit == 1000 else 10)), {"epoch": 3}
                )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert names(files) == before
        assert found(states) == [(b"2", 2), (b"1", 1)]
        assert all(state.is_intact() for state in states.list_newest_first())


class TestArtifacts:
    @pytest.fixture
    def artifacts(self, files: StudyFiles) -> BestWeights:
        """The best weights of a study that was registered at second 1."""
        return BestWeights(files, "demo", 1.0)

    def state(self, files: StudyFiles, number: int) -> StoredCheckpoint:
        """A checkpoint of a trial, with its number as content."""
        return StoredCheckpoints(files, files.trial_stem("demo", number)).save_checkpoint(
            1, holding(b"trial %d" % number), {"epoch": 1}
        )

    def test_best_alone(self, files: StudyFiles, artifacts: BestWeights) -> None:
        """Only the best trial's weights are kept, also after its other files are removed."""
        assert artifacts.find_best() is None
        for number, score, kept in [
            (0, 0.3, True),
            (1, 0.2, False),
            (2, 0.5, True),
            (4, 0.5, False),
            (3, float("nan"), False),
        ]:
            state = self.state(files, number)
            assert artifacts.is_better(number, score, "maximize") == kept
            assert artifacts.save_if_better(number, score, "maximize", state) == kept
            StoredCheckpoints(files, files.trial_stem("demo", number)).remove_up_to(1)
        best = artifacts.find_best()
        assert best is not None
        assert (best.trial, best.score) == (2, 0.5)
        assert artifacts.weights_path(best).read_bytes() == b"trial 2"
        assert hash_file(artifacts.weights_path(best)) == artifacts.weights_path(best).name
        assert names(files) == sorted([".lock", "best.json", best.sha256])

    def test_of_equals(self, files: StudyFiles, artifacts: BestWeights) -> None:
        """Of equal trials the earlier one is the best, in any order of ending."""
        for number, kept in [(5, True), (2, True), (3, False)]:
            assert (
                artifacts.save_if_better(number, 0.5, "minimize", self.state(files, number)) == kept
            )

    def test_another_study(self, files: StudyFiles, artifacts: BestWeights) -> None:
        """Weights of a deleted study of the same name do not count, and are replaced."""
        artifacts.save_if_better(7, 0.9, "maximize", self.state(files, 7))
        later = BestWeights(files, "demo", 2.0)
        assert later.find_best() is None
        assert later.save_if_better(0, 0.1, "maximize", self.state(files, 0))
        assert len([name for name in names(files) if len(name) == 64]) == 1

    def test_suspended_holder(
        self, files: StudyFiles, artifacts: BestWeights, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that is suspended while it has the lock does not stop the others for ever."""
        monkeypatch.setattr(best_weights, "LOCK_WAIT_S", 0.1)
        artifacts.save_if_better(7, 0.5, "maximize", self.state(files, 7))
        with (artifacts.folder / ".lock").open("a") as suspended:
            fcntl.flock(suspended, fcntl.LOCK_EX)
            with pytest.raises(TimeoutError, match="another worker has kept"):
                artifacts.save_if_better(8, 0.9, "maximize", self.state(files, 8))
        best = artifacts.find_best()
        assert best is not None
        assert best.trial == 7
        assert artifacts.save_if_better(8, 0.9, "maximize", self.state(files, 8))

    @pytest.mark.parametrize(
        "change",
        [{"sha256": "../../../../etc/passwd"}, {"sha256": 7}, {"score": "high"}, {"more": 1}],
    )
    def test_note_not_trusted(
        self, files: StudyFiles, artifacts: BestWeights, change: dict[str, object]
    ) -> None:
        """A manipulated note leads to no file."""
        artifacts.save_if_better(7, 0.9, "maximize", self.state(files, 7))
        note = artifacts.folder / "best.json"
        note.write_text(json.dumps(json.loads(note.read_text()) | change))
        assert artifacts.find_best() is None
