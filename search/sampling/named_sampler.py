"""Any sampler of Optuna's by name, seeded per trial."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from spaces.errors import StudyError, nearest
from spaces.study import SamplerConfig

PLACE = "sampler"

UNUSABLE = {"GridSampler", "BruteForceSampler", "PartialFixedSampler", "BaseGASampler"}
"""Samplers that need a space of their own, or enumerate it, or wrap another sampler."""


REQUIRED = {"CmaEsSampler": "cmaes"}
"""Sampler → a package that Optuna imports for it, only once it samples."""


def list_samplers() -> list[str]:
    """List the names of the samplers that can be used."""
    return sorted(
        name
        for name, found in vars(optuna.samplers).items()
        if inspect.isclass(found)
        and issubclass(found, BaseSampler)
        and not inspect.isabstract(found)
        and name not in UNUSABLE
    )


def make_named_sampler(config: SamplerConfig, seed: int) -> BaseSampler:
    """Make a sampler of Optuna's from its name and its arguments.

    Raises:
        StudyError: when there is no such sampler, or it does not accept the arguments.
    """
    kind = _find_class(config.name)
    _check_package(str(config.name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return kind(**config.options, **_seed_argument(kind, seed))
        except (TypeError, ValueError, ImportError) as problem:
            raise StudyError(
                f"Optuna's {config.name} does not accept these options",
                place=(PLACE, "options"),
                found=str(problem).splitlines()[0],
                allowed=", ".join(_list_arguments(kind)),
                next_step="correct sampler.options",
            ) from None


def _check_package(name: str) -> None:
    package = REQUIRED.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise StudyError(
            f"Optuna's {name} needs a package that is not installed",
            place=(PLACE, "name"),
            found=f"no package {package}",
            next_step=f"pip install {package}",
        )


def _find_class(name: str | None) -> type[BaseSampler]:
    known = list_samplers()
    if name not in known:
        raise StudyError(
            f"Optuna has no sampler {name!r}{nearest(name or '', known)}"
            if name
            else "sampler.kind optuna needs the name of a sampler",
            place=(PLACE, "name"),
            found=str(name),
            allowed=", ".join(known),
            next_step="name one of these",
        )
    found: type[BaseSampler] = getattr(optuna.samplers, name)
    return found


def _list_arguments(kind: type[BaseSampler]) -> list[str]:
    return [name for name in inspect.signature(kind).parameters if name != "seed"]


def _seed_argument(kind: type[BaseSampler], seed: int) -> dict[str, Any]:
    return {"seed": seed} if "seed" in inspect.signature(kind).parameters else {}
