"""Seeds that follow from study seed and trial number, so that any trial can be repeated alone."""

from __future__ import annotations

import hashlib


def derive_seed(study_seed: int, trial_number: int, purpose: str) -> int:
    """Derive the seed for one purpose (`sampler`, `training`) of a trial, a number below 2³²."""
    digest = hashlib.sha256(f"{study_seed}:{trial_number}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
