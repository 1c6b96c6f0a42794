"""Open a study in the store: create it, resume it, or refuse a different one of the same name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, NamedTuple, Self

from pydantic import ValidationError

from search.planning.plan import Plan, make_plan
from search.stored_study import found_base_lr
from spaces.config_tree import ConfigTree
from spaces.errors import StudyError
from spaces.study import MUTABLE_FIELDS, StudySpec
from storage.files.study_files import StudyFiles
from storage.location import StoreLocation
from storage.rows import StoredStudy
from storage.store import Store

ABSENT = "(absent)"
INCOMPARABLE = ("metric", "objective", "space")
"""A study whose definition changes in these would contain trials that cannot be compared."""

MAX_SHOWN = 12
"""How many changes of a definition an error lists."""


class Change(NamedTuple):
    """A difference between the stored definition of a study and the given one."""

    path: str
    stored: str
    given: str


@dataclass(frozen=True)
class Session:
    """An open store with the study to run. As a context manager, it closes the store at the end.

    Attributes:
        location: of the store; workers are started with it.
        stored: the study as it is in the store.
        plan: the checked plan of the study.
        files: the files of the studies in the store.
    """

    location: StoreLocation
    store: Store
    stored: StoredStudy
    plan: Plan
    files: StudyFiles

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_session(
    spec: StudySpec, location: StoreLocation, *, accept_change: bool = False
) -> Session:
    """Check the study, open the store, and find or create the study in it.

    Args:
        accept_change: resume a stored study although its definition changed.

    Raises:
        StudyError: when the study cannot work, or the store has a study of this name with another
            definition.
        StoreError: when the store cannot be used.
    """
    plan = make_plan(spec)
    store = location.open()
    try:
        check_sampler(store, spec)
        stored = _find_or_create(store, plan, location, accept_change=accept_change)
    except BaseException:
        store.delete_if_created()
        store.close()
        raise
    plan = replace(plan, base_lr=found_base_lr(stored))
    return Session(location, store, stored, plan, location.files())


def check_sampler(store: Store, spec: StudySpec) -> None:
    """Check what a study's sampler needs: earlier studies, or a sampler of Optuna's by name.

    Raises:
        StudyError: when there is none of that name, or it cannot be used.
    """
    sampler = spec.sampler
    if sampler.learn_from:
        from search.sampling.earlier_studies import load_earlier_studies

        load_earlier_studies(store, sampler.learn_from, spec.metric)
    if isinstance(sampler.knowledge, str):
        from search.sampling.study_curves import load_for_study

        load_for_study(spec)
    if sampler.kind == "optuna":
        from search.sampling.named_sampler import make_named_sampler

        make_named_sampler(sampler, 0)


def discard_untried(session: Session) -> bool:
    """Delete a study of which no trial could be run, and the store if this session created it.

    Returns:
        False, and nothing is deleted, when a trial was run.
    """
    from search.sampling.connection import close_trials, open_trials

    if not session.store.studies.forget_untried(session.stored.id):
        return False
    trials = open_trials(session.location)
    trials.delete_study(session.stored.optuna_study_id)
    close_trials(trials)
    session.store.delete_if_created()
    return True


def find_changes(stored: Mapping[str, Any], spec: StudySpec) -> list[Change]:
    """Compare the stored definition with the given one. Fields that may change do not count."""
    current = _fill_defaults(stored)
    old = ConfigTree({key: value for key, value in current.items() if key not in MUTABLE_FIELDS})
    new = ConfigTree(spec.definition())
    paths = [*old, *(path for path in new if path not in old)]
    return [
        Change(path, str(old.get(path, ABSENT)), str(new.get(path, ABSENT)))
        for path in paths
        if old.get(path, ABSENT) != new.get(path, ABSENT)
    ]


def _fill_defaults(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stored definition with the fields that its version did not have yet."""
    renamed = StudySpec.rename_former_keys(stored)
    try:
        return StudySpec.model_validate(renamed).model_dump(mode="json")
    except ValidationError:
        return renamed


def _find_or_create(
    store: Store, plan: Plan, location: StoreLocation, *, accept_change: bool
) -> StoredStudy:
    spec = plan.spec
    stored = store.studies.find_study(spec.name)
    if stored is None:
        return _create_study(store, plan, location)
    changes = find_changes(stored.definition, spec)
    if changes:
        _check_changes(changes, spec.name, location.safe_url, accept_change=accept_change)
    if spec.epochs_budget is None:  # a limit stays until another one is given
        spec = spec.model_copy(update={"epochs_budget": stored.definition.get("epochs_budget")})
    definition = spec.model_dump(mode="json")
    if not changes and all(stored.definition.get(key) == definition[key] for key in MUTABLE_FIELDS):
        return stored
    store.studies.redefine_study(stored.id, definition)
    return store.studies.find_study(spec.name) or stored


def _check_changes(
    changes: Sequence[Change], name: str, where: str, *, accept_change: bool
) -> None:
    """Refuse changes that are not accepted, or that would make a study's trials incomparable."""
    lasting = [change for change in changes if change.path.split(".")[0] in INCOMPARABLE]
    if accept_change and not lasting:
        return
    if accept_change:
        raise StudyError(
            f"metric, objective and space of the study {name!r} cannot change under its name: "
            "its trials would not be comparable",
            where=where,
            found=_list_changes(lasting),
            next_step="give the new study a name of its own with --name",
        )
    next_step = f"{_suggest_options(changes)}, give the new study a name of its own with --name"
    if not lasting:
        next_step += ", or accept the change with --accept-change"
    raise StudyError(
        f"study {name!r} already exists with a different definition",
        where=where,
        found=_list_changes(changes),
        next_step=next_step,
    )


def _list_changes(changes: Sequence[Change]) -> str:
    shown = [f"{change.path}: {change.stored} → {change.given}" for change in changes[:MAX_SHOWN]]
    return "\n           ".join(shown)


def _suggest_options(changes: Sequence[Change]) -> str:
    options = [
        f"--{change.path} {change.stored}"
        if change.path in ("epochs", "seed")
        else f"--set {change.path}={change.stored}"
        for change in changes[:MAX_SHOWN]
        if change.path in ("epochs", "seed") or change.path.startswith("sampler.")
    ]
    shown = f" ({' '.join(options)})" if options else ""
    return f"repeat the options of its first command{shown} to resume it"


def _create_study(store: Store, plan: Plan, location: StoreLocation) -> StoredStudy:
    # Imports Optuna, which a command that resumes a study does not need.
    from search.sampling.connection import close_trials, open_trials
    from search.sampling.first_trials import enqueue_trials, waiting_presets
    from search.sampling.optuna_study import belongs_to_other_program, make_study

    trials = open_trials(location)
    try:
        if belongs_to_other_program(trials, plan.spec.name):
            raise StudyError(
                f"the database has a study {plan.spec.name!r} that `search` did not create",
                where=location.safe_url,
                found="an Optuna study of that name",
                next_step="choose another name with --name",
            )
        study = make_study(trials, plan, plan.spec.name)
        waiting = waiting_presets(study, plan)
        if not store.knows_optuna():
            enqueue_trials(study, waiting)
            waiting = []
        definition = plan.spec.model_dump(mode="json")
        study_id = study._study_id  # noqa: SLF001
        return store.studies.register_study(study_id, plan.spec.name, definition, waiting)
    finally:
        close_trials(trials)
