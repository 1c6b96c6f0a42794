"""A study that the store has: found by its name, with its definition, its plan, and what was sampled for its trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search.planning.plan import Plan, make_plan
from spaces.config_tree import ConfigTree
from spaces.errors import StoreError, nearest
from spaces.loader import check
from spaces.parameters import is_active
from spaces.study import StudySpec
from storage.rows import StoredStudy

if TYPE_CHECKING:
    from storage.store import Store


def stored_plan(stored: StoredStudy) -> Plan:
    """The plan of a stored study."""
    return make_plan(check(StudySpec, stored.definition, f"study {stored.name} in the store"))


RATE, BASE_RATE = "optimizer.lr_multiple", "optimizer.base_lr"


def find_study(store: Store, name: str) -> StoredStudy:
    """The study called `name` in the store.

    Raises:
        StoreError: when there is none.
    """
    stored = store.studies.find_study(name)
    if stored is None:
        known = [study.name for study in store.studies.list_studies()]
        what = f"there is no study {name!r} in the store{nearest(name, known)}"
        allowed = ", ".join(known) or "the store is empty"
        raise StoreError(
            what,
            where=store.where,
            found=name,
            allowed=allowed,
            next_step="start it with `search run --study …`",
        )
    return stored


def sampled(spec: StudySpec, config: Mapping[str, Any]) -> tuple[dict[str, Any], float | None]:
    """Path → value of what was sampled for a configuration, and the learning rate that a sampled multiple amounts to."""
    values = ConfigTree(config)
    params = {
        path: values[path]
        for path, dimension in spec.space.items()
        if path in values and is_active(dimension.when, values)
    }
    return params, values[BASE_RATE] * params[
        RATE
    ] if RATE in params and BASE_RATE in values else None


def study_spec(store: Store, name: str) -> StudySpec:
    """The definition of the study called `name`.

    Raises:
        StoreError: when there is none.
    """
    return check(StudySpec, find_study(store, name).definition, f"study {name} in the store")
