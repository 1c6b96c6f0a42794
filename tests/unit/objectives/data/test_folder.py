"""One's own images and masks, as files in folders."""

from __future__ import annotations

import gc
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from objectives.contract import NoCheckpoints
from objectives.data.build import build_data, count_classes, fingerprint
from objectives.data.config import FolderData
from objectives.data.folder import find_pairs, read_mask
from objectives.data.loading import Batches
from objectives.segmentation import train
from objectives.segmentation.config import SegmentationConfig
from spaces.errors import ConfigError, DataError
from tests.waiting import PATIENCE_S

HEIGHT, WIDTH = 32, 48
CLASSES = ("road", "sky", "person")
Configure = Callable[..., FolderData]


def write_pair(
    root: Path,
    split: str,
    name: str,
    mask_HW: Any = None,
    *,
    seed: int = 0,
    image_suffix: str = "",
    mask_suffix: str = "",
    kind: str = ".png",
) -> Path:
    """An image of noise and its mask, three upright stripes unless one is given; returns the mask's path."""
    rng = np.random.default_rng(seed)
    image = root / "images" / split / f"{name}{image_suffix}{kind}"
    mask = root / "masks" / split / f"{name}{mask_suffix}.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    if mask_HW is None:
        mask_HW = np.repeat(np.arange(3), WIDTH // 3)[None].repeat(HEIGHT, 0)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(image)
    Image.fromarray(np.asarray(mask_HW, np.uint8)).save(mask)
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four training and two validation pairs."""
    for split, number in (("train", 4), ("val", 2)):
        for index in range(number):
            write_pair(tmp_path, split, f"scene_{index}", seed=index)
    return tmp_path


@pytest.fixture
def configure(root: Path) -> Configure:
    """The configuration of the folder, with changes."""

    def make(**changes: Any) -> FolderData:
        return FolderData(
            **{
                "kind": "folder",
                "root": str(root),
                "classes": CLASSES,
                "height": HEIGHT,
                "width": WIDTH,
                "loader_workers": 0,
            }
            | changes
        )

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch with a single thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class TestPairs:
    def test_in_order(self, configure: Configure) -> None:
        """Every image with its mask, in order of name."""
        found = find_pairs(configure(), "train")
        assert [(pair.image.name, pair.mask.name) for pair in found] == [
            (f"scene_{index}.png",) * 2 for index in range(4)
        ]
        assert all(
            pair.image.parent.parent.name == "images" and pair.mask.parent.parent.name == "masks"
            for pair in found
        )

    def test_cityscapes(self, tmp_path: Path, configure: Configure) -> None:
        """Names as Cityscapes has them, in folders by city."""
        root = tmp_path / "cityscapes"
        for city in ("bremen", "aachen"):
            write_pair(
                root,
                "train",
                f"{city}/{city}_000000",
                image_suffix="_leftImg8bit",
                mask_suffix="_gtFine_labelIds",
            )
        found = find_pairs(
            configure(root=str(root), image_suffix="_leftImg8bit", mask_suffix="_gtFine_labelIds"),
            "train",
        )
        assert [str(pair.mask.relative_to(root)) for pair in found] == [
            f"masks/train/{city}/{city}_000000_gtFine_labelIds.png" for city in ("aachen", "bremen")
        ]

    @pytest.mark.parametrize("kind", [".jpg", ".JPG", ".jpeg", ".bmp", ".tif", ".webp"])
    def test_types(self, tmp_path: Path, configure: Configure, kind: str) -> None:
        """Image files of the usual types; the mask may be of another."""
        write_pair(tmp_path / "other", "train", "scene", kind=kind)
        assert len(find_pairs(configure(root=str(tmp_path / "other")), "train")) == 1

    def test_other_files(self, root: Path, configure: Configure) -> None:
        """What is no image is none of our business."""
        (root / "images" / "train" / "notes.txt").write_text("x")
        (root / "images" / "train" / ".DS_Store").write_bytes(b"x")
        assert len(find_pairs(configure(), "train")) == 4

    def test_missing_mask(self, root: Path, configure: Configure) -> None:
        """An image without a mask is refused with both paths."""
        (root / "masks" / "train" / "scene_2.png").unlink()
        with pytest.raises(DataError, match="an image of the split 'train' has no mask") as caught:
            find_pairs(configure(), "train")
        assert caught.value.where == str(root / "images" / "train" / "scene_2.png")
        assert caught.value.allowed == str(root / "masks" / "train" / "scene_2.png")
        assert "mask_suffix" in caught.value.next_step

    @pytest.mark.parametrize("suffix", ["/../../x", "/etc/x", "a\\b"])
    @pytest.mark.parametrize("name", ["mask_suffix", "image_suffix"])
    def test_no_way_out(self, name: str, suffix: str) -> None:
        """What a name ends in cannot lead out of the folder of the masks."""
        with pytest.raises(ValidationError, match=name):
            FolderData(kind="folder", root=".", classes=("a", "b"), **{name: suffix})

    def test_no_split(self, configure: Configure) -> None:
        """A split without a folder has no pairs."""
        assert find_pairs(configure(), "test") == []


class TestReadMask:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "F", "CMYK"])
    def test_channels(self, tmp_path: Path, mode: str) -> None:
        """A mask of colours, or of fractions, is refused with its mode."""
        path = tmp_path / "mask.tif"
        Image.new(mode, (8, 8)).save(path)
        with pytest.raises(
            DataError, match="a mask must have one channel of class indices"
        ) as caught:
            read_mask(path)
        assert (caught.value.where, caught.value.found) == (str(path), f"image mode {mode}")

    @pytest.mark.parametrize("mode", ["L", "P", "1", "I", "I;16"])
    def test_indices(self, tmp_path: Path, mode: str) -> None:
        """Grey values, palette indices, bits and wide integers are class indices as they are."""
        path, image = tmp_path / "mask.tif", Image.new(mode, (8, 8))
        image.putpixel((3, 2), 1)
        if mode == "P":
            image.putpalette([255, 0, 0, 0, 255, 0])
        image.save(path)
        mask_HW = read_mask(path)
        assert mask_HW.dtype == np.int64
        assert (int(mask_HW[2, 3]) > 0, int((mask_HW != 0).sum())) == (True, 1)

    def test_resized(self, tmp_path: Path) -> None:
        """Resizing takes the nearest pixel: no class comes into being between two others."""
        path = tmp_path / "mask.png"
        Image.fromarray(np.array([[0, 200], [0, 200]], np.uint8)).save(path)
        mask_HW = read_mask(path, (7, 9))
        assert mask_HW.shape == (7, 9)
        assert set(np.unique(mask_HW)) == {0, 200}

    @pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n and no more"])
    def test_unreadable(self, tmp_path: Path, content: bytes) -> None:
        """A file that is not an image is refused with its path."""
        path = tmp_path / "mask.png"
        path.write_bytes(content)
        with pytest.raises(DataError, match="an image file cannot be read") as caught:
            read_mask(path)
        assert caught.value.where == str(path)
        assert caught.value.found

    def test_cut_off(self, root: Path) -> None:
        """So is one that was cut off."""
        path = root / "images" / "train" / "scene_0.png"
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(DataError, match="an image file cannot be read"):
            read_mask(path)


class TestCounts:
    def test_exact(self, root: Path, configure: Configure) -> None:
        """The training masks' pixels, at the size that they have, without the ignored ones."""
        mask_HW = np.zeros((HEIGHT, WIDTH))
        mask_HW[:4], mask_HW[4:6], mask_HW[6:7] = 255, 2, 1
        write_pair(root, "train", "scene_9", mask_HW)
        counts = count_classes(configure(height=64, width=64))
        stripe = HEIGHT * WIDTH // 3
        assert counts.names == CLASSES
        assert counts.counts == (
            4 * stripe + (HEIGHT - 7) * WIDTH,
            4 * stripe + WIDTH,
            4 * stripe + 2 * WIDTH,
        )

    def test_only_training(self, root: Path, configure: Configure) -> None:
        """Validation and test are not counted."""
        before = count_classes(configure())
        write_pair(root, "val", "scene_9")
        write_pair(root, "test", "scene_9")
        assert count_classes(configure()) == before

    def test_absent_class(self, configure: Configure) -> None:
        """A class that no mask holds counts 0."""
        assert count_classes(configure(classes=(*CLASSES, "train"))).counts[3] == 0

    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_too_many(self, root: Path, configure: Configure, split: str) -> None:
        """A value that is not a class is refused with file, value, pixels and range, in every split."""
        mask_HW = np.zeros((HEIGHT, WIDTH))
        mask_HW[3, 5:9] = 7
        path = write_pair(root, split, "scene_9", mask_HW)
        with pytest.raises(
            DataError, match="a mask contains more classes than the configuration names"
        ) as caught:
            count_classes(configure())
        assert (caught.value.where, caught.value.found) == (str(path), "value 7 in 4 pixels")
        assert caught.value.allowed == "0 … 2 (3 classes) or 255 (ignored)"

    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_other_size(self, root: Path, configure: Configure, split: str) -> None:
        """A mask of another size than its image's is refused with both sizes, in every split."""
        path = write_pair(root, split, "scene_9", np.zeros((HEIGHT, WIDTH // 2)))
        with pytest.raises(DataError, match="an image and its mask differ in size") as caught:
            count_classes(configure())
        assert (caught.value.where, caught.value.found) == (
            str(path),
            f"image {WIDTH} × {HEIGHT}, mask {WIDTH // 2} × {HEIGHT}",
        )

    @pytest.mark.parametrize("split", ["train", "val"])
    @pytest.mark.parametrize(
        ("folder", "kept"), [("images", 0), ("masks", 0), ("images", -200), ("masks", -30)]
    )
    def test_unreadable(
        self, root: Path, configure: Configure, split: str, folder: str, kept: int
    ) -> None:
        """A file that cannot be read, image or mask, empty or cut off behind its header, is found when the classes are counted."""
        path = root / folder / split / "scene_1.png"
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(DataError, match="an image file cannot be read") as caught:
            count_classes(configure())
        assert (caught.value.where, caught.value.next_step) == (
            str(path),
            "fix or remove the file",
        )

    def test_named_twice(self, configure: Configure) -> None:
        """A class that is named twice is a mistake of the configuration."""
        with pytest.raises(ValidationError, match="a class is named twice in"):
            configure(classes=("road", "sky", "road"))

    def test_own_ignore_index(self, root: Path, configure: Configure) -> None:
        """The value that counts for nothing can be chosen, one of the classes' too."""
        stripe = HEIGHT * WIDTH // 3
        assert count_classes(configure(ignore_index=0)).counts == (0, 4 * stripe, 4 * stripe)
        write_pair(root, "train", "scene_9", np.full((HEIGHT, WIDTH), 255))
        with pytest.raises(DataError, match="more classes"):
            count_classes(configure(ignore_index=0))

    def test_all_ignored(self, root: Path, configure: Configure) -> None:
        """Masks in which nothing counts are an error."""
        for path in (root / "masks" / "train").iterdir():
            Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(path)
        with pytest.raises(DataError, match="every training pixel is ignored"):
            count_classes(configure())

    def test_colours(self, root: Path, configure: Configure) -> None:
        """A mask of colours is found when the classes are counted, before any training."""
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "masks" / "val" / "scene_1.png")
        with pytest.raises(DataError, match="one channel"):
            count_classes(configure())


class TestFingerprint:
    def test_same(self, configure: Configure) -> None:
        """It stays while the files do, however the images are decoded."""
        assert (
            len(
                {
                    fingerprint(configure(**changes))
                    for changes in (
                        {},
                        {},
                        {"height": 64},
                        {"crop": (32, 32)},
                        {"flip": False},
                        {"loader_workers": 3},
                    )
                }
            )
            == 1
        )

    def test_changes(self, root: Path, configure: Configure) -> None:
        """It changes with the content of a mask or an image, with a mask more, and with the configuration."""
        marks = [fingerprint(configure()), fingerprint(configure(ignore_index=0))]
        for path in (
            root / "masks" / "train" / "scene_0.png",
            root / "images" / "train" / "scene_0.png",
        ):
            os.utime(path, ns=(1, 1))
            marks.append(fingerprint(configure()))
        write_pair(root, "test", "scene_0")
        marks.append(fingerprint(configure()))
        assert len(set(marks)) == 5


class TestBuild:
    @pytest.mark.parametrize("split", ["train", "val"])
    def test_needed(self, root: Path, configure: Configure, split: str) -> None:
        """Training and validation need images; the message has the folder."""
        shutil.rmtree(root / "images" / split)
        with pytest.raises(DataError, match=f"no images for the split '{split}'") as caught:
            build_data(configure())
        assert (caught.value.where, caught.value.found) == (
            str(root / "images" / split),
            "no such folder",
        )
        (root / "images" / split).mkdir()
        with pytest.raises(DataError, match="no images") as caught:
            count_classes(configure())
        assert caught.value.found == "no image file"

    def test_no_root(self, configure: Configure) -> None:
        """A missing root is refused in the same way."""
        with pytest.raises(DataError, match="no images for the split 'train'"):
            build_data(configure(root="/no/such/folder"))

    def test_test_split(self, root: Path, configure: Configure) -> None:
        """The test split may be absent, or there."""
        assert build_data(configure()).test is None
        write_pair(root, "test", "scene_0")
        test = build_data(configure()).test
        assert test is not None
        assert len(test) == 1

    @pytest.mark.parametrize("crop", [(HEIGHT + 1, 32), (32, WIDTH + 1)])
    def test_crop_too_large(self, configure: Configure, crop: tuple[int, int]) -> None:
        """A crop larger than the image is refused with both sizes."""
        with pytest.raises(DataError, match="the crop is larger than the image") as caught:
            build_data(configure(crop=crop))
        assert (caught.value.found, caught.value.allowed) == (
            str(list(crop)),
            f"at most [{HEIGHT}, {WIDTH}]",
        )

    def test_batch(self, root: Path, configure: Configure) -> None:
        """Images come standardised with three channels, targets as class indices, both at the configured size."""
        data = build_data(
            configure(height=64, width=96, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5))
        )
        images_NCHW, target_NHW = data.val.__getitems__([(0, 0), (1, 0)])
        assert (images_NCHW.shape, images_NCHW.dtype) == ((2, 3, 64, 96), torch.float32)
        assert (target_NHW.shape, target_NHW.dtype) == ((2, 64, 96), torch.int64)
        assert target_NHW[0, 0].tolist() == [0] * 32 + [1] * 32 + [2] * 32
        picture = Image.open(root / "images" / "val" / "scene_0.png").resize(
            (96, 64), Image.Resampling.BILINEAR
        )
        expected_HWC = (np.asarray(picture, np.float64) / 255 - 0.5) / np.array([0.5, 0.25, 0.5])
        assert np.allclose(images_NCHW[0].permute(1, 2, 0).numpy(), expected_HWC, atol=1e-6)

    def test_grey_image(self, root: Path, configure: Configure) -> None:
        """A grey image, or one with transparency, has three channels, too."""
        Image.new("L", (WIDTH, HEIGHT), 128).save(root / "images" / "val" / "scene_0.png")
        Image.new("RGBA", (WIDTH, HEIGHT)).save(root / "images" / "val" / "scene_1.png")
        assert build_data(configure()).val.__getitems__([(0, 0), (1, 0)])[0].shape == (
            2,
            3,
            HEIGHT,
            WIDTH,
        )

    @pytest.mark.parametrize("workers", [0, 1])
    def test_broken_image(self, root: Path, configure: Configure, workers: int) -> None:
        """An image that cannot be read is reported when it is reached, by whichever process."""
        path = root / "images" / "val" / "scene_1.png"
        path.write_bytes(path.read_bytes()[:100])
        batches = Batches(build_data(configure()).val, 1, None, workers, torch.device("cpu")).epoch(
            0
        )
        assert len(next(batches)) == 2
        with pytest.raises(DataError, match="an image file cannot be read") as caught:
            next(batches)
        assert caught.value.where == str(path)


class TestAugmentation:
    SEEDS = range(1, 41)

    def test_flips(self, configure: Configure) -> None:
        """About half of the training images are mirrored, mask and image together, by their own seed alone."""
        data = build_data(configure()).train
        (plain, plain_mask), *_ = [data.__getitems__([(0, 0)])]
        mirrored = 0
        for seed in self.SEEDS:
            images_NCHW, target_NHW = data.__getitems__([(0, seed)])
            flipped = torch.equal(images_NCHW, plain.flip(-1))
            assert flipped or torch.equal(images_NCHW, plain)
            assert torch.equal(target_NHW, plain_mask.flip(-1) if flipped else plain_mask)
            assert torch.equal(images_NCHW, data.__getitems__([(1, 7), (0, seed)])[0][1:])
            mirrored += flipped
        assert 10 < mirrored < 30

    def test_no_flip(self, configure: Configure) -> None:
        """Mirroring can be switched off."""
        data = build_data(configure(flip=False)).train
        assert all(
            torch.equal(data.__getitems__([(0, seed)])[0], data.__getitems__([(0, 0)])[0])
            for seed in self.SEEDS
        )

    def test_crops(self, configure: Configure) -> None:
        """Crops have their size, are parts of the image with the same part of the mask, and lie anywhere in it, the far edge included."""
        data = build_data(configure(crop=(32, 40), flip=False)).train
        (whole, whole_mask), places = data.__getitems__([(0, 0)]), set()
        assert whole.shape == (1, 3, HEIGHT, WIDTH)
        for seed in self.SEEDS:
            images_NCHW, target_NHW = data.__getitems__([(0, seed)])
            (x,) = [
                x for x in range(WIDTH - 40 + 1) if torch.equal(images_NCHW, whole[..., x : x + 40])
            ]
            assert torch.equal(target_NHW, whole_mask[..., x : x + 40])
            places.add(x)
        assert {0, WIDTH - 40} <= places


@pytest.mark.usefixtures("one_thread")
class TestTraining:
    def config(self, data: FolderData, **changes: Any) -> SegmentationConfig:
        """One epoch on the folder."""
        given = {
            "epochs": 1,
            "batch_size": 2,
            "data": data.model_dump(),
            "loss": {"dice_weight": 0.3},
            "weights": {"method": "inverse_freq"},
        }
        return SegmentationConfig.model_validate(given | changes)

    @pytest.mark.parametrize("changes", [{}, {"crop": (32, 32)}])
    def test_epoch(self, configure: Configure, changes: dict[str, Any]) -> None:
        """An epoch on a folder: a record, and no test score without a test split."""
        config = self.config(configure(**changes))
        data, counts = train.prepare(config, "cpu"), train.count_classes(config)
        (record,) = list(train.train(config, data, counts, "cpu", NoCheckpoints()))
        assert record.steps == 2
        assert math.isfinite(record.metric)
        assert record.test is None
        assert record.used["environment.classes"] == list(CLASSES)

    def test_decoding_processes(self, root: Path, configure: Configure) -> None:
        """With decoding processes the numbers are the same, and closing the training ends the processes."""
        write_pair(root, "test", "scene_0")
        own = psutil.Process()
        before, records = set(own.children(recursive=True)), []
        for workers in (0, 1):
            config = self.config(configure(loader_workers=workers), epochs=2)
            data, counts = train.prepare(config, "cpu"), train.count_classes(config)
            training = train.train(config, data, counts, "cpu", NoCheckpoints())
            records.append([next(training)])
            assert len(set(own.children(recursive=True)) - before) == 2 * workers
            training.close()
        gc.collect()
        psutil.wait_procs(set(own.children(recursive=True)) - before, timeout=PATIENCE_S)
        assert set(own.children(recursive=True)) <= before
        (alone,), (helped,) = records
        assert (alone.train_loss, alone.val_loss, alone.metric) == (
            helped.train_loss,
            helped.val_loss,
            helped.metric,
        )

    def test_crop_does_not_fit(self, configure: Configure) -> None:
        """A crop that the encoder's strides do not divide is refused like an image's size."""
        with pytest.raises(ConfigError, match="the image size does not match the model"):
            train.prepare(self.config(configure(crop=(32, 34))), "cpu")
