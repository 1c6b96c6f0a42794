"""Write the digits that the package ships from scikit-learn: `python -m benchmarks.make_digits`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from objectives.data.digits import DIGITS_FILE


def write_digits(path: Path) -> None:
    """Write the 8×8 images (gray values 0…16) and their labels as bytes, reproducibly."""
    digits = load_digits()
    images_NHW, labels_N = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    assert np.array_equal(images_NHW, digits.images), "the grey values are whole numbers"
    np.savez_compressed(path, images=images_NHW, labels=labels_N)


def main() -> int:
    """Write the file that `objectives.data.digits` reads, or another one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.make_digits", description=__doc__)
    parser.add_argument(
        "--to", type=Path, default=DIGITS_FILE, metavar="FILE", help="another place, ending in .npz"
    )
    path: Path = parser.parse_args().to
    write_digits(path)
    print(f"{path}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
