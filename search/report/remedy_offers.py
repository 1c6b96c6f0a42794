"""The remedies of a trial as offers: whether the study can try each, and by which command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from search.diagnosis.remedies import describe_remedy, read_epochs
from search.planning.plan import make_plan
from search.planning.remedied_config import RemedyPlace, locate_by_space, locate_in_space
from search.report.models import RemedyOffer
from search.report.new_study import make_new_study_command
from spaces.records import Diagnosis, Remedy
from spaces.study import StudySpec
from storage.rows import StoredTrial, TriedRemedy


def offer_remedies(
    spec: StudySpec, trial: StoredTrial, diagnosis: Diagnosis | None, tried: Sequence[TriedRemedy]
) -> tuple[RemedyOffer, ...]:
    """The remedies of a diagnosis, in order.

    A store is data only: no module that a study in it names as its objective is imported. Remedies
    of such a study are looked up in the search space alone.

    Args:
        spec: of the study.
        trial: that was diagnosed.
        diagnosis: of the trial, if it has one.
        tried: all remedies that the study has tried.
    """
    if diagnosis is None:
        return ()
    own = [each for each in tried if each.of == trial.number]
    places = _locate_remedies(spec, trial, diagnosis.remedies)
    return tuple(
        _make_offer(
            spec,
            trial,
            choice,
            remedy,
            place,
            tuple(each.number for each in own if each.choice == choice),
        )
        for choice, (remedy, place) in enumerate(zip(diagnosis.remedies, places, strict=True), 1)
    )


def _locate_remedies(
    spec: StudySpec, trial: StoredTrial, remedies: Sequence[Remedy]
) -> list[RemedyPlace]:
    is_custom = ":" in spec.objective
    if is_custom or not any(remedy.patch for remedy in remedies):
        return [locate_by_space(spec, remedy) for remedy in remedies]
    plan = make_plan(spec)
    return [locate_in_space(plan, trial.config or {}, remedy) for remedy in remedies]


def _make_offer(
    spec: StudySpec,
    trial: StoredTrial,
    choice: int,
    remedy: Remedy,
    place: RemedyPlace,
    tried: tuple[int, ...],
) -> RemedyOffer:
    is_offered = bool(remedy.patch) and place.is_inside
    command = ["search", "run", "--study", spec.name]
    command += ["--enqueue-remedy", f"{trial.number}:{choice}"]
    return RemedyOffer(
        choice=choice,
        title=remedy.title,
        description=describe_remedy(remedy, trial.config or {}),
        patch=remedy.patch,
        in_space=is_offered,
        command=shlex.join(command) if is_offered else "",
        widenings=tuple(map(str, place.widenings)),
        options=tuple(f"--set {shlex.quote(each.assignment)}" for each in place.widenings),
        tried=tried,
        new_study=describe_new_study(spec, remedy, place),
    )


def describe_new_study(spec: StudySpec, remedy: Remedy, place: RemedyPlace) -> str:
    """The command that starts a study which can try a remedy that this study cannot.

    Empty where this study can try it, and where neither epochs nor widening the space help.
    """
    epochs = read_epochs(remedy)
    if epochs is not None:
        return make_new_study_command(spec, f"{epochs}_epochs", ["--epochs", str(epochs)])
    can_widen = place.problem is None and len(place.widenings) == len(place.excluded) > 0
    if not can_widen:
        return ""
    options = [word for each in place.widenings for word in ("--set", each.assignment)]
    return make_new_study_command(spec, "wider", options)
