"""Campaigns: recorded full-length trials, none stopped, on which signals and pruners are replayed.

Thresholds are tuned on `first`. The others only check them: `second`, with other seeds and another
architecture, `presets`, the configurations that are known to behave, and `camvid` and `nuclei`, on
real images, of which the curves are committed and never the images.
"""

from pathlib import Path

FOLDER = Path(__file__).parent

SEEDS: dict[str, tuple[int, ...]] = {
    "first": (1,),
    "second": (2,),
    "presets": tuple(range(20)),
    "camvid": (3, 5),
    "nuclei": (4,),
}
"""Campaign → the seeds of its studies, one after the other."""


def records(name: str) -> Path:
    """The committed records of a campaign."""
    return FOLDER / f"{name}.jsonl.gz"


def study(name: str) -> Path:
    """The study that made them."""
    return FOLDER / f"{name}.yaml"
