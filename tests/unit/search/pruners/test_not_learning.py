"""The signal on trials whose classes were never learned, and when a class counts as dead."""

from __future__ import annotations

from typing import Any

import pytest

from search.diagnosis.health import find_dead_classes
from search.pruners.not_learning import not_learning
from search.pruners.signals import lacks_numbers
from spaces.records import EpochRecord, Evidence
from spaces.thresholds import NotLearning, Sparing
from tests.unit.search.pruners.conftest import Series, signal


def judge(records: list[EpochRecord], rule: NotLearning) -> Evidence | None:
    """The evidence under a rule, with the default of what counts as improving."""
    return not_learning(records, rule, Sparing())


class TestNotLearning:
    HALF = (0.8, 0.3, 0.0, 0.004, None)
    RULE = NotLearning(grace_epochs=8, epochs=5, share=0.4, level=0.01, all_but_one_epochs=5)

    def test_for_long(self, series: Series) -> None:
        """It fires on two classes at 0 for five epochs after a grace of eight, and not earlier."""
        records = series(classes=[self.HALF] * 13)
        assert signal(judge(records[:12], self.RULE)) is None
        found = judge(records, self.RULE)
        assert found is not None
        assert (
            found.numbers["dead_classes"],
            found.numbers["present_classes"],
            found.numbers["epochs"],
        ) == ([2, 3], [0, 1, 2, 3], list(range(9, 14)))
        assert found.statement == (
            "2 of 4 classes were never learned: from epoch 9 to 13 they stayed at 0.01 or less (all of them"
            " never found), and the metric"
            f" has stopped improving ({records[0].metric:.4f} at best)"
        )

    @pytest.mark.parametrize(
        "last",
        [
            [(0.8, 0.3, 0.1, 0.0, None)] * 5,
            [(0.8, 0.3, None, 0.0, None)] * 5,
            [HALF] * 2 + [(0.8, 0.3, 0.02, 0.0, None)] + [HALF] * 2,
            [HALF] * 4 + [(None,) * 5],
            [HALF] * 2 + [()] + [HALF] * 2,
        ],
    )
    def test_silent(self, series: Series, last: list[tuple[float | None, ...]]) -> None:
        """It is silent on one rare class, and on a class that is absent or above the level."""
        assert signal(judge(series(classes=[self.HALF] * 8 + last), self.RULE)) is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"dice_weight": [*[0.0] * 9, *[0.4] * 4], "settled": [*[False] * 9, *[True] * 4]},
            {"dice_weight": [0.04 * epoch for epoch in range(1, 14)], "settled": False},
            {"lr": [0.01 * min(epoch, 9) for epoch in range(1, 14)]},
        ],
    )
    def test_warm_up(self, series: Series, changes: dict[str, Any]) -> None:
        """While Dice or the learning rate warms up, classes at 0 do not count."""
        assert signal(judge(series(classes=[self.HALF] * 13, **changes), self.RULE)) is None
        alone = series(classes=[(0.8, 0.0, 0.0, 0.0, None)] * 13, **changes)
        assert signal(judge(alone, self.RULE)) is None

    def test_no_dice(self, series: Series) -> None:
        """After the grace, two stages of class weights are no warm-up of Dice."""
        given = {
            "classes": [self.HALF] * 13,
            "dice_weight": 0.0,
            "ce_weight": 1.0,
            "settled": False,
        }
        assert signal(judge(series(**given, weight_ratio=4.0), self.RULE)) == "not_learning"
        assert signal(judge(series(**given, weight_ratio=1.0), self.RULE)) is None
        sleepy = given | {"classes": [(0.8, 0.0, 0.0, 0.0, None)] * 13}
        assert [
            signal(judge(series(**sleepy, weight_ratio=4.0)[:epochs], self.RULE))
            for epochs in (8, 12, 13)
        ] == [None, None, "not_learning"]

    def test_dice_gone(self, series: Series) -> None:
        """After epochs with Dice, an epoch without it is no warm-up."""
        weights = [*[0.0] * 3, *[0.4] * 2, *[0.0] * 8]
        records = series(classes=[self.HALF] * 13, dice_weight=weights, settled=False)
        assert signal(judge(records, self.RULE)) == "not_learning"

    @pytest.mark.parametrize(
        "changes",
        [
            {"settled": False},
            {"weight_ratio": [*[4.0] * 12, 25.0]},
            {"lr": [1.0 / epoch for epoch in range(1, 14)]},
        ],
    )
    def test_other_schedules(self, series: Series, changes: dict[str, Any]) -> None:
        """Other schedules, of smooth, class weights or a falling rate, are no warm-up."""
        assert (
            signal(judge(series(classes=[self.HALF] * 13, **changes), self.RULE)) == "not_learning"
        )

    @pytest.mark.parametrize("alone", [(0.8, 0.0, 0.0, 0.0, None), (0.0, 0.0, 0.0, 0.0, None)])
    def test_one_alone(self, series: Series, alone: tuple[float | None, ...]) -> None:
        """A single class, or none, above the level for five epochs fires even within the grace."""
        assert signal(judge(series(classes=[alone] * 4), self.RULE)) is None
        found = judge(series(classes=[alone] * 5), self.RULE)
        assert found is not None
        assert found.numbers["epochs"] == [1, 2, 3, 4, 5]

    def test_two_classes(self, series: Series) -> None:
        """Of two classes, one at 0 counts as a single rare class, with the grace."""
        assert signal(judge(series(classes=[(0.8, 0.0)] * 12), self.RULE)) is None
        assert signal(judge(series(classes=[(0.8, 0.0)] * 13), self.RULE)) == "not_learning"

    @pytest.mark.parametrize("nothing", [(None, None), ()])
    def test_no_classes(self, series: Series, nothing: tuple[None, ...]) -> None:
        """Without known class metrics nothing collapses."""
        records = series(classes=[nothing] * 40)
        assert signal(judge(records, self.RULE)) is None
        assert lacks_numbers("not_learning", records)

    @pytest.mark.parametrize(
        ("course", "found"),
        [
            ((0.002, 0.012), None),
            ((0.002, 0.006), "not_learning"),
            ((0.012, 0.016), "not_learning"),
            ((0.03, 0.0), "not_learning"),
        ],
    )
    def test_waking(self, series: Series, course: tuple[float, float], found: str | None) -> None:
        """A class that gains by half and exceeds 1% is recovering; a smaller gain is none."""
        before, now = course
        classes = [(0.8, 0.3, 0.0, before, None)] * 8 + [(0.8, 0.3, 0.0, now, None)] * 5
        rule = self.RULE.model_copy(update={"level": 0.1})
        assert signal(judge(series(classes=classes), rule)) == found

    def test_waking_at_once(self, series: Series) -> None:
        """Without earlier epochs, a class above the lowest level is recovering."""
        classes = [(0.8, 0.02, 0.0, 0.03, None)] * 5
        rule = self.RULE.model_copy(update={"level": 0.1})
        assert signal(judge(series(classes=classes), rule)) is None
        assert (
            signal(judge(series(classes=classes), rule.model_copy(update={"waking_level": 0.05})))
            == "not_learning"
        )

    def test_few_steps(self, series: Series) -> None:
        """A trial of few steps is judged for a single class only, where steps are recorded."""
        rule = self.RULE.model_copy(update={"grace_steps": 200})
        assert [
            signal(judge(series(classes=[self.HALF] * 13, steps=steps), rule))
            for steps in (15, 16, 1, 0)
        ] == [None, *["not_learning"] * 3]
        assert (
            signal(judge(series(classes=[(0.8, 0.0, 0.0, 0.0, None)] * 5, steps=15), rule))
            == "not_learning"
        )

    def test_thresholds(self, series: Series) -> None:
        """Share, level, window and grace can be set."""
        records = series(classes=[self.HALF] * 13)
        for changes in ({"share": 0.75}, {"level": 0.0}, {"epochs": 6}, {"grace_epochs": 9}):
            assert signal(judge(records, self.RULE.model_copy(update=changes))) is None
        assert (
            signal(judge(records[:3], NotLearning(grace_epochs=0, epochs=3, share=0.4)))
            == "not_learning"
        )

    def test_improving(self, series: Series) -> None:
        """While the metric improves nothing fires, however many classes are near zero."""
        metrics = [0.02 * epoch for epoch in range(1, 14)]
        assert judge(series(classes=[self.HALF] * 13, metric=metrics), self.RULE) is None
        better = series(classes=[self.HALF] * 13, metric=[-value for value in metrics])
        assert not_learning(better, self.RULE, Sparing(), -1.0) is None
        assert signal(not_learning(better, self.RULE, Sparing(), 1.0)) == "not_learning"

    def test_found_before(self, series: Series) -> None:
        """Classes that were found and lost have been learned, which is another signal's."""
        found = (0.8, 0.5, 0.5, 0.5, None)
        classes = [found, found, *[self.HALF] * 13]
        assert judge(series(classes=classes), self.RULE) is None
        assert signal(judge(series(classes=classes[1:]), self.RULE)) == "not_learning"

    def test_found_a_little(self, series: Series) -> None:
        """Only a class that no epoch found anything of is called never found, as in the health."""
        faint = [(0.5, 0.4, 0.0, 0.05)] * 13
        found = judge(series(classes=faint, metric=0.3), NotLearning(share=0.5))
        assert found is not None
        assert "2 of 4 classes were never learned" in found.statement
        assert "(1 of them never found)" in found.statement
        dead = find_dead_classes(series(classes=faint, metric=0.3))
        assert dead.never_found == (2,)

    def test_no_metric(self, series: Series) -> None:
        """Without a metric in any epoch the classes alone count."""
        records = series(classes=[self.HALF] * 13, metric=float("nan"))
        found = judge(records, self.RULE)
        assert found is not None
        assert found.statement.endswith("they stayed at 0.01 or less (all of them never found)")
