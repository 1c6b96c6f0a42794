"""The signal on classes that were learned and lost, or stay dead in a trial that learns no more."""

from __future__ import annotations

import pytest

from search.pruners.class_collapse import class_collapse
from search.pruners.signals import lacks_numbers
from spaces.thresholds import ClassCollapse
from tests.unit.search.pruners.conftest import Series, signal

RULE = ClassCollapse(grace_epochs=4, grace_steps=0, epochs=4, all_but_one_epochs=5)

FOUND = (0.9, 0.5, 0.4, 0.3, 0.0, None)
LOST = (0.9, 0.5, 0.0, 0.3, 0.0, None)
HALF = (0.9, 0.5, 0.0, 0.0, 0.0, None)


class TestLost:
    def test_one(self, series: Series) -> None:
        """A class that was found and is dead for the window has collapsed: one of three or four."""
        records = series(classes=[FOUND] * 4 + [LOST] * 4)
        assert class_collapse(records[:-1], RULE) is None
        assert class_collapse(records, RULE) is None  # a quarter of those that were learned
        found = class_collapse(records, RULE.model_copy(update={"lost_share": 0.25}))
        assert found is not None
        assert found.statement == (
            "2 of 5 classes stayed at 0.1 or less from epoch 5 to 8; 1 of them had been above 0.2"
        )
        assert (found.numbers["lost_classes"], found.numbers["dead_classes"]) == ([2], [2, 4])
        assert found.numbers["epochs"] == [5, 6, 7, 8]
        assert found.severity == pytest.approx(0.4)

    def test_most(self, series: Series) -> None:
        """Where most classes are dead, a single one that had been learned is enough."""
        classes = [(0.9, 0.5, 0.3, 0.0, 0.0, None)] * 4 + [HALF] * 4
        rule = RULE.model_copy(update={"lost_share": 1.0})
        found = class_collapse(series(classes=classes), rule)
        assert found is not None
        assert found.numbers["lost_classes"] == [2]

    @pytest.mark.parametrize("peak", [[0.21], [0.21, 0.15, 0.21], [0.2, 0.2]])
    def test_never_found(self, series: Series, peak: list[float]) -> None:
        """A class has been learned once it was above the level in two epochs in a row."""
        rule = RULE.model_copy(update={"lost_share": 0.1})
        peaks = [(0.9, 0.5, value, 0.3, 0.0, None) for value in peak]
        records = series(classes=[LOST] * 4 + peaks + [LOST] * 4)
        assert class_collapse(records, rule) is None
        twice = [(0.9, 0.5, 0.21, 0.3, 0.0, None)] * 2
        assert (
            signal(class_collapse(series(classes=[*[LOST] * 4, *twice, *[LOST] * 4]), rule))
            == "class_collapse"
        )

    def test_all_but_one(self, series: Series) -> None:
        """All classes but one lost counts within the grace, too."""
        alone = (0.9, 0.0, 0.0, 0.0, 0.0, None)
        rule = RULE.model_copy(update={"grace_epochs": 20})
        records = series(classes=[FOUND] * 2 + [alone] * 5)
        assert class_collapse(records[:-1], rule) is None
        assert signal(class_collapse(records, rule)) == "class_collapse"
        assert class_collapse(series(classes=[alone] * 7), rule) is None

    def test_recovering(self, series: Series) -> None:
        """A class that is recovering is not lost."""
        rule = RULE.model_copy(update={"lost_share": 0.1})
        course = [0.3, 0.3, 0.0, 0.0, 0.0, 0.0, 0.03, 0.05, 0.06, 0.08]
        records = series(classes=[(0.9, 0.5, value, 0.3, 0.0, None) for value in course])
        assert signal(class_collapse(records[:-4], rule)) is None  # within the grace
        assert class_collapse(records, rule) is None
        flat = [*course[:6], *[0.0] * 4]
        records = series(classes=[(0.9, 0.5, value, 0.3, 0.0, None) for value in flat])
        assert signal(class_collapse(records, rule)) == "class_collapse"


FLAT = [1.0, 1.01, 0.99, 1.0, 1.01, 0.99, 1.0, 1.01, 0.99, 1.0]
FALLING = [1.0 - 0.01 * epoch for epoch in range(10)]


class TestStuck:
    def test_flat_loss(self, series: Series) -> None:
        """Classes that were never learned are dead for good once the loss has stopped falling."""
        found = class_collapse(series(classes=[HALF] * 10, loss=FLAT), RULE)
        assert found is not None
        assert found.statement == (
            "3 of 5 classes stayed at 0.1 or less from epoch 7 to 10, and the loss has not fallen"
            " for 10 epochs"
        )
        assert found.numbers["lost_classes"] == []

    def test_slow(self, series: Series) -> None:
        """A trial whose loss still falls beyond its noise is slow, and has not collapsed."""
        assert class_collapse(series(classes=[HALF] * 10, loss=FALLING), RULE) is None

    def test_not_settled(self, series: Series) -> None:
        """It takes the epochs after the schedule has settled, all with the same loss."""
        late = [False, *[True] * 9]
        assert class_collapse(series(classes=[HALF] * 10, loss=FLAT, settled=late), RULE) is None
        shorter = RULE.model_copy(update={"settled_epochs": 9})
        records = series(classes=[HALF] * 10, loss=FLAT, settled=late)
        assert signal(class_collapse(records, shorter)) == "class_collapse"
        weights = [4.0, *[25.0] * 9]
        changed = series(classes=[HALF] * 10, loss=FLAT, weight_ratio=weights)
        assert class_collapse(changed, RULE) is None

    def test_alive_before(self, series: Series) -> None:
        """The classes have been dead for all of these epochs."""
        alive = (0.9, 0.5, 0.15, 0.0, 0.0, None)
        records = series(classes=[alive, *[HALF] * 9], loss=FLAT)
        assert class_collapse(records, RULE) is None
        records = series(classes=[(), *[HALF] * 9], loss=FLAT)
        assert signal(class_collapse(records, RULE)) == "class_collapse"

    def test_few(self, series: Series) -> None:
        """A smaller share of dead classes is none: rare ones are near zero in good trials."""
        few = (0.9, 0.5, 0.3, 0.0, 0.0, None)
        assert class_collapse(series(classes=[few] * 20, loss=FLAT * 2), RULE) is None


class TestBoth:
    def test_no_classes(self, series: Series) -> None:
        """Without known class metrics nothing collapses."""
        records = series(classes=[(None, None)] * 40)
        assert class_collapse(records, RULE) is None
        assert lacks_numbers("class_collapse", records)

    def test_disabled(self, series: Series) -> None:
        """A disabled signal does not fire."""
        rule = RULE.model_copy(update={"enabled": False})
        assert class_collapse(series(classes=[FOUND] * 4 + [HALF] * 4), rule) is None
