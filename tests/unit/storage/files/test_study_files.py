"""Files of trials are written completely or not at all."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from spaces.errors import StoreError
from storage.files.study_files import StudyFiles
from storage.location import StoreLocation


@pytest.fixture
def files(tmp_path: Path) -> StudyFiles:
    """Files in a folder that does not exist yet."""
    return StudyFiles(tmp_path / "files")


def left(files: StudyFiles) -> dict[str, bytes]:
    """Every file with its content."""
    return {path.name: path.read_bytes() for path in files.root.rglob("*") if path.is_file()}


class TestPath:
    def test_one_each(self, files: StudyFiles) -> None:
        """Each trial of each study has its own files, in the study's folder."""
        paths = {
            files.trial_stem(study, number)
            for study in ("a", "a.b", "A-1_")
            for number in (0, 1, 123456)
        }

        assert len(paths) == 9
        assert all(path.parent.parent == files.root for path in paths)

    @pytest.mark.parametrize(
        "study", ["", ".", "..", "../up", "/etc", "a/b", "a\\b", "a\0", "a\n", "~", "-a", "x" * 101]
    )
    def test_cannot_escape(self, files: StudyFiles, study: str) -> None:
        """A name that could lead out of the folder is refused."""
        with pytest.raises(StoreError, match="must be usable as a folder"):
            files.trial_stem(study, 0)


class TestWrite:
    def test_replaced_at_once(self, files: StudyFiles) -> None:
        """The old file stays complete until the new one is."""
        path = files.trial_stem("demo", 3)
        seen = []

        def save(draft: Path) -> None:
            draft.write_bytes(b"half")
            seen.append(path.read_bytes() if path.exists() else None)
            draft.write_bytes(b"whole")

        files.write_file(path, save)
        files.write_file(path, save)

        assert seen == [None, b"whole"]
        assert left(files) == {"trial-00003": b"whole"}

    @pytest.mark.parametrize(
        "error", [OSError(28, "No space left on device"), RuntimeError("boom"), KeyboardInterrupt()]
    )
    def test_failed(self, files: StudyFiles, error: BaseException) -> None:
        """An interrupted write raises; the old file stays, and no draft of the new one."""
        path = files.trial_stem("demo", 3)
        files.write_file(path, lambda draft: draft.write_bytes(b"former") and None)

        def save(draft: Path) -> None:
            draft.write_bytes(b"half")
            raise error

        with pytest.raises(type(error)):
            files.write_file(path, save)

        assert left(files) == {"trial-00003": b"former"}

    def test_too_large(self, files: StudyFiles) -> None:
        """A write that the system refuses leaves the old file, and no draft."""
        path = files.trial_stem("demo", 3)
        files.write_file(path, lambda draft: draft.write_bytes(b"former") and None)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                files.write_file(path, lambda draft: draft.write_bytes(b"x" * 2000) and None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert left(files) == {"trial-00003": b"former"}

    def test_no_folder(self, tmp_path: Path) -> None:
        """A path where no folder can be created is an error."""
        (tmp_path / "files").write_text("in the way")
        files = StudyFiles(tmp_path / "files")

        with pytest.raises(OSError, match="files"):
            files.write_file(
                files.trial_stem("demo", 0), lambda draft: draft.write_bytes(b"x") and None
            )

    @pytest.mark.parametrize("umask", [0o022, 0o077])
    def test_umask(self, files: StudyFiles, umask: int) -> None:
        """Files have the permissions that the user's umask allows."""
        before = os.umask(umask)
        try:
            files.write_json(files.trial_stem("demo", 3), {"a": 1})
        finally:
            os.umask(before)

        assert files.trial_stem("demo", 3).stat().st_mode & 0o777 == 0o666 & ~umask


class TestLinks:
    def test_study(self, tmp_path: Path) -> None:
        """A study's folder that is a link is refused: it could overwrite files elsewhere."""
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "files").mkdir()
        (tmp_path / "files" / "demo").symlink_to(tmp_path / "elsewhere")

        with pytest.raises(StoreError, match=r"is a link(.|\n)*elsewhere"):
            StudyFiles(tmp_path / "files").trial_stem("demo", 0)

    def test_root(self, tmp_path: Path) -> None:
        """The folder of all files may be a link, which is the user's choice."""
        (tmp_path / "big").mkdir()
        (tmp_path / "files").symlink_to(tmp_path / "big")

        assert StudyFiles(tmp_path / "files").trial_stem("demo", 0).name == "trial-00000"


class TestRoot:
    @pytest.mark.parametrize(
        ("url", "root"),
        [
            ("sqlite:///search.db", "search.files"),
            ("sqlite:///my.search.db", "my.search.files"),
            ("sqlite:///plain", "plain.files"),
            ("sqlite:///search.files", "search.files.files"),
            ("postgresql://user@host/db", "search.files"),
        ],
    )
    def test_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, root: str
    ) -> None:
        """The files are next to the database file, or in the working directory for a server."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("SEARCH_FILES", raising=False)

        assert StoreLocation.parse(url).files_root == tmp_path / root

    @pytest.mark.parametrize("url", ["sqlite:///search.db", "postgresql://user@host/db"])
    def test_chosen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        """SEARCH_FILES names another folder."""
        monkeypatch.setenv("SEARCH_FILES", str(tmp_path / "big"))

        assert StoreLocation.parse(url).files_root == tmp_path / "big"
