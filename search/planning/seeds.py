"""Every random number of a trial comes from (study seed, trial number): any trial can be run again, alone, anywhere."""

from __future__ import annotations

import hashlib


def derive_seed(study_seed: int, trial_number: int, purpose: str) -> int:
    """A seed below 2³² for one purpose (`sampler`, `training`), unrelated between trials and purposes."""
    digest = hashlib.sha256(f"{study_seed}:{trial_number}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
