"""The embedded scenes: reproducible, long-tailed, split by handwriting, cached without harm."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks.make_digits import write_digits
from objectives.data import digits
from objectives.data.build import SceneSplit, build_data, count_classes, fingerprint
from objectives.data.config import DigitsData
from objectives.data.digits import IGNORE, Scenes, class_names, load_scenes, make_scenes

SMALL = DigitsData(train_scenes=16, val_scenes=8, test_scenes=8, size=32)
SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of our own, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imbalance-search"


@pytest.fixture(scope="module")
def default() -> dict[str, Scenes]:
    """The scenes of a study that says nothing about its data."""
    return make_scenes(DigitsData())


def same(a: dict[str, Scenes], b: dict[str, Scenes]) -> bool:
    """Whether the scenes are equal, to the pixel."""
    return all(
        np.array_equal(a[split].images_NHW, b[split].images_NHW)
        and np.array_equal(a[split].masks_NHW, b[split].masks_NHW)
        for split in SPLITS
    )


def checksum(*arrays: Any) -> str:
    """SHA-256 of what arrays contain."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


class TestShippedDigits:
    def test_source(self) -> None:
        """The images and labels are scikit-learn's, and bytes."""
        source = load_digits()
        with np.load(digits.DIGITS_FILE, allow_pickle=False) as shipped:
            assert (shipped["images"].dtype, shipped["labels"].dtype) == (np.uint8, np.uint8)
            assert np.array_equal(shipped["images"], source.images)
            assert np.array_equal(shipped["labels"], source.target)

    def test_recorded(self) -> None:
        """They are the ones that every stored score was made with, whatever scikit-learn ships."""
        with np.load(digits.DIGITS_FILE, allow_pickle=False) as shipped:
            images_NHW, labels_N = shipped["images"], shipped["labels"]
        assert images_NHW.shape == (1797, 8, 8)
        assert list(np.bincount(labels_N)) == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
        assert (
            checksum(images_NHW, labels_N)
            == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
        )

    def test_command(self, tmp_path: Path) -> None:
        """The command in the repository makes the file again."""
        write_digits(tmp_path / "again.npz")
        with np.load(tmp_path / "again.npz") as again, np.load(digits.DIGITS_FILE) as shipped:
            assert set(again) == set(shipped)
            assert all(np.array_equal(again[name], shipped[name]) for name in shipped)

    def test_small(self) -> None:
        """The file stays a small part of the package, and its source and license are named beside it."""
        assert digits.DIGITS_FILE.stat().st_size < 100_000
        source = digits.DIGITS_FILE.with_suffix(".txt").read_text(encoding="utf-8")
        assert "Optical Recognition of Handwritten Digits" in source
        assert "CC BY 4.0" in source


class TestMakeScenes:
    def test_pure(self) -> None:
        """The same configuration gives the same scenes, whatever was drawn before."""
        first = make_scenes(SMALL)
        np.random.seed(1)
        np.random.rand(3)
        assert same(make_scenes(SMALL), first)

    @pytest.mark.parametrize(
        "changes",
        [
            {"seed": 1},
            {"noise": 9.0},
            {"tail": 0.9},
            {"digits_per_scene": 4},
            {"distractors_per_scene": 0},
        ],
    )
    def test_every_value_counts(self, changes: dict[str, Any]) -> None:
        """Each value of the configuration changes the scenes."""
        assert not same(make_scenes(SMALL.model_copy(update=changes)), make_scenes(SMALL))

    def test_shapes(self) -> None:
        """As many scenes as were asked for, of the size that was asked for, images and masks of bytes."""
        made = make_scenes(SMALL)
        assert {split: made[split].images_NHW.shape for split in SPLITS} == {
            "train": (16, 32, 32),
            "val": (8, 32, 32),
            "test": (8, 32, 32),
        }
        assert all(made[split].masks_NHW.shape == made[split].images_NHW.shape for split in SPLITS)
        assert all(
            array.dtype == np.uint8
            for split in SPLITS
            for array in (made[split].images_NHW, made[split].masks_NHW)
        )

    def test_more_scenes(self) -> None:
        """More scenes of one split leave the others as they are."""
        more = make_scenes(SMALL.model_copy(update={"train_scenes": 32}))
        assert np.array_equal(more["val"].images_NHW, make_scenes(SMALL)["val"].images_NHW)

    def test_handwriting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No specimen that stands in one split stands in another, and every split has several of each digit."""
        pools: list[dict[int, Any]] = []
        compose = digits._compose_split

        def spy(rng: Any, pool: dict[int, Any], *rest: Any) -> Scenes:
            pools.append(pool)
            return compose(rng, pool, *rest)

        monkeypatch.setattr(digits, "_compose_split", spy)
        make_scenes(SMALL)
        keys = [{glyph.tobytes() for glyphs in pool.values() for glyph in glyphs} for pool in pools]
        assert len(keys) == 3
        assert not (keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2])
        assert sum(map(len, keys)) == len({image.tobytes() for image in load_digits().images})
        assert min(len(glyphs) for pool in pools for glyphs in pool.values()) > 20

    @pytest.mark.parametrize("classes", [2, 9])
    def test_classes(self, classes: int) -> None:
        """From two classes to nine, each of them stands in every split."""
        made = make_scenes(SMALL.model_copy(update={"classes": classes}))
        assert all(
            set(np.unique(made[split].masks_NHW)) == {*range(classes), IGNORE} for split in SPLITS
        )


class TestLongTail:
    def test_rarest(self, default: dict[str, Scenes]) -> None:
        """The rarest class covers under half a percent of the training pixels, and the background most."""
        masks = default["train"].masks_NHW
        share = np.bincount(masks[masks != IGNORE], minlength=7) / (masks != IGNORE).sum()
        assert 0 < share.min() < 0.005
        assert share[0] > 0.6

    def test_falls(self, default: dict[str, Scenes]) -> None:
        """The classes are in order, from frequent to rare."""
        masks = default["train"].masks_NHW
        counts = np.bincount(masks[masks != IGNORE], minlength=7)
        assert list(counts) == sorted(counts, reverse=True)

    @pytest.mark.parametrize("split", SPLITS)
    def test_everywhere(self, default: dict[str, Scenes], split: str) -> None:
        """Every class stands in every split, in several scenes of it."""
        masks = default[split].masks_NHW
        assert all((masks == label).any(axis=(1, 2)).sum() >= 2 for label in range(7))

    def test_border(self, default: dict[str, Scenes]) -> None:
        """A strip along the border is ignored, and no other text is."""
        masks = default["train"].masks_NHW
        assert (masks[:, 2:-2, 2:-2] != IGNORE).all()
        inner = np.zeros(masks.shape[1:], bool)
        inner[2:-2, 2:-2] = True
        assert (masks[:, ~inner] == IGNORE).all()

    def test_digits_are_bright(self, default: dict[str, Scenes]) -> None:
        """What is labelled is written there: its pixels are brighter than the background's."""
        scenes = default["train"]
        means = [scenes.images_NHW[scenes.masks_NHW == label].mean() for label in range(7)]
        assert min(means[1:]) > means[0] + 30

    def test_distractors(self) -> None:
        """Digits of no class are placed, too, and labelled background."""
        with_them, without = (
            make_scenes(SMALL.model_copy(update={"distractors_per_scene": number, "noise": 0.0}))[
                "train"
            ]
            for number in (4, 0)
        )
        bright = [
            float((scenes.images_NHW[scenes.masks_NHW == 0] > 140).mean())
            for scenes in (with_them, without)
        ]
        assert bright[0] > 2 * bright[1]


class TestCache:
    def test_reused(self, cache: Path) -> None:
        """What was made once is read from then on, and equal."""
        first = load_scenes(SMALL)
        (file,) = cache.iterdir()
        written = file.stat().st_mtime_ns
        assert same(load_scenes(SMALL), first)
        assert same(first, make_scenes(SMALL))
        assert file.stat().st_mtime_ns == written

    def test_really_read(self, cache: Path) -> None:
        """The file is what is read: another one in its place gives other scenes."""
        load_scenes(SMALL)
        other = SMALL.model_copy(update={"seed": 1})
        scenes = load_scenes(other)
        mine, theirs = (digits._cache_path(config) for config in (SMALL, other))
        theirs.replace(mine)
        assert same(load_scenes(SMALL), scenes)

    def test_own_file(self, cache: Path) -> None:
        """Each configuration has a file of its own."""
        load_scenes(SMALL)
        load_scenes(SMALL.model_copy(update={"seed": 1}))
        assert len(list(cache.iterdir())) == 2

    @pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 half an archive"])
    def test_corrupt(self, cache: Path, content: bytes) -> None:
        """A file that is not an archive is replaced."""
        load_scenes(SMALL)
        (file,) = cache.iterdir()
        file.write_bytes(content)
        assert same(load_scenes(SMALL), make_scenes(SMALL))
        assert file.stat().st_size > 1000

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_cut_off(self, cache: Path, share: float) -> None:
        """So is one that was cut off."""
        load_scenes(SMALL)
        (file,) = cache.iterdir()
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * share)])
        assert same(load_scenes(SMALL), make_scenes(SMALL))

    def test_flipped_bits(self, cache: Path) -> None:
        """So is one whose content was damaged."""
        load_scenes(SMALL)
        (file,) = cache.iterdir()
        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2 : len(damaged) // 2 + 16] = bytes(16)
        file.write_bytes(damaged)
        assert same(load_scenes(SMALL), make_scenes(SMALL))

    def test_other_arrays(self, cache: Path) -> None:
        """So is one that holds something else."""
        load_scenes(SMALL)
        (file,) = cache.iterdir()
        np.savez(file, something=np.zeros(3))
        assert same(load_scenes(SMALL), make_scenes(SMALL))

    def test_unwritable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no cache can be, the scenes are made each time."""
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
        assert same(load_scenes(SMALL), make_scenes(SMALL))

    def test_folder_in_the_way(self, cache: Path) -> None:
        """A folder in the file's place stays, and no draft is left beside it."""
        path = digits._cache_path(SMALL)
        (path / "full").mkdir(parents=True)
        assert same(load_scenes(SMALL), make_scenes(SMALL))
        assert list(cache.iterdir()) == [path]

    def test_no_drafts(self, cache: Path) -> None:
        """Nothing but the finished file is left."""
        load_scenes(SMALL)
        assert [path.suffix for path in cache.iterdir()] == [".npz"]

    def test_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without XDG_CACHE_HOME, or with an empty one, it is ~/.cache."""
        monkeypatch.setenv("HOME", str(tmp_path))
        for clear in (
            lambda: monkeypatch.setenv("XDG_CACHE_HOME", ""),
            lambda: monkeypatch.delenv("XDG_CACHE_HOME"),
        ):
            clear()
            assert digits._cache_path(SMALL).parent == tmp_path / ".cache" / "imbalance-search"


class TestBuild:
    def test_batch(self) -> None:
        """Images come standardised, with one channel; targets as class indices with the ignored border."""
        data = build_data(SMALL)
        images_NCHW, target_NHW = data.train.__getitems__([(3, 0), (5, 7)])
        scenes = make_scenes(SMALL)["train"]
        assert images_NCHW.shape == (2, 1, 32, 32)
        assert np.allclose(
            images_NCHW[:, 0].numpy() * digits.STD_GRAY + digits.MEAN_GRAY,
            scenes.images_NHW[[3, 5]],
        )
        assert np.array_equal(target_NHW.numpy(), scenes.masks_NHW[[3, 5]])
        assert (data.channels, data.height, data.width, data.ignore_index, data.class_names) == (
            1,
            32,
            32,
            255,
            class_names(SMALL),
        )

    def test_standardised(self, default: dict[str, Scenes]) -> None:
        """The images of a study that says nothing about its data lie near mean 0 and deviation 1."""
        images_NCHW = SceneSplit(default["train"]).images_NCHW
        assert abs(float(images_NCHW.mean())) < 0.3
        assert 0.7 < float(images_NCHW.std()) < 1.3

    def test_counts(self) -> None:
        """The counts are those of the training masks, without the border."""
        counts = count_classes(SMALL)
        masks = make_scenes(SMALL)["train"].masks_NHW
        assert counts.names == (
            "background",
            "digit_1",
            "digit_3",
            "digit_2",
            "digit_7",
            "digit_0",
            "digit_4",
        )
        assert counts.counts == tuple(int((masks == label).sum()) for label in range(7))
        assert sum(counts.counts) == 16 * 28 * 28

    def test_fingerprint(self) -> None:
        """It follows from the configuration, all of it."""
        marks = {
            fingerprint(SMALL.model_copy(update=changes))
            for changes in ({}, {"seed": 1}, {"size": 36}, {"tail": 0.6}, {"val_scenes": 9})
        }
        assert len(marks) == 5
        assert fingerprint(SMALL) in marks
