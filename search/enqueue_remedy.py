"""Try what was prescribed to a trial: its configuration with the remedy's changes, as the study's next trial."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from search.diagnosis.remedies import describe_remedy
from search.planning.plan import Params, Plan, complete_config, make_plan
from search.report.trial import trial_report
from search.session import Session
from spaces.config_tree import ConfigTree
from spaces.errors import InputError, StudyError
from spaces.loader import explain
from spaces.parameters import is_active
from spaces.records import Remedy
from storage.rows import EnqueuedTrial, StoredTrial

CHOICE = re.compile(r"(?P<trial>\d+)(?::(?P<remedy>[1-9]\d*))?")

OPTION = "--enqueue-remedy"


class Choice(NamedTuple):
    """Which trial's remedy; remedies count from 1."""

    trial: int
    remedy: int = 1


def parse_choice(text: str) -> Choice:
    """`7` is the first remedy of trial 7, `7:2` its second.

    Raises:
        InputError: for anything else.
    """
    match = CHOICE.fullmatch(text.strip())
    if match is None:
        raise InputError(
            "that is no trial's remedy",
            where=OPTION,
            found=text,
            allowed="a trial's number, or number:remedy, such as 7 or 7:2",
            next_step="`search explain --trial N` lists the remedies",
        )
    return Choice(int(match["trial"]), int(match["remedy"] or 1))


def enqueue_remedy(session: Session, choice: Choice) -> tuple[Session, str]:
    """Enqueue a trial with the remedy as the next one; the budget grows by it where it is spent.

    Returns:
        The session with the budget, and the remedy as a line of text.

    Raises:
        StoreError: when there is no such trial.
        StudyError: when nothing was prescribed to it, the remedy is none of a configuration, or lies outside the study's space.
    """
    from search.sampling.connection import close_trials, open_trials
    from search.sampling.sampler import REMEDY
    from search.sampling.study import WorkerStudy, enqueue

    trial, remedy = _remedy(session, choice)
    params, patch = place(session.plan, trial, remedy)
    preset = trial.preset if trial.preset in session.plan.spec.presets else None
    attributes = {
        REMEDY: {
            "of": choice.trial,
            "preset": preset,
            "patch": {**_outside(session.plan, trial, preset), **patch},
        }
    }
    trials = open_trials(session.location)
    try:
        study = WorkerStudy(trials, session.plan, session.stored.name, lambda: 0)
        enqueue(study, [EnqueuedTrial(params, attributes)])
        waiting = sum(
            not held.state.is_finished() and held.state.name == "WAITING"
            for held in study.get_trials(deepcopy=False)
        )
    finally:
        close_trials(trials)
    trials_in_all = len(session.store.trials.list_trials(session.stored.id)) + waiting
    described = describe_remedy(remedy, trial.config or {})
    return _with_budget(session, trials_in_all), described


def place(plan: Plan, trial: StoredTrial, remedy: Remedy) -> tuple[Params, dict[str, Any]]:
    """Where the remedied configuration lies in the study's space, and what of the remedy lies outside of it.

    A dimension that exists only now, and whose value the trial therefore never chose, is left to the sampler.

    Raises:
        StudyError: when the remedy's value for a dimension is not among those that are searched, or values do not go together.
    """
    patch = ConfigTree.from_paths(remedy.patch)
    try:
        values = complete_config(plan.objective, ConfigTree(trial.config or {}).overlay(patch))
    except ValidationError as problem:
        raise explain(problem, f"trial {trial.number} with its remedy", StudyError) from None
    params: Params = {}
    for path in plan.order:
        dimension = plan.spec.space[path]
        if not is_active(dimension.when, values):
            continue
        if dimension.contains(values[path]):
            params[path] = values[path]
        elif path in remedy.patch:
            raise StudyError(
                "the remedy lies outside what the study searches",
                where=f"{OPTION}, {path}",
                found=str(values[path]),
                allowed=str(dimension),
                next_step="take another remedy (N:2 is the second), or a new study with a wider dimension",
            )
    return params, {path: value for path, value in remedy.patch.items() if path not in params}


def _remedy(session: Session, choice: Choice) -> tuple[StoredTrial, Remedy]:
    """The trial with the remedy that `explain` lists for it."""
    name, explained = (
        session.stored.name,
        f"`search explain --study {session.stored.name} --trial {choice.trial}`",
    )
    report = trial_report(session.store, name, choice.trial)
    trial = session.store.trials.find_trial(session.stored.id, choice.trial)
    found = next(
        (diagnosis for _, diagnosis in reversed(report.findings) if diagnosis is not None),
        report.trouble,
    )
    if trial is None or found is None:
        raise StudyError(
            f"nothing was prescribed to trial {choice.trial}",
            where=f"study {name}",
            found=f"it is {report.state}",
            allowed="a trial that diverged, or a complete one in which something is amiss",
            next_step=f"{explained} shows it",
        )
    remedies = found.remedies
    if not 1 <= choice.remedy <= len(remedies):
        raise StudyError(
            f"trial {choice.trial} has no remedy {choice.remedy}",
            where=f"study {name}",
            found=str(choice.remedy),
            allowed=f"1 … {len(remedies)}" if remedies else "none",
            next_step=f"{explained} lists them",
        )
    remedy = remedies[choice.remedy - 1]
    if not remedy.patch:
        raise StudyError(
            "no configuration mends this trial",
            where=f"study {name}",
            found=f"likely cause: {found.cause}",
            next_step=remedy.title,
        )
    return trial, remedy


def _outside(plan: Plan, trial: StoredTrial, preset: str | None) -> dict[str, Any]:
    """What of a trial's configuration its study's base, preset and space do not explain: an earlier remedy's patch."""
    sampled = set(plan.spec.space)
    given = ConfigTree(trial.config or {})
    params = {path: given[path] for path in sampled if path in given}
    usual = ConfigTree(plan.config(params, trial.number or 0, preset).model_dump(mode="json"))
    return {
        path: value
        for path, value in given.items()
        if path not in sampled and usual.get(path) != value
    }


def _with_budget(session: Session, trials: int) -> Session:
    """The session with room for as many trials."""
    spec = session.plan.spec
    if trials <= spec.trials:
        return session
    grown = spec.model_copy(update={"trials": trials})
    session.store.studies.redefine_study(session.stored.id, grown.model_dump(mode="json"))
    return replace(
        session,
        stored=session.store.studies.find_study(spec.name) or session.stored,
        plan=make_plan(grown),
    )
