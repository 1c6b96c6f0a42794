"""Epoch records: conversion to a mapping and back, and how they become one score."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from spaces.config import Direction, MetricConfig, ScoreRule
from spaces.records import (
    UNCLEAR_CAUSE,
    Diagnosis,
    EpochRecord,
    InputFigures,
    Remedy,
    TestScore,
    best_record,
    better,
    score,
)

NAN, INF = math.nan, math.inf
Make = Callable[..., EpochRecord]

BROKEN = {
    "train_loss": NAN,
    "grad_norm_max": INF,
    "metric": NAN,
    "class_metric": (None, None, None),
    "metrics": {"miou": NAN},
    "broken_step": 3,
}


@pytest.fixture
def series(make_record: Make) -> Callable[..., list[EpochRecord]]:
    """Make records of the epochs 1, 2, … with these metrics."""
    return lambda *metrics: [
        make_record(epoch, metric=metric) for epoch, metric in enumerate(metrics, 1)
    ]


class TestAsDict:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {
                "dice_loss": None,
                "settled": False,
                "used": {
                    "loss.gamma": 2.0,
                    "weights.clip_ratio": None,
                    "environment.classes": ["a", "b"],
                },
            },
            {"test": TestScore(0.5, (0.25, None, 0.0))},
            {
                "inputs": InputFigures((0.5, 1.0), (0.1, 0.2), (0.0, 0.1), (0.0, 0.9), 0.25),
                "val_inputs": InputFigures((0.5,), (0.1,), (0.0,), (0.0,), 0.0),
                "target_shares": (0.9, 0.0, 0.1),
                "skipped_steps": 3,
                "batch_norm_samples": 8,
            },
            BROKEN,
            BROKEN | {"test": TestScore(NAN, (NAN, None, INF))},
        ],
    )
    def test_round_trip(self, make_record: Make, changes: dict[str, Any]) -> None:
        """A record survives a dict and JSON, with None, NaN and infinity."""
        record = make_record(7, **changes)
        assert repr(EpochRecord.from_dict(record.as_dict())) == repr(record)
        assert repr(EpochRecord.from_dict(json.loads(json.dumps(record.as_dict())))) == repr(record)

    def test_older_version(self, make_record: Make) -> None:
        """What an older version did not record has its default."""
        stored = make_record(2).as_dict()
        for name in ("inputs", "val_inputs", "target_shares", "skipped_steps"):
            del stored[name]
        assert EpochRecord.from_dict(stored) == make_record(2)

    def test_newer_version(self, make_record: Make) -> None:
        """A key that this version does not know is ignored."""
        record = make_record(2)
        assert EpochRecord.from_dict(record.as_dict() | {"invented_later": 1}) == record

    def test_apart(self, make_record: Make) -> None:
        """Changes of the dict do not change the record."""
        record = make_record(1, used={"loss.gamma": 2.0})
        record.as_dict()["used"].clear()
        assert record.used == {"loss.gamma": 2.0}


class TestWithholdUnclear:
    def test_unclear(self) -> None:
        """Without a clear cause, what changes nothing remains of the remedies."""
        look = Remedy("look at the masks", {})
        slower = Remedy("a lower rate", {"optimizer.lr_multiple": 0.5})
        found = Diagnosis("labels broken", ("…",), (slower, look), 0.3).withhold_unclear()
        assert (found.cause, found.because, found.remedies) == (UNCLEAR_CAUSE, (), (look,))

    def test_possible(self) -> None:
        """Only causes that are at least 15% likely are possible ones; there may be none."""
        others = (("batch too small", 0.15), ("Dice too late", 0.14))
        some = Diagnosis("labels broken", (), (), 0.2, (), others).withhold_unclear()
        assert some.others == (("labels broken", 0.2), ("batch too small", 0.15))
        none = Diagnosis("labels broken", (), (), 0.14, (), others[1:]).withhold_unclear()
        assert (none.cause, none.others) == (UNCLEAR_CAUSE, ())

    def test_clear(self) -> None:
        """A clear diagnosis stays as it is."""
        found = Diagnosis("labels broken", ("…",), (Remedy("a lower rate", {"lr": 0.5}),))
        assert found.withhold_unclear() is found


class TestBetter:
    @pytest.mark.parametrize(
        ("a", "b", "direction", "wins"),
        [
            (0.5, 0.4, "maximize", True),
            (0.4, 0.5, "maximize", False),
            (0.4, 0.5, "minimize", True),
            (0.5, 0.5, "maximize", False),
            (0.5, 0.5, "minimize", False),
            (NAN, 0.1, "maximize", False),
            (0.1, NAN, "maximize", True),
            (NAN, 0.1, "minimize", False),
            (-INF, NAN, "maximize", True),
            (NAN, NAN, "maximize", False),
        ],
    )
    def test_better(self, a: float, b: float, direction: Direction, wins: bool) -> None:
        """Equal scores are not better; NaN is worse than every number."""
        assert better(a, b, direction) is wins


class TestBestRecord:
    @pytest.mark.parametrize(
        ("metrics", "direction", "epoch"),
        [
            ((0.1, 0.3, 0.2), "maximize", 2),
            ((0.1, 0.3, 0.2), "minimize", 1),
            ((0.1, 0.3, 0.3), "maximize", 2),
            ((NAN, 0.3, 0.4), "minimize", 2),
            ((0.3, NAN), "maximize", 1),
            ((NAN, NAN), "maximize", 1),
        ],
    )
    def test_first_best(
        self,
        series: Callable[..., list[EpochRecord]],
        metrics: tuple[float, ...],
        direction: Direction,
        epoch: int,
    ) -> None:
        """The first of equal records is best, and a broken one only if all are broken."""
        assert best_record(series(*metrics), direction).epoch == epoch

    def test_none(self) -> None:
        """Without records there is no best one."""
        with pytest.raises(ValueError, match="no epoch record"):
            best_record([], "maximize")


class TestScore:
    @pytest.mark.parametrize(
        ("rule", "metrics", "result"),
        [
            ("best", (0.1, 0.6, 0.2), 0.6),
            ("last", (0.1, 0.6, 0.2), 0.2),
            ("mean_last_5", (9.0, 0.1, 0.2, 0.3, 0.4, 0.5), 0.3),
            ("mean_last_5", (0.2, 0.4), 0.3),
            ("best", (0.5, NAN), 0.5),
            ("last", (0.5, NAN), NAN),
            ("mean_last_5", (0.5, NAN), NAN),
        ],
    )
    def test_rules(
        self,
        series: Callable[..., list[EpochRecord]],
        rule: ScoreRule,
        metrics: tuple[float, ...],
        result: float,
    ) -> None:
        """The score is the best epoch, the last, or the mean of the last five, or of fewer."""
        assert score(series(*metrics), MetricConfig(score=rule)) == pytest.approx(
            result, nan_ok=True
        )

    def test_minimize(self, series: Callable[..., list[EpochRecord]]) -> None:
        """If lower is better, the best is the lowest."""
        assert (
            score(series(0.5, 0.3, 0.4), MetricConfig(name="val_ce", direction="minimize")) == 0.3
        )
