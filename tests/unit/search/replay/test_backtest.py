"""Backtests of recorded trials, small enough to count by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.console.backtest_tables import print_backtest
from search.replay.backtest import RuleResult, find_signal_stops, only_signal, run_backtest
from search.replay.pruner import Stop
from search.replay.ranking import RankedRecording, rank_recording, was_cut_short
from search.replay.stops import ReplayedTrial, replay_trials
from search.replay.tune import GRIDS, SPARED_SHARE, tune_thresholds
from spaces.config import MetricConfig
from spaces.errors import RecordsError
from spaces.recordings import RecordedStudy, RecordedTrial, Recording
from spaces.records import EpochRecord
from spaces.study import PrunerConfig
from spaces.thresholds import SIGNALS, SignalsConfig, Sparing

NAN = math.nan
Make = Callable[..., EpochRecord]
Trial = Callable[..., RecordedTrial]

NONE = PrunerConfig(kind="none")
BOUND = SignalsConfig.model_validate(
    {name: {"enabled": False} for name in SIGNALS if name != "gradient_explosion"}
)
"""Thresholds under which only a norm over 1000 stops a trial."""

UNSPARING = {"sparing": {"enabled": False}}


@pytest.fixture
def trial(make_record: Make) -> Trial:
    """Makes trials with an epoch of an hour per metric; the norm explodes in the epoch `bad`."""

    def make(
        number: int,
        metrics: Sequence[float],
        state: Any = "complete",
        bad: int | None = None,
        **changes: Any,
    ) -> RecordedTrial:
        norms = {epoch: 2000.0 if epoch == bad else 9.0 for epoch in range(1, len(metrics) + 1)}
        records = [
            make_record(
                epoch, metric=metric, grad_norm_max=norms[epoch], **{"seconds": 3600.0} | changes
            )
            for epoch, metric in enumerate(metrics, 1)
        ]
        return RecordedTrial(number, tuple(records), state)

    return make


def field(*trials: RecordedTrial, epochs: int | None = None, **metric: Any) -> RankedRecording:
    """The trials, ranked."""
    return rank_recording(
        Recording(RecordedStudy(name="demo", epochs=epochs, metric=MetricConfig(**metric)), trials)
    )


def rows(
    field: RankedRecording, signals: SignalsConfig = BOUND, pruner: PrunerConfig = NONE
) -> dict[str, RuleResult]:
    """The rows of a backtest, by rule."""
    return {row.rule: row for row in run_backtest(field, signals, pruner).rows}


class TestField:
    def test_ranked(self, trial: Trial) -> None:
        """Trials with a score rank by the study's rule, of equal ones the earlier first."""
        trials = [
            trial(0, [0.1, 0.3]),
            trial(1, [0.5, 0.2]),
            trial(2, [0.3, 0.1]),
            trial(3, [NAN, NAN]),
        ]
        assert [each.number for each in field(*trials).ranked] == [1, 0, 2]
        assert [each.number for each in field(*trials, score="last").ranked] == [0, 1, 2]
        assert [each.number for each in field(*trials, direction="minimize").ranked] == [0, 2, 1]

    @pytest.mark.parametrize(("trials", "best"), [(1, 1), (10, 1), (11, 2), (25, 3)])
    def test_best(self, trial: Trial, trials: int, best: int) -> None:
        """The best tenth is rounded up, so that it is never empty."""
        made = field(*(trial(number, [number / 100]) for number in range(trials)))
        assert [each.number for each in made.best_trials()] == list(
            range(trials - 1, trials - 1 - best, -1)
        )

    def test_cut_short(self, trial: Trial) -> None:
        """A stopped trial was cut short, unless its loss was not finite."""
        assert not was_cut_short(trial(0, [0.1]))
        assert [
            was_cut_short(trial(0, [0.1], state))
            for state in ("pruned", "diverged", "failed", "running")
        ] == [True] * 4
        assert not was_cut_short(trial(0, [NAN], "failed", train_loss=NAN, broken_step=3))
        assert was_cut_short(trial(0, [0.1], "diverged", bad=1, broken_step=3))

    def test_planned_epochs(self, trial: Trial) -> None:
        """The planned epochs are those of the study, or of the longest trial."""
        assert field(trial(0, [0.1]), trial(1, [0.1] * 4)).planned_epochs == 4
        assert field(trial(0, [0.1]), epochs=30).planned_epochs == 30

    def test_nothing(self, trial: Trial) -> None:
        """A study without an epoch, a complete trial or a score is an error."""
        with pytest.raises(RecordsError, match="demo has no recorded epochs"):
            field(trial(0, []))
        with pytest.raises(RecordsError, match="no trial of demo ran to completion") as caught:
            field(trial(0, [0.1], "pruned"), trial(1, []))
        assert (caught.value.where, caught.value.next_step) == (
            "study demo",
            "run the study without signals and pruner",
        )
        with pytest.raises(RecordsError, match="no complete trial of demo has a finite miou"):
            field(trial(0, [NAN, NAN]), trial(1, [0.1], "pruned"))

    @pytest.mark.parametrize(
        ("metrics", "state", "what", "found", "next_step"),
        [
            (
                [],
                "complete",
                "has no recorded epochs",
                "1 trials, none with an epoch",
                "add the epochs of at least one trial",
            ),
            (
                [0.1],
                "running",
                "ran to completion",
                "1 trials, all of them cut short",
                '"state": "complete"',
            ),
            (
                [NAN, NAN],
                "complete",
                "has a finite miou",
                "1 trials whose miou is NaN",
                "record the metric of every epoch",
            ),
        ],
    )
    def test_nothing_in_a_file(
        self, trial: Trial, metrics: list[float], state: Any, what: str, found: str, next_step: str
    ) -> None:
        """The error of a file says what to fix in it."""
        with pytest.raises(RecordsError, match=what) as caught:
            rank_recording(
                Recording(
                    RecordedStudy(metric=MetricConfig(name="miou")), (trial(0, metrics, state),)
                ),
                Path("curves.jsonl"),
            )
        assert caught.value.where == "curves.jsonl"
        assert caught.value.found.startswith(found)
        assert next_step in caught.value.next_step


class TestSignals:
    def test_counted(self, trial: Trial) -> None:
        """Of 10 epochs 3 + 1 are saved, with their hours, and the best remaining trial is found."""
        found = rows(
            field(trial(0, [0.1] * 4, bad=1), trial(1, [0.2] * 3, bad=2), trial(2, [0.15] * 3))
        )["gradient_explosion"]
        assert [(each.number, each.epoch, each.by, each.epochs_saved) for each in found.killed] == [
            (0, 1, "gradient_explosion", 3),
            (1, 2, "gradient_explosion", 1),
        ]
        assert (found.epochs_saved, found.share_saved, found.hours_saved) == (4, 0.4, 4.0)
        assert found.best_killed == (1,)
        assert found.found is not None
        assert (found.found.number, found.found.score) == (2, 0.15)

    def test_last_epoch(self, trial: Trial) -> None:
        """A stop after the last epoch counts and saves nothing."""
        found = rows(field(trial(0, [0.1] * 4, bad=4), trial(1, [0.2])))["gradient_explosion"]
        assert (len(found.killed), found.epochs_saved, found.best_killed) == (1, 0, ())

    def test_all_killed(self, trial: Trial) -> None:
        """Where every trial is stopped no best trial is found."""
        found = rows(field(trial(0, [0.1] * 2, bad=1)))["gradient_explosion"]
        assert (found.found, found.best_killed) == (None, (0,))

    def test_hours_unknown(self, trial: Trial) -> None:
        """Without times the hours are unknown."""
        made = field(trial(0, [0.1] * 2, bad=1, seconds=NAN))
        assert (
            run_backtest(made, BOUND, NONE).hours,
            rows(made)["gradient_explosion"].hours_saved,
        ) == (None, None)

    def test_each_alone(self, trial: Trial) -> None:
        """Every signal has a row, and all together have one, in which the earliest stop counts."""
        made = field(
            trial(0, [0.1] * 8, bad=6, class_metric=(0.9, 0.0, 0.0)),
            trial(1, [0.2] * 8, class_metric=(0.9, 0.2, 0.2)),
        )
        found = rows(made, SignalsConfig.model_validate(UNSPARING))
        assert list(found) == [*SIGNALS, "all signals"]
        alone = SignalsConfig().not_learning.all_but_one_epochs
        assert [each.epoch for each in found["not_learning"].killed] == [alone]
        assert [each.epoch for each in found["gradient_explosion"].killed] == [6]
        assert [(each.epoch, each.by) for each in found["all signals"].killed] == [
            (alone, "not_learning")
        ]

    def test_only(self) -> None:
        """The one signal keeps its thresholds, and the others are disabled."""
        alone = only_signal(
            SignalsConfig.model_validate({"gradient_explosion": {"max_norm": 5}}),
            "gradient_explosion",
        )
        assert [name for name in SIGNALS if getattr(alone, name).enabled] == ["gradient_explosion"]
        assert alone.gradient_explosion.max_norm == 5

    def test_direction(self, trial: Trial) -> None:
        """A minimized metric may fall."""
        falling = trial(0, [0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05])
        signals = only_signal(SignalsConfig(), "metric_falling")
        assert find_signal_stops(field(falling, epochs=30, direction="minimize"), signals) == {}
        assert list(find_signal_stops(field(falling, epochs=30), signals)) == [0]

    def test_spared(self, trial: Trial) -> None:
        """As in a running study, no trial is stopped that is almost over or among the best."""
        falling = [0.5, 0.49, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2]
        signals = only_signal(SignalsConfig(), "metric_falling")
        assert find_signal_stops(field(trial(0, falling), epochs=30), signals) == {
            0: Stop(6, "metric_falling")
        }
        assert find_signal_stops(field(trial(0, falling[:6]), epochs=7), signals) == {}
        worse = [trial(number, [0.4] * 8) for number in range(3)]
        better = [trial(number, [0.6] * 8) for number in range(3)]
        assert find_signal_stops(field(*worse, trial(3, falling), epochs=30), signals) == {}
        assert list(find_signal_stops(field(*better, trial(3, falling), epochs=30), signals)) == [3]
        late = [trial(number + 4, [0.4] * 8) for number in range(3)]
        found = find_signal_stops(field(trial(3, falling), *late, epochs=30), signals)
        assert list(found) == [3]  # its peers finish after it

    def test_no_peers(self, trial: Trial) -> None:
        """A trial that a signal stopped, or that was cut short, is no peer of another."""
        falling = [0.5, 0.49, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2]
        signals = SignalsConfig.model_validate({"overfitting": {"enabled": False}})
        cut = [trial(number, [0.4] * 8, "pruned") for number in range(3)]
        bad = [trial(number, [0.4] * 8, bad=8) for number in range(3, 6)]
        found = find_signal_stops(
            field(*cut, *bad, trial(6, falling), trial(7, [0.1] * 8)), signals
        )
        assert set(found) == {3, 4, 5, 6}


class TestUnknown:
    def test_cut_short(self, trial: Trial) -> None:
        """A trial that was cut short is not ranked, and its epochs can be saved."""
        made = field(trial(0, [0.9] * 4, "pruned", bad=1), trial(1, [0.2] * 4))
        found = run_backtest(made, BOUND, NONE)
        assert (
            [each.number for each in found.best],
            found.rows[0].epochs_saved,
            found.rows[0].best_killed,
        ) == ([1], 3, ())
        assert found.unknown[0].startswith("trial 0 was cut short in the record")

    def test_missing(self, trial: Trial) -> None:
        """Missing epochs, and missing numbers of a signal, are listed."""
        made = field(
            trial(0, []), trial(1, [0.2] * 4, val_loss=NAN, class_metric=()), trial(2, [0.3])
        )
        unknown = run_backtest(made, SignalsConfig(), PrunerConfig(kind="median")).unknown
        assert unknown[0] == "1 recorded without an epoch: nothing to replay"
        assert (
            unknown[1]
            == "class_collapse: trial 1 was not judged, as the record has no class metrics"
        )
        assert (
            unknown[2] == "not_learning: trial 1 was not judged, as the record has no class metrics"
        )
        assert (
            unknown[3]
            == "overfitting: trial 1 was not judged, as the record has no validation losses"
        )
        assert "a single worker" in unknown[4]

    def test_many(self, trial: Trial) -> None:
        """Of many trials the first are listed."""
        made = field(trial(0, [0.5]), *(trial(number, [0.2], "running") for number in range(1, 10)))
        assert (
            run_backtest(made, BOUND, NONE)
            .unknown[0]
            .startswith("9 trials (1, 2, 3, 4, 5, 6 and 3 more) were cut short")
        )

    def test_nothing(self, trial: Trial) -> None:
        """Where everything was recorded nothing is unknown."""
        assert run_backtest(field(trial(0, [0.5])), SignalsConfig(), NONE).unknown == ()


class TestPeers:
    MEDIAN = PrunerConfig(kind="median", startup_trials=2, warmup_epochs=1, noise=0)
    """The rule without a margin, to count by hand."""

    def test_median(self, trial: Trial) -> None:
        """With finished trials at 0.5 and 0.3, a third is compared with 0.4 from epoch 2 on."""
        made = field(
            trial(0, [0.5] * 4),
            trial(1, [0.3] * 4),
            trial(2, [0.39] * 4),
            trial(3, [0.41] * 4),
            trial(4, [0.1, 0.45, 0.1, 0.1]),
        )
        found = rows(made, BOUND, self.MEDIAN)["median"]
        assert [(each.number, each.epoch, each.by) for each in found.killed] == [(2, 2, "median")]
        assert (found.epochs_saved, found.share_saved) == (2, 0.1)

    def test_warmup(self, trial: Trial) -> None:
        """No trial is pruned in the warm-up, nor before enough trials are complete."""
        made = field(trial(0, [0.5] * 4), trial(1, [0.3] * 4), trial(2, [0.1] * 4))
        assert [
            each.epoch
            for each in rows(made, BOUND, PrunerConfig(startup_trials=2, warmup_epochs=2, noise=0))[
                "median"
            ].killed
        ] == [3]
        assert (
            rows(made, BOUND, PrunerConfig(startup_trials=3, warmup_epochs=2, noise=0))[
                "median"
            ].killed
            == ()
        )

    def test_last_epoch(self, trial: Trial) -> None:
        """No trial is pruned after its last epoch."""
        made = field(
            trial(0, [0.5] * 3), trial(1, [0.5] * 3), trial(2, [0.6, 0.1, 0.1]), trial(3, [0.1] * 3)
        )
        assert [
            each.number
            for each in rows(made, BOUND, PrunerConfig(startup_trials=2, warmup_epochs=2, noise=0))[
                "median"
            ].killed
        ] == []

    def test_killed_are_no_peers(self, trial: Trial) -> None:
        """A trial that a signal stopped, or that was cut short in the record, is not a peer."""
        bad = trial(0, [0.9] * 4, bad=3)
        made = field(
            bad,
            trial(1, [0.3] * 4),
            trial(2, [0.3] * 4),
            trial(3, [0.2] * 4),
            trial(4, [0.9, 0.9], "pruned"),
        )
        found = rows(made, BOUND, self.MEDIAN)
        assert [each.number for each in found["median"].killed] == [2, 3]
        assert [(each.number, each.by) for each in found["all signals + median"].killed] == [
            (0, "gradient_explosion"),
            (3, "median"),
        ]

    def test_signal_first(self, trial: Trial) -> None:
        """Where both would stop a trial the signal does, as in a running study."""
        made = field(trial(0, [0.5] * 4), trial(1, [0.5] * 4), trial(2, [0.1] * 4, bad=2))
        assert [
            (each.number, each.by)
            for each in rows(made, BOUND, self.MEDIAN)["all signals + median"].killed
        ] == [(2, "gradient_explosion")]

    @pytest.mark.parametrize(
        "pruner",
        [
            PrunerConfig(startup_trials=3, warmup_epochs=2, noise=0),
            PrunerConfig(kind="hyperband", min_epochs=2),
        ],
    )
    @pytest.mark.parametrize("direction", ["maximize", "minimize"])
    def test_as_optuna(self, trial: Trial, pruner: PrunerConfig, direction: Any) -> None:
        """Optuna's own loop over the same metrics prunes the same trials at the same epochs."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        curves = [
            [math.sin(number * 7.3 + epoch) + epoch * (number % 5) / 5 for epoch in range(12)]
            for number in range(40)
        ]
        kinds = {
            "median": optuna.pruners.MedianPruner(3, 3),
            "hyperband": optuna.pruners.HyperbandPruner(2, 12, 3),
        }
        ended: dict[int, int] = {}

        def objective(own: optuna.Trial) -> float:
            for epoch, value in enumerate(curves[own.number], 1):
                own.report(value, epoch)
                if epoch < 12 and own.should_prune():
                    ended[own.number] = epoch
                    raise optuna.TrialPruned
            best: Callable[[list[float]], float] = max if direction == "maximize" else min
            return best(curves[own.number])

        optuna.create_study(
            study_name="demo", direction=direction, pruner=kinds[pruner.kind]
        ).optimize(objective, 40)
        entrants = [
            ReplayedTrial(
                number,
                trial(number, curve).epochs,
                (),
                (max if direction == "maximize" else min)(curve),
            )
            for number, curve in enumerate(curves)
        ]
        assert len(ended) > 5
        found = replay_trials(entrants, Sparing(), pruner, 12, direction, "demo")
        assert {number: stop.seen for number, stop in found.items()} == ended

    def test_noise(self, trial: Trial) -> None:
        """By default a noisy trial continues where a quiet one with the same best is pruned."""
        peers = [trial(number, [0.5] * 8) for number in range(8)]
        made = field(*peers, trial(8, [0.4] * 8), trial(9, [0.3, 0.4] * 4))
        assert [
            (each.number, each.epoch) for each in rows(made, BOUND, PrunerConfig())["median"].killed
        ] == [(8, 4)]
        assert [
            each.number for each in rows(made, BOUND, PrunerConfig(noise=0))["median"].killed
        ] == [8, 9]

    def test_gaps(self, trial: Trial) -> None:
        """Hyperband assigns brackets by number, and missing trials keep theirs."""
        curves = {number: [((number * 37) % 11) / 11] * 9 for number in range(30)}
        kept = [number for number in curves if number % 3]
        pruner = PrunerConfig(kind="hyperband")
        entrants = [
            ReplayedTrial(number, trial(number, curves[number]).epochs, (), None) for number in kept
        ]
        found = replay_trials(entrants, Sparing(), pruner, 9, "maximize", "demo")
        assert set(found) <= set(kept)
        assert found != replay_trials(
            [ReplayedTrial(at, each.records, (), None) for at, each in enumerate(entrants)],
            Sparing(),
            pruner,
            9,
            "maximize",
            "demo",
        )

    def test_nan(self, trial: Trial) -> None:
        """An epoch without a metric is not reported, and a trial without a score is not a peer."""
        made = field(
            trial(0, [NAN] * 4),
            trial(1, [0.5] * 4),
            trial(2, [0.5] * 4),
            trial(3, [NAN, NAN, 0.1, 0.1]),
        )
        assert [
            (each.number, each.epoch) for each in rows(made, BOUND, self.MEDIAN)["median"].killed
        ] == [(3, 3)]

    def test_verbosity(self, trial: Trial) -> None:
        """Optuna's verbosity is restored afterwards."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        replay_trials([], Sparing(), self.MEDIAN, 4, "maximize", "demo")
        assert optuna.logging.get_verbosity() == optuna.logging.WARNING


class TestTune:
    def test_spares_the_best(self, trial: Trial) -> None:
        """The proposal stops none of the best fifth, saves epochs, and has its rows."""
        good = [
            trial(
                number, [0.1 * epoch for epoch in range(1, 21)], class_metric=(0.9, 0.4, 0.3, None)
            )
            for number in range(4)
        ]
        sleepy = [
            trial(number, [0.2] * 20, class_metric=(0.9, 0.0, 0.0, None)) for number in range(4, 12)
        ]
        made = field(*good, *sleepy)
        found = tune_thresholds(made, SignalsConfig())
        assert {each.number for each in found.spared} == {0, 1, 2}
        assert len(found.spared) == math.ceil(SPARED_SHARE * 12)
        assert found.signals["not_learning"]["enabled"]
        last = found.rows[-1]
        assert (last.rule, last.best_killed, len(last.killed)) == ("all signals", (), 8)
        assert last.share_saved > 0.4

    def test_off(self, trial: Trial) -> None:
        """A signal that always stops one of the best is disabled; a disabled one is not tuned."""
        made = field(
            *(trial(number, [0.1] * 8, class_metric=(0.9, 0.0, 0.0)) for number in range(6))
        )
        base = SignalsConfig.model_validate({"overfitting": {"enabled": False}} | UNSPARING)
        found = tune_thresholds(made, base).signals
        assert found["not_learning"]["enabled"] is False
        assert "overfitting" not in found
        assert (
            SignalsConfig.model_validate(base.model_dump() | dict(found)).not_learning.enabled
            is False
        )

    def test_no_occasion(self, trial: Trial) -> None:
        """A signal that fires on none of the trials keeps its thresholds."""
        made = field(
            *(trial(number, [0.1 * epoch for epoch in range(1, 9)]) for number in range(6))
        )
        base = SignalsConfig.model_validate({"loss_rising": {"epochs": 7, "rise": 0.3}})
        found = tune_thresholds(made, base).signals
        assert found["loss_rising"] == base.loss_rising.model_dump()
        assert all(found[name]["enabled"] for name in found)

    def test_strictest(self, trial: Trial) -> None:
        """Of thresholds that save as much and stop as many the strictest are proposed."""
        good = [
            trial(number, [0.1 * epoch for epoch in range(1, 21)], class_metric=(0.9, 0.4, 0.3))
            for number in range(4)
        ]
        sleepy = [
            trial(number, [0.2] * 20, class_metric=(0.9, 0.01, 0.01)) for number in range(4, 12)
        ]
        found = tune_thresholds(
            field(*good, *sleepy),
            SignalsConfig.model_validate({"not_learning": {"level": 0.0}} | UNSPARING),
        ).signals["not_learning"]
        grid = GRIDS["not_learning"]
        assert (found["level"], found["all_but_one_epochs"]) == (
            min(level for level in grid["level"] if level >= 0.01),
            min(grid["all_but_one_epochs"]),
        )
        assert {key: found[key] for key in ("grace_epochs", "epochs")} == {
            key: max(grid[key]) for key in ("grace_epochs", "epochs")
        }

    def test_fewest(self, trial: Trial, make_record: Make) -> None:
        """Stops that save nothing are avoided; given thresholds that do as well stay."""
        good = [
            trial(number, [0.1 * epoch for epoch in range(1, 21)], class_metric=(0.9, 0.4, 0.3))
            for number in range(4)
        ]
        sleepy = [
            trial(number, [0.2] * 20, class_metric=(0.9, 0.0, 0.0)) for number in range(4, 12)
        ]
        classes = [(0.9, 0.2, 0.2) if epoch < 18 else (0.9, 0.0, 0.0) for epoch in range(1, 21)]
        late = RecordedTrial(
            12,
            tuple(
                make_record(epoch, metric=0.3, class_metric=each)
                for epoch, each in enumerate(classes, 1)
            ),
        )
        made = field(*good, *sleepy, late)
        happy = {"grace_epochs": 4, "epochs": 3, "all_but_one_epochs": 4}
        proposed = tune_thresholds(
            made, SignalsConfig.model_validate({"not_learning": happy} | UNSPARING)
        )
        row = next(row for row in proposed.rows if row.rule == "not_learning")
        assert (
            {each.number for each in row.killed},
            proposed.signals["not_learning"]["epochs"] > 3,
        ) == (set(range(4, 12)), True)
        calm = SignalsConfig.model_validate({"not_learning": happy | {"epochs": 5}} | UNSPARING)
        assert tune_thresholds(made, calm).signals["not_learning"] == calm.not_learning.model_dump()

    def test_cannot_judge(self, trial: Trial) -> None:
        """A signal whose numbers all trials lack is not tuned."""
        made = field(trial(0, [0.1] * 8, class_metric=(), val_loss=NAN))
        assert set(tune_thresholds(made, SignalsConfig()).signals) == {
            "loss_rising",
            "metric_falling",
            "loss_metric_decoupling",
        }


class TestJson:
    def test_plain(self, trial: Trial) -> None:
        """Both results are JSON without NaN."""
        made = field(trial(0, [0.1] * 4, bad=1), trial(1, [0.2] * 4))
        for payload in (
            run_backtest(made, SignalsConfig(), PrunerConfig()).as_dict(),
            tune_thresholds(made, SignalsConfig()).as_dict(),
        ):
            assert json.loads(json.dumps(payload, allow_nan=False)) == payload


class TestTable:
    @pytest.mark.parametrize("columns", [60, 80, 120])
    @pytest.mark.parametrize("kind", ["median", "hyperband"])
    def test_readable(
        self,
        trial: Trial,
        width: Callable[[int], None],
        capsys: pytest.CaptureFixture[str],
        columns: int,
        kind: Any,
    ) -> None:
        """At any usual width nothing is truncated, and each rule has one line."""
        trials = [
            trial(number, [0.1] * 3 + [0.5 - number / 1000] * 9, bad=3)
            for number in range(100, 220)
        ]
        result = run_backtest(field(*trials), SignalsConfig(), PrunerConfig(kind=kind))
        width(columns)
        print_backtest(result)
        said = capsys.readouterr().out
        lines = said.splitlines()

        assert max(map(len, lines)) <= columns
        assert re.findall(r"\S*…", re.sub(r"…\s+\d+\s+more", "", said)) == []
        for row in result.rows:
            (line,) = [line for line in lines if re.match(f"{re.escape(row.rule)} +[0-9]", line)]
            assert f"{100 * row.share_saved:.1f}%" in line
            assert f"{row.hours_saved:.2f}" in line
            assert str(len(row.killed)) in line
        assert "100, 101, 102" in said
