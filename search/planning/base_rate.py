"""The base learning rate of a study: a number, or `auto` for what a probe finds.

`auto` is a word of studies alone. The configuration of a trial has a number, so that it can be
trained again without its study. Until the probe has found one, that is the objective's default.
"""

from __future__ import annotations

from collections.abc import Iterator

from objectives.contract import Objective
from search.planning.study_error import study_error
from spaces.config_tree import ConfigTree
from spaces.study import StudySpec

BASE_LR = "optimizer.base_lr"
"""Path of the base learning rate."""

AUTO = "auto"
"""Value of that path in a study's base that has a probe find the rate."""


def wants_probe(spec: StudySpec) -> bool:
    """Return whether a probe finds the study's base rate."""
    return ConfigTree.from_paths(spec.base).get(BASE_LR) == AUTO


def base_tree(spec: StudySpec, base_lr: float | None = None) -> ConfigTree:
    """Return the study's base, with a number or nothing in place of `auto`.

    Args:
        spec: the study.
        base_lr: what the probe found; None: the objective's default applies.
    """
    tree = ConfigTree.from_paths(spec.base)
    if tree.get(BASE_LR) != AUTO:
        return tree
    if base_lr is not None:
        return tree.overlay(ConfigTree.from_paths({BASE_LR: base_lr}))
    return ConfigTree.from_paths({path: tree[path] for path in tree if path != BASE_LR})


def check_probe(spec: StudySpec, kind: Objective) -> None:
    """Check that a probe can find the base rate, if the study wants one.

    Raises:
        StudyError: when the objective has no probe, or the base rate is searched.
    """
    if not wants_probe(spec):
        return
    place = ("base", *BASE_LR.split("."))
    if not kind.has_rate_probe:
        raise study_error(
            spec,
            place,
            f"the objective {spec.objective!r} has no probe of the learning rate",
            found=AUTO,
            allowed="a positive number",
            next_step="set the base learning rate that suits your data",
        )
    if BASE_LR in spec.space:
        raise study_error(
            spec,
            place,
            f"{BASE_LR} is searched, so no probe is to find it",
            found=AUTO,
            next_step=f"remove it from the base, or search optimizer.lr_multiple instead of {BASE_LR}",
        )


def probe_warnings(spec: StudySpec) -> Iterator[str]:
    """Yield what a probe cannot do for the study."""
    if wants_probe(spec) and "optimizer.kind" in spec.space:
        yield (
            f"{BASE_LR}: auto finds a rate for the optimizer of the base, but optimizer.kind is "
            "searched; another optimizer needs a rate of its own"
        )
