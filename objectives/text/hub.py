"""Models and tokenisers of transformers by name: from a local folder, the local cache or the hub, or one clear message at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import torch
import transformers

from spaces.errors import ConfigError

transformers.logging.set_verbosity_error()  # its tables of freshly initialised weights are for programmers
transformers.utils.logging.disable_progress_bar()

PROBE_S = 4.0
"""How long the hub has to answer one question, before anything is downloaded: the library asks a dead network for a minute."""

Loaded = TypeVar("Loaded")


def tokenizer(name: str, place: str) -> Any:
    """A tokeniser by name.

    Args:
        name: on the hub, or of a local folder.
        place: of the name in a study.

    Raises:
        ConfigError: when it cannot be had.
    """
    return _loaded(
        lambda where, options: transformers.AutoTokenizer.from_pretrained(where, **options),
        name,
        place,
    )


def classifier(name: str, place: str, classes: int, dropout: float | None = None) -> Any:
    """A sequence classifier by name, in float32; its head is new where the checkpoint has another number of classes, or none.

    Args:
        name: on the hub, or of a local folder.
        place: of the name in a study.
        classes: how many there are.
        dropout: for all of its dropout rates; None leaves them as they are.

    Raises:
        ConfigError: when it cannot be had.
    """

    def load(where: str, options: dict[str, Any]) -> Any:
        config = transformers.AutoConfig.from_pretrained(where, num_labels=classes, **options)
        for field in dropout_fields(config) if dropout is not None else ():
            setattr(config, field, dropout)
        kinds = transformers.AutoModelForSequenceClassification
        return kinds.from_pretrained(
            where, config=config, ignore_mismatched_sizes=True, dtype=torch.float32, **options
        )

    return _loaded(load, name, place)


def dropout_fields(config: Any) -> list[str]:
    """The names under which a model's configuration keeps dropout rates: some models have them there and in no module."""
    return sorted(
        name
        for name, value in vars(config).items()
        if "dropout" in name and isinstance(value, float)
    )


def _loaded(load: Callable[[str, dict[str, Any]], Loaded], name: str, place: str) -> Loaded:
    """From a folder; else from the cache, so that the revision stays the same for all trials and no network is asked; else from the hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _told(
            lambda: load(str(folder), {}),
            f"the folder {name} holds no such model or tokeniser of transformers",
            name,
            place,
        )
    if _means_folder(name):
        raise ConfigError(
            f"there is no folder {name}",
            where=place,
            found=name,
            allowed="a folder that save_pretrained wrote, or a name on the hub",
            next_step="check the path; it is relative to the working directory",
        )
    try:
        return load(name, {"local_files_only": True})
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # noqa: S110 - it is not, or not wholly, in the cache
        pass
    offline = (
        " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    )
    what = f"{name!r} is neither a folder here nor to be had from the Hugging Face hub{offline}"
    _told(lambda: huggingface_hub.model_info(name, timeout=PROBE_S), what, name, place)
    return _told(
        lambda: load(name, {}), f"{name!r} on the Hugging Face hub cannot be loaded", name, place
    )


def _told(question: Callable[[], Loaded], what: str, name: str, place: str) -> Loaded:
    try:
        return question()
    except (MemoryError, torch.OutOfMemoryError):
        raise  # of which a worker knows what to make
    except Exception as problem:  # from a hub's network error to a missing key, it raises anything
        raise ConfigError(
            what,
            where=place,
            found=f"{type(problem).__name__}: {str(problem).splitlines()[0][:200] if str(problem) else ''}",
            allowed="a local folder with config.json, weights and tokeniser, or the name of a checkpoint on the hub",
            next_step="leave base.model.checkpoint out for a small BERT that needs no hub, or download the checkpoint where there is a network and name its folder",
        ) from None


def _means_folder(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1
