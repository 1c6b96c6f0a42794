"""The remedies of a trial as offers: whether the study can try each, and by which command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from search.diagnosis.remedies import describe_remedy
from search.planning.plan import Plan
from search.planning.remedied_config import locate_in_space
from search.report.models import RemedyOffer
from spaces.records import Diagnosis, Remedy
from storage.rows import StoredTrial, TriedRemedy


def offer_remedies(
    plan: Plan, trial: StoredTrial, diagnosis: Diagnosis | None, tried: Sequence[TriedRemedy]
) -> tuple[RemedyOffer, ...]:
    """The remedies of a diagnosis, in order.

    Args:
        plan: of the study.
        trial: that was diagnosed.
        diagnosis: of the trial, if it has one.
        tried: all remedies that the study has tried.
    """
    if diagnosis is None:
        return ()
    own = [each for each in tried if each.of == trial.number]
    return tuple(
        _make_offer(
            plan,
            trial,
            choice,
            remedy,
            tuple(each.number for each in own if each.choice == choice),
        )
        for choice, remedy in enumerate(diagnosis.remedies, 1)
    )


def _make_offer(
    plan: Plan, trial: StoredTrial, choice: int, remedy: Remedy, tried: tuple[int, ...]
) -> RemedyOffer:
    place = locate_in_space(plan, trial.config or {}, remedy)
    is_offered = bool(remedy.patch) and place.is_inside
    command = ["search", "run", "--study", plan.spec.name]
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
    )
