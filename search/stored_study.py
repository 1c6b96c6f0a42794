"""Read a stored study: find it by name, and get its definition, plan and sampled values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search.planning.base_rate import BASE_LR
from search.planning.plan import Plan, make_plan
from spaces.config_tree import ConfigTree
from spaces.errors import StoreError, nearest
from spaces.loader import check
from spaces.parameters import is_active
from spaces.study import StudySpec
from storage.rows import StoredStudy

if TYPE_CHECKING:
    from storage.store import Store

LR_MULTIPLE = "optimizer.lr_multiple"
"""Path of the factor by which the base learning rate is multiplied."""


def find_study(store: Store, name: str) -> StoredStudy:
    """Find a study in the store by its name.

    Raises:
        StoreError: when there is none.
    """
    stored = store.studies.find_study(name)
    if stored is None:
        known = [study.name for study in store.studies.list_studies()]
        raise StoreError(
            f"there is no study {name!r} in the store{nearest(name, known)}",
            where=store.where,
            found=name,
            allowed=", ".join(known) or "the store is empty",
            next_step="start it with `search run --study …`",
        )
    return stored


def stored_plan(stored: StoredStudy) -> Plan:
    """Make the plan of a stored study, with the learning rate that its probe found, if any."""
    spec = check(StudySpec, stored.definition, f"study {stored.name} in the store")
    return make_plan(spec, found_base_lr(stored))


def found_base_lr(stored: StoredStudy) -> float | None:
    """Return the base learning rate that the study's probe found; None if there is no result."""
    return None if stored.rate_probe is None else stored.rate_probe.base_lr


def study_spec(store: Store, name: str) -> StudySpec:
    """Load the definition of a stored study.

    Raises:
        StoreError: when there is no such study.
    """
    return check(StudySpec, find_study(store, name).definition, f"study {name} in the store")


def sampled_values(
    spec: StudySpec, config: Mapping[str, Any]
) -> tuple[dict[str, Any], float | None]:
    """Get the sampled values of a configuration, by path.

    Returns:
        The values, and the learning rate if its multiple was sampled.
    """
    tree = ConfigTree(config)
    values = {
        path: tree[path]
        for path, dimension in spec.space.items()
        if path in tree and is_active(dimension.when, tree)
    }
    if LR_MULTIPLE not in values or BASE_LR not in tree:
        return values, None
    return values, tree[BASE_LR] * values[LR_MULTIPLE]
