"""Models and tokenisers of transformers by name: from a local folder or the hub, or one clear message at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from spaces.errors import ConfigError

transformers.logging.set_verbosity_error()  # its tables of freshly initialised weights are for programmers
transformers.utils.logging.disable_progress_bar()


def tokenizer(name: str, place: str) -> Any:
    """A tokeniser by name.

    Args:
        name: on the hub, or of a local folder.
        place: of the name in a study.

    Raises:
        ConfigError: when it cannot be had.
    """
    return _loaded(lambda: transformers.AutoTokenizer.from_pretrained(name), name, place)


def classifier(name: str, place: str, classes: int) -> Any:
    """A sequence classifier by name, in float32; its head is new where the checkpoint has another number of classes, or none.

    Args:
        name: on the hub, or of a local folder.
        place: of the name in a study.
        classes: how many there are.

    Raises:
        ConfigError: when it cannot be had.
    """
    return _loaded(
        lambda: transformers.AutoModelForSequenceClassification.from_pretrained(name, num_labels=classes, ignore_mismatched_sizes=True, dtype=torch.float32), name, place
    )


def _loaded(load: Callable[[], Any], name: str, place: str) -> Any:
    if _means_folder(name) and not Path(name).is_dir():
        raise ConfigError(f"there is no folder {name}", where=place, found=name, allowed="a folder that save_pretrained wrote, or a name on the hub", next_step="check the path; it is relative to the working directory")
    try:
        return load()
    except Exception as problem:  # from a hub's network error to a missing key, it raises anything
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise ConfigError(
            f"{name!r} is neither a folder here nor to be had from the Hugging Face hub{offline}", where=place, found=f"{type(problem).__name__}: {str(problem).splitlines()[0][:200] if str(problem) else ''}",
            allowed="a local folder with config.json, weights and tokeniser, or the name of a checkpoint on the hub",
            next_step="leave base.model.checkpoint out for a small BERT that needs no hub, or download the checkpoint where there is a network and name its folder",
        ) from None  # fmt: skip


def _means_folder(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1
