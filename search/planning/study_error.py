"""Errors about a value of a study, with the place of the value."""

from __future__ import annotations

from spaces.errors import StudyError
from spaces.loader import join_place
from spaces.study import StudySpec


def study_error(
    spec: StudySpec,
    place: tuple[str, ...],
    what: str,
    *,
    found: str = "",
    allowed: str = "",
    next_step: str = "",
) -> StudyError:
    """Make the error about the value at `place` of a study.

    Args:
        spec: the study.
        place: keys of its YAML that lead to the value.
        what: see `InputError`, as for the others.
        found: the value.
        allowed: the values that are allowed.
        next_step: what to do now.
    """
    return StudyError(
        what,
        where=f"study {spec.name}, {join_place(place)}",
        place=place,
        found=found,
        allowed=allowed,
        next_step=next_step,
    )
