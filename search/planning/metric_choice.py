"""The metric of a study: its own, or the default of its objective."""

from __future__ import annotations

from objectives.contract import Objective
from search.planning.study_error import study_error
from spaces.config import MetricConfig
from spaces.errors import nearest
from spaces.study import StudySpec


def choose_metric(spec: StudySpec, kind: Objective) -> StudySpec:
    """Return the study with its objective's default metric, if it names none.

    Raises:
        StudyError: when the objective does not have its metric, or not in this direction.
    """
    spec = _with_metric(spec, kind)
    _check_metric(spec, kind)
    return spec


def _with_metric(spec: StudySpec, kind: Objective) -> StudySpec:
    if "name" in spec.metric.model_fields_set:
        return spec
    default: MetricConfig = kind.config.model_fields["metric"].default
    given = spec.metric.model_dump(exclude_unset=True)
    metric = MetricConfig.model_validate(default.model_dump() | given)
    return spec.model_copy(update={"metric": metric})


def _check_metric(spec: StudySpec, kind: Objective) -> None:
    name = spec.metric.name
    if not kind.metrics:
        return
    if name not in kind.metrics:
        raise study_error(
            spec,
            ("metric", "name"),
            f"unknown metric {name!r}{nearest(name, kind.metrics)}",
            found=name,
            allowed=", ".join(kind.metrics),
            next_step="name one of these",
        )
    if spec.metric.direction != kind.metrics[name]:
        raise study_error(
            spec,
            ("metric", "direction"),
            f"{name} is to be {kind.metrics[name]}d",
            found=spec.metric.direction,
            allowed=kind.metrics[name],
        )
