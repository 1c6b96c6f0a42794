"""Load models and tokenizers of transformers by name, from a local folder, the cache or the hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import torch
import transformers

from spaces.errors import ConfigError

transformers.logging.set_verbosity_error()  # it warns of every newly initialized weight
transformers.utils.logging.disable_progress_bar()

PROBE_S = 4.0
"""Seconds to wait for the hub before a download; the library itself would wait a minute."""

Loaded = TypeVar("Loaded")


def load_tokenizer(name: str, place: str) -> Any:
    """Load a tokenizer by name.

    Args:
        name: on the hub, or of a local folder.
        place: of the name in a study.

    Raises:
        ConfigError: when it cannot be loaded.
    """

    def load(where: str, options: dict[str, Any]) -> Any:
        return transformers.AutoTokenizer.from_pretrained(where, **options)

    return _load_from_anywhere(load, name, place)


def load_classifier(name: str, place: str, classes: int, dropout: float | None = None) -> Any:
    """Load a sequence classifier by name, in float32.

    Its head is new if the checkpoint has none, or one for another number of classes.

    Args:
        name: on the hub, or of a local folder.
        place: of the name in a study.
        classes: number of classes.
        dropout: for all dropout rates; None does not change them.

    Raises:
        ConfigError: when it cannot be loaded.
    """

    def load(where: str, options: dict[str, Any]) -> Any:
        config = transformers.AutoConfig.from_pretrained(where, num_labels=classes, **options)
        for field in dropout_fields(config) if dropout is not None else ():
            setattr(config, field, dropout)
        kinds = transformers.AutoModelForSequenceClassification
        return kinds.from_pretrained(
            where, config=config, ignore_mismatched_sizes=True, dtype=torch.float32, **options
        )

    return _load_from_anywhere(load, name, place)


def dropout_fields(config: Any) -> list[str]:
    """Return the fields with dropout rates; some models have rates for which there is no module."""
    return sorted(
        name
        for name, value in vars(config).items()
        if "dropout" in name and isinstance(value, float)
    )


def _load_from_anywhere(
    load: Callable[[str, dict[str, Any]], Loaded], name: str, place: str
) -> Loaded:
    """Load from a folder, else from the cache, else from the hub.

    The cache comes first so that all trials use the same revision and no network is needed.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        what = f"the folder {name} contains no such model or tokenizer of transformers"
        return _translate_errors(lambda: load(str(folder), {}), what, place)
    if _looks_like_folder(name):
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
    except Exception:  # noqa: S110 - it is not in the cache, or incomplete
        pass
    offline = ""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        offline = " (HF_HUB_OFFLINE is set)"
    what = f"{name!r} is neither a folder here nor available on the Hugging Face hub{offline}"
    _translate_errors(lambda: huggingface_hub.model_info(name, timeout=PROBE_S), what, place)
    what = f"{name!r} on the Hugging Face hub cannot be loaded"
    return _translate_errors(lambda: load(name, {}), what, place)


def _translate_errors(load: Callable[[], Loaded], what: str, place: str) -> Loaded:
    try:
        return load()
    except (MemoryError, torch.OutOfMemoryError):
        raise  # the worker handles these
    except Exception as problem:  # the library raises anything, from a network error to KeyError
        reason = (str(problem).splitlines() or [""])[0][:200]
        raise ConfigError(
            what,
            where=place,
            found=f"{type(problem).__name__}: {reason}",
            allowed="a local folder with config.json, weights and tokenizer, "
            "or the name of a checkpoint on the hub",
            next_step="leave base.model.checkpoint out for a small BERT that needs no hub, "
            "or download the checkpoint where there is a network and name its folder",
        ) from None


def _looks_like_folder(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1
