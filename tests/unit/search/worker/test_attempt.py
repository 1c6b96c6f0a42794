"""What an attempt resumes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from search.worker import attempt
from search.worker.checkpoints import ResumePoint
from spaces.records import EpochRecord, Evidence
from storage.rows import Claim

CLAIM = Claim(trial_id=1, study_id=1, attempt=2, resume=True)


class Repository:
    """Five epochs in the store, with a warning in each of the last two."""

    def __init__(self, make_record: Callable[..., EpochRecord]) -> None:
        self.records = [make_record(epoch) for epoch in range(1, 6)]

    def trial_records(self, trial_id: int) -> list[EpochRecord]:
        return self.records

    def forget_epochs_after(self, claim: Claim, epoch: int) -> None:
        """Another test's."""

    def trial_evidence(self, trial_id: int) -> list[Any]:
        names = {4: "loss_rising", 5: "overfitting"}
        return [
            (Evidence(name, epoch, None, "…", {"spared": "…"}, 0.0), None)
            for epoch, name in names.items()
        ]


@pytest.mark.parametrize(
    ("epoch", "warned"),
    [(None, set()), (3, set()), (4, set()), (5, {"loss_rising"})],
)
def test_warned(
    make_record: Callable[..., EpochRecord],
    monkeypatch: pytest.MonkeyPatch,
    epoch: int | None,
    warned: set[str],
) -> None:
    """A signal may warn again in an epoch that is trained again, whose warning is deleted.

    The state's own epoch is among them.
    """
    state = cast(Any, None if epoch is None else SimpleNamespace(note={"epoch": epoch}))
    monkeypatch.setattr(attempt, "find_resume_point", lambda *_: ResumePoint(state))
    monkeypatch.setattr(attempt, "open_states", lambda *_: None)
    monkeypatch.setattr(attempt, "TrialCheckpoints", lambda **_: None)
    store = Repository(make_record)
    context = SimpleNamespace(
        store=SimpleNamespace(epochs=store, findings=store),
        stored=SimpleNamespace(name="demo", created_at=0.0),
        stop=None,
        checkpoint_s=1.0,
    )
    nothing = cast(Any, None)
    started = attempt.start_attempt(cast(Any, context), CLAIM, nothing, nothing)
    assert started.warned == warned
