"""The signs of health of a trial, read from its records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from search.diagnosis.health import check_health, describe_health, find_dead_classes
from spaces.records import EpochRecord

NAN = float("nan")
Make = Callable[..., EpochRecord]


class TestHealth:
    def course(self, make_record: Make, **columns: Sequence[Any]) -> list[EpochRecord]:
        """Healthy records, but for the given columns."""
        epochs = len(next(iter(columns.values()))) if columns else 4
        healthy: dict[str, Sequence[Any]] = {
            "train_loss": [1 - 0.1 * epoch for epoch in range(epochs)],
            "ce_loss": [1 - 0.1 * epoch for epoch in range(epochs)],
            "dice_loss": [1 - 0.1 * epoch for epoch in range(epochs)],
            "metric": [0.1 * epoch for epoch in range(epochs)],
            "class_metric": [(0.85, 0.15 + 0.05 * epoch, None) for epoch in range(epochs)],
        }
        given = healthy | dict(columns)
        return [
            make_record(epoch + 1, **{name: values[epoch] for name, values in given.items()})
            for epoch in range(epochs)
        ]

    def test_healthy(self, make_record: Make) -> None:
        """A healthy trial shows all six signs, each a line with its numbers."""
        lines = describe_health(self.course(make_record), "maximize")

        assert len(lines) == 6
        assert all(line.startswith("present: ") for line in lines)
        assert "1 → 0.7" in lines[0]

    @pytest.mark.parametrize(
        ("column", "values", "missing"),
        [
            ("train_loss", [0.5, 0.6, 0.7, 0.8], 0),
            ("train_loss", [0.8, 0.9, 1.0, 0.7], 0),
            ("train_loss", [0.5, 0.9, 0.8, 0.7], 0),
            ("metric", [0.45, 0.42, 0.38, 0.32], 1),
            ("grad_norm_median", [1.0, 5.0, 11.0, 1.0], 2),
            ("grad_norm_median", [1.0, 0.05, 1.0, 1.0], 2),
            ("ce_loss", [0.5, 0.4, 0.4, 0.6], 3),
            ("dice_loss", [0.5, 0.4, 0.4, 0.6], 3),
            ("class_metric", [(0.85, 0.15, None)] * 3 + [(0.85, 0.15, None)], 4),
            ("class_metric", [(0.85, 0.15, None)] * 3 + [(0.30, 0.80, None)], 4),
        ],
    )
    def test_missing(self, make_record: Make, column: str, values: list[Any], missing: int) -> None:
        """A sign that is missing is reported as missing, and no other one."""
        found = check_health(self.course(make_record, **{column: values}), "maximize")

        assert [index for index, sign in enumerate(found) if sign.present is False] == [missing]

    @pytest.mark.parametrize(
        ("column", "values"),
        [
            ("train_loss", [0.9, 0.8, 0.85, 0.7]),
            ("metric", [0.2, 0.1, 0.3, 0.25]),
            ("grad_norm_median", [0.1, 10.0, 1.0, 1.0]),
            ("dice_loss", [None, None, None, None]),
            ("dice_loss", [None, 0.9, 0.8, 0.7]),
            ("class_metric", [(0.85, 0.15, None)] * 3 + [(0.84, 0.35, None)]),
        ],
    )
    def test_tolerated(self, make_record: Make, column: str, values: list[Any]) -> None:
        """Usual noise, a loss without Dice, and a small change of a frequent class are healthy."""
        assert all(
            sign.present
            for sign in check_health(self.course(make_record, **{column: values}), "maximize")
        )

    def test_minimized(self, make_record: Make) -> None:
        """A minimized metric improves by falling."""
        records = self.course(make_record, metric=[0.9, 0.7, 0.5, 0.4])

        assert check_health(records, "minimize")[1].present
        assert not check_health(records, "maximize")[1].present

    def test_unsettled_losses_are_left_out(self, make_record: Make) -> None:
        """Losses of epochs before the schedule has settled are left out."""
        records = self.course(
            make_record, train_loss=[0.1, 0.9, 0.8, 0.7], settled=[False, True, True, True]
        )

        assert check_health(records, "maximize")[0].present

    def test_broken_epoch_is_left_out(self, make_record: Make) -> None:
        """An epoch that broke off is left out."""
        broken = make_record(
            5,
            broken_step=3,
            train_loss=NAN,
            metric=NAN,
            grad_norm_median=5000.0,
            class_metric=(None,) * 3,
        )

        assert all(
            sign.present for sign in check_health([*self.course(make_record), broken], "maximize")
        )

    @pytest.mark.parametrize(
        ("metrics", "improved"),
        [
            ([NAN, 0.1, NAN, 0.3], True),
            ([0.3, NAN, 0.1, NAN], False),
            ([NAN, NAN, NAN, 0.3], None),
        ],
    )
    def test_not_validated(
        self, make_record: Make, metrics: list[float], improved: bool | None
    ) -> None:
        """The metric is judged by the epochs that were validated."""
        found = check_health(self.course(make_record, metric=metrics), "maximize")[1]
        assert found.present is improved

    @pytest.mark.parametrize("epochs", [0, 1])
    def test_too_short(self, make_record: Make, epochs: int) -> None:
        """A trial of fewer than two epochs is not judged by its course."""
        found = check_health(self.course(make_record)[:epochs], "maximize")

        assert [sign.present for sign in found] == [
            None,
            None,
            True if epochs else None,
            None,
            None,
            None,
        ]
        assert "not judged" in str(found[0])


class TestDeadClasses:
    @pytest.mark.parametrize(
        ("course", "never_found", "lost"),
        [
            ([0.0, 0.0, 0.0], (1,), ()),
            ([0.0, 0.01, 0.0], (1,), ()),
            ([0.0, 0.02, 0.0], (), ()),  # found a little, and never learned
            ([0.0, 0.3, 0.0], (), (1,)),
            ([0.3, 0.0, 0.02], (), ()),
            ([0.3, 0.2, 0.1], (), ()),
        ],
    )
    def test_course(
        self,
        make_record: Make,
        course: list[float],
        never_found: tuple[int, ...],
        lost: tuple[int, ...],
    ) -> None:
        """A class at 0 in every epoch was never found; one that was learned before is lost."""
        records = [
            make_record(epoch, class_metric=(0.8, metric, None))
            for epoch, metric in enumerate(course, 1)
        ]
        dead = find_dead_classes(records)
        assert (dead.never_found, dead.lost, dead.judged) == (never_found, lost, 2)

    def test_named(self, make_record: Make) -> None:
        """The sign names the classes; one without a name is numbered."""
        records = [
            make_record(epoch, class_metric=(0.8, 0.0, metric, 0.0))
            for epoch, metric in enumerate([0.3, 0.0], 1)
        ]
        sign = check_health(records, "maximize", ("road", "sky", "car"))[-1]
        assert str(sign) == (
            "missing: every class is found (2 of 4 classes never found: sky, 3; "
            "1 of 4 classes learned and lost: car)"
        )

    def test_none(self) -> None:
        """Without records no class is judged."""
        assert find_dead_classes([]).judged == 0
