"""Confirms a study's winner: the likely best configurations are trained again over seeds.

The trainings are trials of a companion study in the same store, so that leases, resuming, launchers
and dashboards work as for any study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.planning.companion import (
    find_main_name,
    list_choices,
    make_companion,
    make_training,
    name_companion,
)
from search.planning.plan import Plan
from search.planning.racing import Race, replay_race
from search.report.confirmation import is_companion, make_rules, read_trainings
from search.session import Session, find_changes, open_session
from search.stored_study import find_study, stored_plan
from spaces.errors import StudyError
from spaces.study import StudySpec
from storage.location import StoreLocation
from storage.rows import ACTIVE_STATES, StoredStudy, StoredTrial
from storage.store import Store


@dataclass
class ConfirmationRun:
    """A confirmation that trains: its companion study, and the race between the candidates.

    Attributes:
        session: of the companion study.
        stored: the study that is confirmed.
        candidates: its trials, the likely best first.
        seeds: most seeds per candidate.
        notes: what a person should know about the candidates.
    """

    session: Session
    stored: StoredStudy
    candidates: Sequence[StoredTrial]
    seeds: int
    notes: Sequence[str] = ()

    def read_race(self) -> Race:
        """Read the trainings that have ended, and replay the race.

        Raises:
            StoreError: when the database fails.
        """
        store = self.session.store
        numbers = [trial.number or 0 for trial in self.candidates]
        trainings = read_trainings(store, self.session.stored)
        return replay_race(
            trainings.scores, numbers, make_rules(store, self.stored, numbers, self.seeds)
        )

    def enqueue_round(self, race: Race) -> None:
        """Enqueue the trainings that the race's round lacks, unless they are enqueued.

        Raises:
            StoreError: when the database fails.
        """
        store, stored = self.session.store, self.session.stored
        trials = {trial.number: trial for trial in self.candidates}
        made = [
            make_training(self.session.plan, trials[each.candidate], each.seed_number)
            for each in race.missing
        ]
        wanted = [training for training in made if training is not None]
        count = store.confirmations.enqueue_trainings(stored.id, wanted)
        spec = self.session.plan.spec.model_copy(update={"trials": count})
        store.studies.redefine_study(stored.id, spec.model_dump(mode="json"))


def open_confirmation(location: StoreLocation, name: str, top: int, seeds: int) -> ConfirmationRun:
    """Choose the candidates of a study, and create or resume its companion.

    Args:
        location: of the store.
        name: of the study.
        top: number of candidates.
        seeds: most seeds per candidate.

    Raises:
        StoreError: when there is no such study.
        StudyError: when the study is running, has no complete trial, or changed since it was
            confirmed.
    """
    with location.open(create=False) as store:
        stored = find_study(store, name)
        _check_confirmable(store, stored)
        plan = stored_plan(stored)
        candidates, notes = choose_candidates(store, stored, plan, top)
        spec = _make_companion(store, stored, plan.spec)
    session = open_session(spec, location)
    return ConfirmationRun(session, stored, candidates, seeds, notes)


def _check_confirmable(store: Store, stored: StoredStudy) -> None:
    if is_companion(store, stored):
        raise StudyError(
            f"the study {stored.name!r} is itself a confirmation",
            where="--study",
            found=stored.name,
            next_step=f"confirm the study {find_main_name(stored.name)!r}",
        )
    counts = store.trials.count_by_state(stored.id)
    running = sum(counts.get(state, 0) for state in ACTIVE_STATES)
    if running:
        raise StudyError(
            f"the study {stored.name!r} is running, so its best trials may still change",
            where="--study",
            found=f"{running} running trial{'' if running == 1 else 's'}",
            next_step=(
                "wait for it, or stop it; "
                f"`search show --study {stored.name} --reap` releases the trials of dead workers"
            ),
        )
    if not counts.get("complete"):
        raise StudyError(
            f"no trial of the study {stored.name!r} is complete, so there is nothing to confirm",
            where="--study",
            found=", ".join(f"{count} {state}" for state, count in counts.items()) or "no trial",
            next_step="continue the study with `search run`",
        )


def choose_candidates(
    store: Store, stored: StoredStudy, plan: Plan, top: int
) -> tuple[list[StoredTrial], list[str]]:
    """Choose the trials with the likely best configurations, by the search's posterior.

    Of several trials with the same configuration only the first one counts, and so do only those
    whose configuration the search space has.

    Returns:
        The trials, the likely best one first, and what a person should know about them.

    Raises:
        StudyError: when there is none.
    """
    trials = {trial.number: trial for trial in store.trials.list_trials(stored.id)}
    companion = Plan(make_companion(plan.spec, 1), plan.objective, plan.order)
    chosen: list[StoredTrial] = []
    notes: list[str] = []
    for number in _rank_trials(store, stored, plan):
        trial = trials[number]
        choices = list_choices(trial.config or {})
        if any(choices == list_choices(other.config or {}) for other in chosen):
            continue
        if make_training(companion, trial, 1) is None:
            notes.append(f"trial {number} is left out: the search space lacks its configuration")
            continue
        chosen.append(trial)
        if len(chosen) == top:
            break
    if not chosen:
        raise StudyError(
            f"no trial of the study {stored.name!r} can be confirmed",
            where="--study",
            found="; ".join(notes),
            next_step="continue the study with `search run`",
        )
    if len(chosen) < top:
        there = "one configuration is" if len(chosen) == 1 else f"{len(chosen)} configurations are"
        notes.append(f"only {there} complete; --top asks for {top}")
    return chosen, notes


def _rank_trials(store: Store, stored: StoredStudy, plan: Plan) -> list[int]:
    """Rank the complete trials by the search's posterior, whatever sampled them."""
    from search.sampling.earlier_studies import load_earlier_studies
    from search.sampling.study_curves import StudyCurves, make_engine

    earlier = load_earlier_studies(store, plan.spec.sampler.learn_from, plan.spec.metric)
    curves = StudyCurves(store, stored.id, plan).read_curves()
    return make_engine(plan, earlier).rank_complete(curves)


def _make_companion(store: Store, stored: StoredStudy, spec: StudySpec) -> StudySpec:
    """The definition of the companion, with as many trials as a stored one has.

    Raises:
        StudyError: when a stored companion has another definition.
    """
    existing = store.studies.find_study(name_companion(stored.name))
    if existing is None:
        return make_companion(spec, 1)
    companion = make_companion(spec, int(existing.definition["trials"]))
    changes = find_changes(existing.definition, companion)
    if changes:
        shown = [f"{change.path}: {change.stored} → {change.given}" for change in changes[:5]]
        raise StudyError(
            f"the study {existing.name!r} exists with another definition than {stored.name!r} now",
            where=store.where,
            found="\n           ".join(shown),
            next_step="run the changed study under another name, and confirm that one",
        )
    return companion


def count_stuck(before: Race, after: Race) -> int:
    """Count the trainings of a round that have no score after its workers have ended."""
    return len(set(before.missing) & set(after.missing))
