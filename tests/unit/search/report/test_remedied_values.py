"""Values that trials have from remedies, outside of what their study searches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from search.console.tables import print_leaderboard
from search.report.models import LeaderboardRow
from search.report.remedied_values import find_remedied_values
from spaces.config_tree import ConfigTree
from spaces.study import StudySpec
from storage.rows import StoredTrial, TriedRemedy
from tests.unit.search.report.conftest import PLAIN, SPACE, Demo
from tests.unit.search.report.test_remedy_outcomes import make_trial

SPEC = StudySpec.model_validate({"name": "demo", "space": SPACE})
CLIP = "optimizer.grad_clip_norm"


def trial(number: int, **changes: Any) -> StoredTrial:
    """A complete trial with changes of its configuration, by dotted path with __ for the dot."""
    values = {**PLAIN, CLIP: None, "seed": 1, "optimizer.weight_decay": 0.0}
    values |= {path.replace("__", "."): value for path, value in changes.items()}
    return replace(make_trial(number, "complete", 0.2), config=ConfigTree.from_paths(values).nested)


class TestFind:
    def test_unsearched(self) -> None:
        """What the remedy changed is found, without the searched values and the seed."""
        trials = [
            trial(0),
            trial(1, optimizer__grad_clip_norm=5.0, optimizer__lr_multiple=2.0, seed=9),
        ]
        found = find_remedied_values(trials, [TriedRemedy(1, 0, 1, "clip", "…")], SPEC)
        assert found == {1: {CLIP: 5.0}}

    def test_chain(self) -> None:
        """A remedy of a trial that tries a remedy keeps the values of that one."""
        clipped = {"optimizer__grad_clip_norm": 5.0}
        trials = [trial(0), trial(1, **clipped), trial(2, **clipped, optimizer__weight_decay=0.01)]
        tried = [TriedRemedy(1, 0, 1, "clip", "…"), TriedRemedy(2, 1, 1, "decay", "…")]
        found = find_remedied_values(trials, tried, SPEC)
        assert found[2] == {CLIP: 5.0, "optimizer.weight_decay": 0.01}

    def test_waiting(self) -> None:
        """A remedy that only waits to be tried has no values yet."""
        assert find_remedied_values([trial(0)], [TriedRemedy(1, 0, 1, "clip", "…")], SPEC) == {}


class TestLeaderboard:
    @pytest.mark.parametrize("width", [60, 200])
    def test_shown(
        self,
        demo: Demo,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        width: int,
    ) -> None:
        """The leaderboard shows an unsearched value with the remedy that it is from."""
        monkeypatch.setenv("COLUMNS", str(width))
        report = demo.report()
        row = LeaderboardRow(
            1, 8, 0.3, None, 2, 2, "remedy of 7", {"optimizer.lr_multiple": 0.5}, None, None, False
        )
        shown = replace(report, leaderboard=(replace(row, remedied={CLIP: 5.0}), row))

        print_leaderboard(shown)

        out = " ".join(capsys.readouterr().out.split())
        assert out.count("remedy of 7: grad_clip_norm 5") == 1
        assert out.count("remedy of 7") == 2
