"""Enqueues a trial's remedy: its configuration with the remedy's changes is tried next."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from search.diagnosis.remedies import describe_remedy
from search.planning.plan import Params, Plan, complete_config, make_plan
from search.report.trial_report import trial_report
from search.session import Session
from spaces.config_tree import ConfigTree
from spaces.errors import InputError, StudyError
from spaces.loader import explain
from spaces.parameters import is_active
from spaces.records import Remedy
from storage.rows import EnqueuedTrial, StoredTrial

CHOICE = re.compile(r"(?P<trial>\d+)(?::(?P<remedy>[1-9]\d*))?")

OPTION = "--enqueue-remedy"


class RemedyChoice(NamedTuple):
    """A remedy of a trial; remedies are counted from 1."""

    trial: int
    remedy: int = 1


def parse_choice(text: str) -> RemedyChoice:
    """Parse the option: `7` is the first remedy of trial 7, `7:2` its second.

    Raises:
        InputError: when the text is something else.
    """
    match = CHOICE.fullmatch(text.strip())
    if match is None:
        raise InputError(
            "that does not name a trial's remedy",
            where=OPTION,
            found=text,
            allowed="a trial's number, or number:remedy, such as 7 or 7:2",
            next_step="`search explain --trial N` lists the remedies",
        )
    return RemedyChoice(int(match["trial"]), int(match["remedy"] or 1))


def enqueue_remedy(session: Session, choice: RemedyChoice) -> tuple[Session, str]:
    """Enqueue a trial's remedy as the study's next trial, and raise an exhausted budget by one.

    Returns:
        The session with the new budget, and the remedy as a line of text.

    Raises:
        StoreError: when there is no such trial.
        StudyError: when the trial has no such remedy, or one that no configuration in the study's
            search space has.
    """
    from search.sampling.connection import close_trials, open_trials
    from search.sampling.first_trials import enqueue_trials
    from search.sampling.sampler import REMEDY
    from search.sampling.worker_study import WorkerStudy

    trial, remedy = _find_remedy(session, choice)
    params, patch = locate_in_space(session.plan, trial, remedy)
    preset = trial.preset if trial.preset in session.plan.spec.presets else None
    attributes = {
        REMEDY: {
            "of": choice.trial,
            "preset": preset,
            "patch": {**_values_outside(session.plan, trial, preset), **patch},
        }
    }
    trials = open_trials(session.location)
    try:
        study = WorkerStudy(trials, session.plan, session.stored.name, lambda: 0)
        enqueue_trials(study, [EnqueuedTrial(params, attributes)])
        waiting = sum(
            not other.state.is_finished() and other.state.name == "WAITING"
            for other in study.get_trials(deepcopy=False)
        )
    finally:
        close_trials(trials)
    trials_in_all = len(session.store.trials.list_trials(session.stored.id)) + waiting
    described = describe_remedy(remedy, trial.config or {})
    return _with_budget(session, trials_in_all), described


def locate_in_space(
    plan: Plan, trial: StoredTrial, remedy: Remedy
) -> tuple[Params, dict[str, Any]]:
    """Split the remedied configuration into values in the search space and changes outside.

    A dimension that exists only with the remedy, so that the trial has no value for it, is sampled.

    Raises:
        StudyError: when the remedy's value for a dimension is not in the search space, or the
            values do not fit together.
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
                "the remedy is outside the study's search space",
                where=f"{OPTION}, {path}",
                found=str(values[path]),
                allowed=str(dimension),
                next_step="choose another remedy (N:2 is the second), "
                "or start a new study with a wider dimension",
            )
    return params, {path: value for path, value in remedy.patch.items() if path not in params}


def _find_remedy(session: Session, choice: RemedyChoice) -> tuple[StoredTrial, Remedy]:
    """Find the trial, and the remedy that `explain` lists for it."""
    name = session.stored.name
    command = f"`search explain --study {name} --trial {choice.trial}`"
    report = trial_report(session.store, name, choice.trial)
    trial = session.store.trials.find_trial(session.stored.id, choice.trial)
    found = next(
        (diagnosis for _, diagnosis in reversed(report.findings) if diagnosis is not None),
        report.trouble,
    )
    if trial is None or found is None:
        raise StudyError(
            f"trial {choice.trial} has no remedies",
            where=f"study {name}",
            found=f"it is {report.state}",
            allowed="a trial that diverged, or a complete one with a problem",
            next_step=f"{command} shows it",
        )
    remedies = found.remedies
    if not 1 <= choice.remedy <= len(remedies):
        raise StudyError(
            f"trial {choice.trial} has no remedy {choice.remedy}",
            where=f"study {name}",
            found=str(choice.remedy),
            allowed=f"1 … {len(remedies)}" if remedies else "none",
            next_step=f"{command} lists them",
        )
    remedy = remedies[choice.remedy - 1]
    if not remedy.patch:
        raise StudyError(
            "no configuration fixes this trial",
            where=f"study {name}",
            found=f"likely cause: {found.cause}",
            next_step=remedy.title,
        )
    return trial, remedy


def _values_outside(plan: Plan, trial: StoredTrial, preset: str | None) -> dict[str, Any]:
    """The values that a trial has from an earlier remedy, outside of base, preset and space."""
    sampled = set(plan.spec.space)
    given = ConfigTree(trial.config or {})
    params = {path: given[path] for path in sampled if path in given}
    usual = ConfigTree(plan.make_config(params, trial.number or 0, preset).model_dump(mode="json"))
    return {
        path: value
        for path, value in given.items()
        if path not in sampled and usual.get(path) != value
    }


def _with_budget(session: Session, trials: int) -> Session:
    """The session with a budget of at least that many trials."""
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
