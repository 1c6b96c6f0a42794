"""A study in a store: made when it is new, taken up when it is there, refused when it is another one of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.plan import Plan, make_plan
from spaces.errors import StudyError
from spaces.paths import flatten
from spaces.study import StudySpec
from storage.address import safe_url
from storage.rows import StoredStudy
from storage.store import Store, open_store

ABSENT = "(absent)"


@dataclass(frozen=True)
class Session:
    """An open store with the study that is to be worked on."""

    store: Store
    stored: StoredStudy
    plan: Plan


def open_session(spec: StudySpec, url: str, *, accept_change: bool = False) -> Session:
    """Check the study, open the store, and find or make the study there.

    Raises:
        StudyError: when the study cannot work, or another definition stands under its name.
        StoreError: when the store cannot be used.
    """
    plan = make_plan(spec)
    store = open_store(url)
    stored = store.study(spec.name)
    if stored is None:
        stored = _make(store, plan, url)
    changes = differences(stored.definition, spec)
    if changes and not accept_change:
        store.close()
        shown = "\n           ".join(f"{path}: {old} → {new}" for path, old, new in changes[:12])
        raise StudyError(
            f"the study {spec.name!r} is in the store with another definition", where=safe_url(url), found=shown,
            next_step="give the new one a name of its own with --name, or say that the change is meant with --accept-change",
        )  # fmt: skip
    if changes or stored.definition["trials"] != spec.trials:
        store.redefine_study(stored.id, spec.model_dump(mode="json"))
    return Session(store, store.study(spec.name) or stored, plan)


def _make(store: Store, plan: Plan, url: str) -> StoredStudy:
    from search.study import enqueue_presets, make_study, open_trials  # Optuna: not needed to take a study up

    trials = open_trials(url)
    try:
        if plan.spec.name in [summary.study_name for summary in trials.get_all_studies()]:
            raise StudyError(
                f"a study {plan.spec.name!r} that was not made by `search` is in the database", where=safe_url(url),
                found="an Optuna study of that name", next_step="choose another name with --name",
            )  # fmt: skip
        study = make_study(trials, plan, plan.spec.name)
        enqueue_presets(study, plan)
        return store.register_study(study._study_id, plan.spec.name, plan.spec.model_dump(mode="json"))  # noqa: SLF001
    finally:
        trials.remove_session()


def differences(stored: Mapping[str, Any], spec: StudySpec) -> list[tuple[str, str, str]]:
    """What the stored definition has otherwise: (path, stored, given). The words about it and the budget do not count."""
    old = {path: value for path, value in flatten(stored) if path.split(".")[0] not in ("about", "trials")}
    new = dict(flatten(spec.definition()))
    paths = [*old, *(path for path in new if path not in old)]
    return [(path, str(old.get(path, ABSENT)), str(new.get(path, ABSENT))) for path in paths if old.get(path, ABSENT) != new.get(path, ABSENT)]
