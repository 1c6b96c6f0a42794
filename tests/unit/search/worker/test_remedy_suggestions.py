"""Which remedies of its own trials a study suggests, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from search.session import Session, open_session
from search.worker.remedy_suggestions import RemedySuggester
from spaces.records import Diagnosis, EpochRecord, Evidence, Remedy
from spaces.study import StudySpec
from storage.location import StoreLocation
from storage.repositories.trials import TrialRepository
from storage.rows import Claim, Outcome, StoredTrial, SuggestedRemedies

Make = Callable[..., EpochRecord]
SLOWER = Remedy("slower", {"optimizer.lr_multiple": 0.5})
PARAMS: dict[str, Any] = {"optimizer.lr_multiple": 30.0, "weights.method": "uniform"}


class Demo:
    """A study whose sampler may try two remedies."""

    def __init__(self, session: Session, make_record: Make) -> None:
        self.store, self.stored, self.plan = session.store, session.stored, session.plan
        self.make = make_record
        self.suggester = RemedySuggester(self.store, self.stored.id, self.plan)

    def start(self, remedies: SuggestedRemedies | None = None) -> Claim:
        """The next trial."""
        claim = self.store.leases.claim_trial(self.stored.id, 99, "w", 600, remedies=remedies)
        assert claim is not None
        config = self.plan.make_config(PARAMS, claim.number or 0).model_dump(mode="json")
        return self.store.leases.bind_trial(
            claim, claim.number or 0, claim.optuna_trial_id or 0, config
        )

    def end(
        self,
        state: Any = "diverged",
        confidence: float = 0.9,
        remedies: Sequence[Remedy] = (SLOWER,),
        signal: str = "loss_rising",
    ) -> int:
        """A trial that ended with this diagnosis; its number."""
        claim = self.start()
        self.store.epochs.append_epoch(claim, self.make(1), 600)
        evidence = Evidence(signal, 1, None, "it rose", {}, 1.0)
        diagnosis = Diagnosis("learning rate too high", (), tuple(remedies), confidence)
        outcome = Outcome(state, 0.1, "…", "loss_rising", evidence, diagnosis)
        self.store.leases.finish_trial(claim, outcome)
        return claim.number or 0

    def suggested(self) -> list[int]:
        """The numbers of the trials whose remedies are suggested, the first choice first."""
        found = self.suggester.suggest_remedies()
        return [] if found is None else [each.user_attrs["remedy"]["of"] for each in found.trials]


@pytest.fixture
def spec() -> StudySpec:
    """The study."""
    return StudySpec.model_validate(
        {
            "name": "demo",
            "epochs": 4,
            "space": {
                "optimizer.lr_multiple": {"kind": "float", "low": 0.1, "high": 100, "log": True},
                "weights.method": {"kind": "choice", "choices": ["uniform", "sqrt_inv_freq"]},
            },
            "sampler": {"remedies": 2},
        }
    )


@pytest.fixture
def demo(sqlite_url: str, spec: StudySpec, make_record: Make) -> Iterator[Demo]:
    """The study in a fresh store."""
    with open_session(spec, StoreLocation.parse(sqlite_url)) as session:
        yield Demo(session, make_record)


class TestSuggestRemedies:
    def test_order(self, demo: Demo) -> None:
        """The surest cause comes first; of equally sure ones the lowest number."""
        for confidence in (0.5, 0.9, 0.7, 0.9):
            demo.end(confidence=confidence)
        assert demo.suggested() == [1, 3, 2, 0]

    def test_configuration(self, demo: Demo) -> None:
        """What is suggested is the trial's configuration with its first remedy."""
        demo.end()
        found = demo.suggester.suggest_remedies()
        assert found is not None
        (trial,) = found.trials
        assert (trial.params, found.most) == (PARAMS | {"optimizer.lr_multiple": 0.5}, 2)
        assert trial.user_attrs["remedy"]["title"] == "slower"

    @pytest.mark.parametrize(
        "changes",
        [
            {"confidence": 0.39},
            {"remedies": []},
            {"remedies": [Remedy("look at the masks", {}), SLOWER]},
            {"remedies": [Remedy("tiny", {"optimizer.lr_multiple": 1e-6}), SLOWER]},
            {"state": "failed"},
            {"state": "pruned", "signal": "a warning"},
        ],
    )
    def test_nothing_to_suggest(self, demo: Demo, changes: dict[str, Any]) -> None:
        """An unclear cause, data at fault, a remedy outside the space, or an error suggests nothing."""
        demo.end(**changes)
        assert demo.suggester.suggest_remedies() is None

    def test_pruned(self, demo: Demo) -> None:
        """A trial that peers ended suggests a remedy if it was diagnosed."""
        demo.end("pruned")
        assert demo.suggested() == [0]

    def test_complete(self, demo: Demo) -> None:
        """A complete trial with a clear problem suggests a remedy; a healthy one does not."""
        healthy = demo.start()
        for epoch in range(1, 5):
            falling = dict.fromkeys(("train_loss", "ce_loss", "dice_loss"), 1 / epoch)
            gains = {"metric": 0.1 * epoch, "class_metric": (0.8, 0.1 * epoch)}
            demo.store.epochs.append_epoch(healthy, demo.make(epoch, **falling, **gains), 600)
        demo.store.leases.finish_trial(healthy, Outcome("complete", 0.4))
        claim = demo.start()
        for epoch in range(1, 5):
            record = demo.make(
                epoch,
                metric=0.1,
                class_metric=(0.8, 0.3, *[0.0] * 5),
                weight_ratio=1.0,
                dice_weight=0.0,
            )
            demo.store.epochs.append_epoch(claim, record, 600)
        demo.store.leases.finish_trial(claim, Outcome("complete", 0.1))
        assert demo.suggested() == [1]

    def test_exhausted(self, demo: Demo) -> None:
        """After as many as the study allows nothing is suggested, to any worker."""
        for _ in range(3):
            demo.end()
        for _ in range(2):
            demo.start(demo.suggester.suggest_remedies())
        assert demo.suggester.suggest_remedies() is None
        other = RemedySuggester(demo.store, demo.stored.id, demo.plan)
        assert other.suggest_remedies() is None

    def test_read_once(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each ended trial is diagnosed once, and one that ended later is found."""
        seen: list[int | None] = []
        diagnose = RemedySuggester._diagnose

        def watch(self: RemedySuggester, trial: StoredTrial, found: Any) -> Diagnosis | None:
            seen.append(trial.number)
            return diagnose(self, trial, found)

        monkeypatch.setattr(RemedySuggester, "_diagnose", watch)
        demo.end(confidence=0.5)
        assert demo.suggested() == [0]
        demo.end(confidence=0.9)
        assert demo.suggested() == [1, 0]
        assert demo.suggested() == [1, 0]
        assert seen == [0, 1]

    def test_queries(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        """The trials that ended long ago are not read again."""
        for _ in range(3):
            demo.end()
        assert demo.suggested() == [0, 1, 2]
        read: list[int] = []
        list_ended = TrialRepository.list_ended

        def watch(self: TrialRepository, *given: Any) -> list[StoredTrial]:
            found = list_ended(self, *given)
            read.append(len(found))
            return found

        monkeypatch.setattr(TrialRepository, "list_ended", watch)
        monkeypatch.setattr("search.worker.remedy_suggestions.OVERLAP_S", -60)
        assert demo.suggested() == [0, 1, 2]
        assert read == [0]

    def test_tried(self, demo: Demo) -> None:
        """A remedy that a trial tries is no longer suggested."""
        for _ in range(2):
            demo.end()
        demo.start(demo.suggester.suggest_remedies())
        assert demo.suggested() == [1]

    def test_paused(self, demo: Demo) -> None:
        """Nothing is suggested while a trial is paused, which is claimed first."""
        claim = demo.start()
        demo.end()
        demo.store.leases.release_trial(claim)
        assert demo.suggested() == []
        demo.start()
        assert demo.suggested() == [1]

    def test_failed_diagnosis(
        self,
        demo: Demo,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A trial whose diagnosis fails suggests nothing, and the others suggest theirs."""

        def fail(*_: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("search.worker.remedy_suggestions.diagnose_complete", fail)
        claim = demo.start()
        demo.store.epochs.append_epoch(claim, demo.make(1), 600)
        demo.store.leases.finish_trial(claim, Outcome("complete", 0.1))
        demo.end()
        assert demo.suggested() == [1]
        assert "trial 0: its diagnosis failed" in caplog.text

    def test_off(self, demo: Demo) -> None:
        """By default a study suggests none."""
        demo.end()
        plain = demo.plan.spec.model_copy(
            update={"sampler": StudySpec.model_fields["sampler"].default}
        )
        plan = type(demo.plan)(plain, demo.plan.objective, demo.plan.order)
        assert RemedySuggester(demo.store, demo.stored.id, plan).suggest_remedies() is None
