"""The embedded texts: real docstrings, imbalanced, with nothing in them that gives the answer away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from objectives.text import docstrings
from objectives.text.config import DocstringsData
from objectives.text.docstrings import GROUPS, load_docstrings
from objectives.text.texts import Texts
from spaces.errors import DataError

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of our own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def texts() -> Texts:
    """All of them."""
    return load_docstrings(DocstringsData(texts=100_000))


class TestTexts:
    def test_shares(self, texts: Texts) -> None:
        """Four groups in every split, with shares of about 6, 59, 18 and 17%."""
        for split in SPLITS:
            labels = getattr(texts, split).labels
            shares = np.bincount(labels, minlength=4) / len(labels)
            assert np.allclose(shares, (0.065, 0.59, 0.18, 0.165), atol=0.02)
        assert sum(len(getattr(texts, split).texts) for split in SPLITS) > 2000
        assert texts.count_classes().names == tuple(GROUPS)

    def test_distinct(self, texts: Texts) -> None:
        """No text stands twice, in whichever split and group."""
        lowered = [text.lower() for split in SPLITS for text in getattr(texts, split).texts]
        assert len(set(lowered)) == len(lowered)

    def test_masked(self, texts: Texts) -> None:
        """No text contains the name of a package or module, which would reveal its group."""
        names = {name.strip("_") for packages in GROUPS.values() for name in packages}
        pattern = re.compile(
            rf"(?<![A-Za-z0-9])({'|'.join(sorted(names))})(?![A-Za-z0-9])", re.IGNORECASE
        )
        assert [
            text for split in SPLITS for text in getattr(texts, split).texts if pattern.search(text)
        ] == []

    def test_no_module_in_two_splits(self) -> None:
        """The splits share no module, whatever the seed."""
        found = docstrings._drop_repeats(docstrings._load_cached())
        for seed in range(3):
            for group in GROUPS:
                splits = docstrings._split_modules(
                    [each for each in found if each.group == group], np.random.default_rng(seed)
                )
                modules = [{each.module for each in splits[name]} for name in SPLITS]
                assert all(modules)
                assert not modules[0] & modules[1]
                assert not (modules[0] | modules[1]) & modules[2]

    def test_alike(self) -> None:
        """Large modules and small ones stand in every split: validation is of the same making as test."""
        found = docstrings._drop_repeats(docstrings._load_cached())
        for seed in range(3):
            for group in ("tools", "concurrency", "mail"):
                splits = docstrings._split_modules(
                    [each for each in found if each.group == group], np.random.default_rng(seed)
                )
                largest = {
                    name: max(np.unique([each.module for each in texts], return_counts=True)[1])
                    for name, texts in splits.items()
                }
                assert max(largest.values()) <= 4 * min(largest.values())
                assert len(splits["val"]) == pytest.approx(len(splits["test"]), rel=0.15)

    def test_fewer(self, texts: Texts) -> None:
        """A smaller data set keeps the shares, and its texts are among those of the whole one."""
        few = load_docstrings(DocstringsData(texts=200))
        assert 180 <= sum(len(getattr(few, split).texts) for split in SPLITS) <= 220
        assert set(few.train.texts) < set(texts.train.texts)
        assert min(few.count_classes().counts) >= 8

    def test_again(self) -> None:
        """The same each time, from the cache or not; another seed splits otherwise."""
        first = load_docstrings(DocstringsData(texts=200))
        assert load_docstrings(DocstringsData(texts=200)) == first
        assert load_docstrings(DocstringsData(texts=200, seed=1)) != first

    def test_damaged_cache(self, cache: Path, texts: Texts) -> None:
        """An incomplete cache is replaced."""
        (path,) = (cache / "imbalance-search").glob("docstrings-*.json")
        path.write_text(path.read_text(encoding="utf-8")[:1000], encoding="utf-8")
        assert load_docstrings(DocstringsData(texts=100_000)) == texts


class TestStripped:
    def test_no_docstrings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An installation whose sources have no docstrings is refused with the next step."""
        library = tmp_path / "lib"
        library.mkdir()
        (library / "statistics.py").write_text(
            "def mean(data):\n    return sum(data) / len(data)\n", encoding="utf-8"
        )
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(docstrings, "_library_path", lambda: library)
        with pytest.raises(DataError, match="hardly any") as caught:
            load_docstrings(DocstringsData())
        assert caught.value.found == f"0 in the group 'markup', under {library}"
        assert "data of your own" in caught.value.next_step
