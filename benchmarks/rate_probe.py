"""Does the probe's learning rate fit? `python -m benchmarks.rate_probe digits --optimizer adamw`.

The probe finds a base rate for a data set; then short trainings at 0.1, 1 and 10 times that rate
show whether it fits. The real images are reduced as for the campaigns, into a folder:

    python -m benchmarks.rate_probe camvid --root CAMVID --folder FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.campaign import study
from benchmarks.campaign.real_images import REDUCTIONS, reduce_images
from objectives.contract import NoCheckpoints
from objectives.segmentation import train as segmentation
from objectives.segmentation.config import SegmentationConfig
from objectives.training.stable_rate import find_base_lr
from spaces.config_tree import ConfigTree
from spaces.rate_probe import RateProbe

MULTIPLES = (1.0, 0.1, 10.0)

LOSS = {
    "weights": {"method": "sqrt_inv_freq", "clip_ratio": 100},
    "loss": {"dice_weight": 0.3, "smooth": 5},
}
"""What is trained: not the plain loss that the rate is found with, since a study searches losses."""


def load_base(name: str, root: Path | None, folder: Path) -> dict[str, Any]:
    """Return the base configuration of a data set, whose images are made where they are real."""
    if name not in REDUCTIONS:
        return {"schedule": {"lr": "cosine"}}
    if root is None:
        raise SystemExit(f"{name} needs --root: the folder of the data set")
    reduce_images(name, root, folder)
    base: dict[str, Any] = yaml.safe_load(study(name).read_text())["base"]
    base["data"]["root"] = str(folder)
    return base


def make_config(base: dict[str, Any], **changes: Any) -> SegmentationConfig:
    """Make a configuration; a keyword has __ for each dot."""
    paths = {path.replace("__", "."): value for path, value in changes.items()}
    tree = ConfigTree(base).overlay(ConfigTree.from_paths(paths))
    return SegmentationConfig.model_validate(tree.nested)


def measure(
    base: dict[str, Any], optimizer: str, epochs: int, seed: int
) -> Iterator[RateProbe | tuple[float, float]]:
    """Yield what the probe found, then each multiple with the best metric of its training."""
    given = {"optimizer__kind": optimizer, "seed": seed, "epochs": epochs}
    config = make_config(base, **given)
    data, counts = segmentation.prepare(config, "cpu"), segmentation.count_classes(config)
    found = find_base_lr(list(segmentation.probe_rates(config, data, counts, "cpu")), optimizer)
    if found is None:
        raise SystemExit("no rate is stable")
    yield found
    for multiple in MULTIPLES:
        rates = {"optimizer__base_lr": found.base_lr, "optimizer__lr_multiple": multiple}
        config = make_config(base, **given, **rates, **LOSS)
        records = segmentation.train(config, data, counts, "cpu", NoCheckpoints())
        yield multiple, max(record.metric for record in records)


def main() -> int:
    """Print the probe's result and the trainings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", choices=["digits", *REDUCTIONS])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("images"))
    parser.add_argument("--optimizer", choices=["sgd", "adamw"], default="sgd")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = load_base(options.data, options.root, options.folder)
    for result in measure(base, options.optimizer, options.epochs, options.seed):
        if isinstance(result, RateProbe):
            print(f"base {result.base_lr:g}, stable up to {result.stable_lr:g}", flush=True)
        else:
            print(f"× {result[0]:g}: best miou {result[1]:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
