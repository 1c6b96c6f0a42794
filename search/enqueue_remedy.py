"""Enqueues a trial's remedy: its configuration with the remedy's changes is tried next."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from search.diagnosis.remedies import describe_remedy
from search.planning.plan import Plan, make_plan
from search.planning.remedied_config import locate_in_space, make_remedy_trial
from search.report.remedy_offers import describe_new_study
from search.report.trial_report import trial_report
from search.session import Session
from spaces.errors import InputError, StudyError
from spaces.records import CLEAR_CONFIDENCE, Diagnosis, Remedy
from storage.rows import StoredTrial

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
    from search.sampling.worker_study import WorkerStudy

    trial, diagnosis = _find_diagnosis(session, choice)
    remedy = diagnosis.remedies[choice.remedy - 1]
    enqueued = make_remedy_trial(session.plan, trial, choice.remedy, diagnosis)
    if enqueued is None:
        raise _explain_place(session.plan, trial, remedy)
    trials = open_trials(session.location)
    try:
        study = WorkerStudy(trials, session.plan, session.stored.name, lambda: 0)
        enqueue_trials(study, [enqueued])
        waiting = sum(
            not other.state.is_finished() and other.state.name == "WAITING"
            for other in study.get_trials(deepcopy=False)
        )
    finally:
        close_trials(trials)
    trials_in_all = len(session.store.trials.list_trials(session.stored.id)) + waiting
    described = describe_remedy(remedy, trial.config or {})
    return _with_budget(session, trials_in_all), described


def _explain_place(plan: Plan, trial: StoredTrial, remedy: Remedy) -> InputError:
    """The error for a remedy outside the search space, or whose values do not fit together."""
    place = locate_in_space(plan, trial.config or {}, remedy)
    if place.problem is not None:
        problem = place.problem
        return problem.relocated(where=f"{OPTION}, trial {trial.number}: {problem.where}")
    path, value = next(iter(place.excluded.items()))
    command = describe_new_study(plan.spec, remedy, place)
    wider = f": {command}" if command else " with --name NAME, whose space contains it"
    return StudyError(
        "the remedy is outside the study's search space",
        where=f"{OPTION}, {path}",
        found=str(value),
        allowed=str(plan.spec.space[path]),
        next_step=f"choose another remedy (N:2 is the second), or start a new study{wider}",
    )


def _find_diagnosis(session: Session, choice: RemedyChoice) -> tuple[StoredTrial, Diagnosis]:
    """Find the trial, and the diagnosis whose remedies `explain` lists for it.

    Raises:
        StoreError: when there is no such trial.
        StudyError: when it has no such remedy, or one that is no change of the configuration.
    """
    name = session.stored.name
    command = f"`search explain --study {name} --trial {choice.trial}`"
    report = trial_report(session.store, name, choice.trial)
    trial = session.store.trials.find_trial(session.stored.id, choice.trial)
    found = report.diagnosis
    if trial is None or found is None:
        raise StudyError(
            f"trial {choice.trial} has no remedies",
            where=f"study {name}",
            found=f"it is {report.state}",
            allowed="a trial that was stopped, or a complete one with a problem",
            next_step=f"{command} shows it",
        )
    if not found.is_clear:
        raise _unclear_cause(choice.trial, name, found, command)
    remedies = found.remedies
    if not 1 <= choice.remedy <= len(remedies):
        raise StudyError(
            f"trial {choice.trial} has no remedy {choice.remedy}",
            where=f"study {name}",
            found=str(choice.remedy),
            allowed=f"1 … {len(remedies)}" if remedies else "none",
            next_step=f"{command} lists them" if remedies else f"{command} shows the cause",
        )
    remedy = remedies[choice.remedy - 1]
    if not remedy.patch:
        new_study = report.remedies[choice.remedy - 1].new_study
        raise StudyError(
            f"remedy {choice.remedy} of trial {choice.trial} is no change of its configuration",
            where=f"study {name}",
            found=f"likely cause: {found.cause}",
            next_step=f"{remedy.title}: {new_study}" if new_study else remedy.title,
        )
    return trial, found


def _unclear_cause(number: int, study: str, found: Diagnosis, command: str) -> StudyError:
    likeliest = "no cause is likely"
    if found.others:
        cause, likelihood = found.others[0]
        likeliest = f"the likeliest cause: {cause} ({likelihood:.0%} sure)"
    return StudyError(
        f"trial {number} has no remedies: it has no clear cause",
        where=f"study {study}",
        found=likeliest,
        allowed=f"a trial whose cause is at least {CLEAR_CONFIDENCE:.0%} sure",
        next_step=f"{command} shows the possible causes",
    )


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
        plan=make_plan(grown, session.plan.base_lr),
    )
