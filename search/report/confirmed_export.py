"""Exports a trial together with what its confirmation found."""

from __future__ import annotations

from search.export import Export, make_export
from search.planning.confirmed_score import ConfirmedScore
from search.report.confirmation import read_confirmation
from search.report.search_models import Confirmation
from search.report.search_outlook import find_likely_best
from spaces.loader import check
from spaces.study import StudySpec
from storage.files.study_files import StudyFiles
from storage.rows import StoredStudy
from storage.store import Store


def export_trial(
    store: Store, stored: StoredStudy, number: int | None, files: StudyFiles | None = None
) -> Export:
    """Make the export of a trial; by default of the confirmed winner.

    Without a confirmation it is the trial whose configuration is likely the best by all curves, or,
    where the sampler has no model of them, the one with the best score.

    Seed and score in it are those of the trial itself, so that they can be reproduced.

    Args:
        store: of the study.
        stored: the study.
        number: of the trial; None: see above.
        files: of the studies, which may include the trained state of the best trial.

    Raises:
        StoreError: when there is no such trial, or it has nothing to export.
    """
    found = read_confirmation(store, stored)
    if number is None and (found is None or found.winner is None):
        spec = check(StudySpec, stored.definition, f"study {stored.name} in the store")
        number = find_likely_best(store, stored, spec)
    if found is None:
        return make_export(store, stored, number, files)
    if number is None and found.winner is not None:
        number = found.winner.number
    made = make_export(store, stored, number, files)
    return made.model_copy(update={"confirmed": _find_score(found, made.provenance.trial)})


def _find_score(found: Confirmation, number: int) -> ConfirmedScore | None:
    for row in found.trials:
        if row.number == number and row.mean is not None:
            return ConfirmedScore(
                seeds=row.seeds,
                diverged=row.diverged,
                mean=row.mean,
                low=row.low if row.low is not None else row.mean,
                high=row.high if row.high is not None else row.mean,
                chance=row.chance,
                trials=len(found.trials),
                test=row.test,
            )
    return None
