"""A study in a store: made when it is new, taken up when it is there, refused when it is another one of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.planning.plan import Plan, make_plan
from spaces.errors import StudyError
from spaces.paths import flatten
from spaces.study import CIRCUMSTANCES, StudySpec
from storage.database.url import safe_url
from storage.rows import StoredStudy
from storage.store import Store, open_store

ABSENT = "(absent)"

Change = tuple[str, str, str]
"""Path, what is stored, what is given."""


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
    spec = plan.spec
    store = open_store(url)
    stored = store.studies.find_study(spec.name)
    if stored is None:
        stored = _make(store, plan, url)
    changes = differences(stored.definition, spec)
    if changes:
        try:
            _check_changes(changes, spec.name, url, accept_change=accept_change)
        except StudyError:
            store.close()
            raise
    if changes or any(
        stored.definition.get(key) != value
        for key, value in spec.model_dump(mode="json").items()
        if key in CIRCUMSTANCES
    ):
        store.studies.redefine_study(stored.id, spec.model_dump(mode="json"))
    return Session(store, store.studies.find_study(spec.name) or stored, plan)


def _check_changes(changes: list[Change], name: str, url: str, *, accept_change: bool) -> None:
    """A change may be meant, but not one that would make the trials of a study incomparable."""
    lasting = [
        change for change in changes if change[0].split(".")[0] in ("metric", "objective", "space")
    ]
    if accept_change and not lasting:
        return
    shown = "\n           ".join(
        f"{path}: {old} → {new}" for path, old, new in (lasting if accept_change else changes)[:12]
    )
    if accept_change:
        what = f"metric, objective and space of the study {name!r} cannot change under its name: its trials would not compare"
        raise StudyError(
            what,
            where=safe_url(url),
            found=shown,
            next_step="give the new one a name of its own with --name",
        )
    again = " ".join(f"--{path} {old}" for path, old, _ in changes if path in ("epochs", "seed"))
    raise StudyError(
        f"the study {name!r} is in the store with another definition",
        where=safe_url(url),
        found=shown,
        next_step=f"repeat the options of its first command{f' ({again})' if again else ''} to go on with it, give the new one a name of its own with --name"
        + ("" if lasting else ", or say that the change is meant with --accept-change"),
    )


def discard_untried(session: Session, url: str) -> bool:
    """Take a study out of the store that could not try a single trial, and the store with it if it was made for that.

    False, and nothing is taken out, when a trial was tried.
    """
    from search.sampling.connection import close_trials, open_trials

    if not session.store.studies.forget_untried(session.stored.id):
        return False
    trials = open_trials(url)
    trials.delete_study(session.stored.optuna_study_id)
    close_trials(trials)
    session.store.unmake()
    return True


def _make(store: Store, plan: Plan, url: str) -> StoredStudy:
    # Optuna: not needed to take a study up
    from search.sampling.connection import close_trials, open_trials
    from search.sampling.study import (
        belongs_to_other_program,
        enqueue_trials,
        make_study,
        waiting_presets,
    )

    trials = open_trials(url)
    try:
        if belongs_to_other_program(trials, plan.spec.name):
            raise StudyError(
                f"a study {plan.spec.name!r} that was not made by `search` is in the database",
                where=safe_url(url),
                found="an Optuna study of that name",
                next_step="choose another name with --name",
            )
        study = make_study(trials, plan, plan.spec.name)
        waiting = waiting_presets(study, plan)
        if not store.knows_optuna():
            enqueue_trials(study, waiting)
            waiting = []
        definition = plan.spec.model_dump(mode="json")
        return store.studies.register_study(study._study_id, plan.spec.name, definition, waiting)  # noqa: SLF001
    finally:
        close_trials(trials)


def differences(stored: Mapping[str, Any], spec: StudySpec) -> list[Change]:
    """What the stored definition has otherwise: (path, stored, given). The words about it, the budget and the like do not count."""
    old = {
        path: value for path, value in flatten(stored) if path.split(".")[0] not in CIRCUMSTANCES
    }
    new = dict(flatten(spec.definition()))
    paths = [*old, *(path for path in new if path not in old)]
    return [
        (path, str(old.get(path, ABSENT)), str(new.get(path, ABSENT)))
        for path in paths
        if old.get(path, ABSENT) != new.get(path, ABSENT)
    ]
