"""Seeds from (study seed, trial number, purpose)."""

from __future__ import annotations

import hashlib
from itertools import product

import pytest

from search.planning.random_seeds import derive_seed


class TestDerive:
    @pytest.mark.parametrize(
        ("study", "trial", "purpose", "seed"),
        [(0, 0, "training", 3221372607), (7, 12, "sampler", 1421498260)],
    )
    def test_for_ever(self, study: int, trial: int, purpose: str, seed: int) -> None:
        """Seeds never change between versions: they are the first four bytes of a SHA-256."""
        assert (
            derive_seed(study, trial, purpose)
            == seed
            == int(hashlib.sha256(f"{study}:{trial}:{purpose}".encode()).hexdigest()[:8], 16)
        )

    def test_apart(self) -> None:
        """Studies, trials and purposes have different seeds, also 1 and 11, and 11 and 1."""
        every = list(product((0, 1, 11, 111, 2**32 - 1), range(200), ("sampler", "training")))
        assert len({derive_seed(*one) for one in every}) == len(every)

    def test_range(self) -> None:
        """Seeds are whole numbers from 0 to below 2³², which NumPy and torch accept."""
        seeds = [derive_seed(0, number, "training") for number in range(500)]
        assert all(0 <= seed < 2**32 for seed in seeds)
        assert (min(seeds) < 2**26, max(seeds) > 2**32 - 2**26) == (True, True)
