"""What several commands take from the command line."""

from __future__ import annotations

from typing import Any

import pytest

from search.cli.parsing import (
    DEFAULT_STORE,
    load_spec,
    naming_set_option,
    parse_duration,
    parse_pruner,
    parse_signals,
    store_location,
)
from search.planning.plan import make_plan
from spaces.errors import InputError, StudyError
from spaces.loader import load_study
from spaces.study import PrunerConfig
from spaces.thresholds import SignalsConfig


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "duration"),
        [
            (None, None),
            ("90s", 90),
            ("30m", 1800),
            ("2h", 7200),
            ("1d", 86400),
            ("1h30m", 5400),
            ("1.5h", 5400),
            ("0.5s", 0.5),
            ("1d2h3m4s", 93784),
        ],
    )
    def test_duration(self, text: str | None, duration: float | None) -> None:
        """Numbers with units, one after the other; nothing is no limit."""
        assert parse_duration(text) == duration

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "90",
            "s",
            "2 h",
            "2h ",
            "-2h",
            "2H",
            "1h30",
            "h1",
            "1e3s",
            ".5h",
            "2h,30m",
            "two hours",
        ],
    )
    def test_refused(self, text: str) -> None:
        """Anything else is refused, with examples."""
        with pytest.raises(InputError, match="--timeout is not a duration") as caught:
            parse_duration(text)
        assert (caught.value.where, caught.value.found) == ("--timeout", text)
        assert "1h30m" in caught.value.allowed


class TestStoreLocation:
    def test_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is given goes before the environment, and that before the file in the working directory."""
        monkeypatch.delenv("SEARCH_STORE", raising=False)
        assert store_location(None).url == DEFAULT_STORE == "sqlite:///search.db"
        monkeypatch.setenv("SEARCH_STORE", "postgresql://host/db")
        assert store_location(None).url == "postgresql://host/db"
        assert store_location("sqlite:///other.db").url == "sqlite:///other.db"

    @pytest.mark.parametrize(
        ("given", "url"),
        [
            ("my.db", "sqlite:///my.db"),
            ("/tmp/my.db", "sqlite:////tmp/my.db"),
            ("postgresql://u:p@h/d", "postgresql://u:p@h/d"),
        ],
    )
    def test_path(self, given: str, url: str) -> None:
        """A plain path means SQLite."""
        assert store_location(given).url == url

    def test_empty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An empty variable is none."""
        monkeypatch.setenv("SEARCH_STORE", "")
        assert store_location(None).url == DEFAULT_STORE


class TestLoadSpec:
    def test_options(self) -> None:
        """The options have the last word, also over --set; what is not given stays."""
        plain = load_study("focal_gamma")
        spec = load_spec(
            "focal_gamma",
            ["trials=7", "epochs=8", "sampler.kind=random"],
            name="mine",
            trials=9,
            seed=3,
        )
        assert (spec.name, spec.trials, spec.epochs, spec.seed, spec.sampler.kind) == (
            "mine",
            9,
            8,
            3,
            "random",
        )
        assert (spec.space, spec.base, spec.presets) == (plain.space, plain.base, plain.presets)

    def test_zero(self) -> None:
        """A seed of 0 is a seed."""
        assert load_spec("focal_gamma", ["seed=5"], seed=0).seed == 0

    @pytest.mark.parametrize("options", [{"name": "a b"}, {"trials": 0}, {"seed": -1}])
    def test_refused(self, options: dict[str, Any]) -> None:
        """An option is checked as the file is."""
        with pytest.raises(StudyError, match=next(iter(options))):
            load_spec("focal_gamma", [], **options)

    @pytest.mark.parametrize(
        ("assignments", "epochs", "where"),
        [([], 0, "--epochs"), (["epochs=0"], None, "--set epochs"), (["epochs=3"], 0, "--epochs")],
    )
    def test_named(self, assignments: list[str], epochs: int | None, where: str) -> None:
        """A complaint names the option by which the value was given."""
        with pytest.raises(StudyError) as caught:
            load_spec("focal_gamma", assignments, epochs=epochs)
        assert caught.value.where == where


class TestNamingSetOption:
    @pytest.mark.parametrize(
        ("assignment", "where"),
        [
            ("base.loss.gama=1", "study focal_gamma, base, loss → gama"),
            ("base.loss.gamma=-1", "study focal_gamma, base, loss → gamma"),
            ("base.loss.ce_weight=0.9", "study focal_gamma, base, loss"),
            ("metric.name=mious", "study focal_gamma, metric → name"),
            ("presets=[save]", "presets"),
            (
                "base.schedule.swa_from_epoch=99",
                "study focal_gamma, base → schedule.swa_from_epoch",
            ),
            (
                "space.loss.gamma.low=-1",
                "study focal_gamma, space → loss.gamma, tried with -1.0, loss → gamma",
            ),
        ],
    )
    def test_named(self, assignment: str, where: str) -> None:
        """A complaint about the study as a whole names the change that brought it about, and its place."""
        spec = load_spec("focal_gamma", [assignment])
        with (
            pytest.raises(StudyError) as caught,
            naming_set_option(["trials=9", assignment]),
        ):
            make_plan(spec)
        assert caught.value.where == f"--set {assignment.partition('=')[0]}, over {where}"

    def test_others(self) -> None:
        """One that no change brought about keeps its place."""
        spec = load_spec("focal_gamma", ["base.loss.gama=1"])
        with (
            pytest.raises(StudyError) as caught,
            naming_set_option(["base.data.size=64", "base.loss.gamma=2"]),
        ):
            make_plan(spec)
        assert caught.value.where == "study focal_gamma, base, loss → gama"


class TestSignals:
    def test_changed(self) -> None:
        """Thresholds are changed one by one, over those that are given."""
        below = SignalsConfig.model_validate({"overfitting": {"patience": 9}})
        found = parse_signals(
            ["class_collapse.epochs=8", "loss_rising.enabled=false", "grace_epochs=1"], below
        )
        assert (
            found.class_collapse.epochs,
            found.loss_rising.enabled,
            found.grace_epochs,
            found.overfitting.patience,
        ) == (8, False, 1, 9)
        assert parse_signals([], below) == below

    def test_former_name(self) -> None:
        """A former name of a signal changes its thresholds, over those under the name now."""
        below = SignalsConfig.model_validate({"loss_metric_decoupling": {"window": 9}})
        found = parse_signals(["loss_metric_divorce.drop=0.4"], below).loss_metric_decoupling
        assert (found.drop, found.window) == (0.4, 9)

    @pytest.mark.parametrize(
        ("given", "what", "where"),
        [
            (
                "class_colapse.epochs=8",
                r"unknown key 'class_colapse' \(did you mean 'class_collapse'\?\)",
                "--signals, class_colapse",
            ),
            (
                "class_collapse.epoch=8",
                r"unknown key 'epoch' \(did you mean 'epochs'\?\)",
                "--signals, class_collapse → epoch",
            ),
            (
                "class_collapse.epochs=0",
                "epochs: input should be greater than or equal to 1",
                "--signals, class_collapse → epochs",
            ),
            (
                "class_collapse.share=1.5",
                "share: input should be less than or equal to 1",
                "--signals, class_collapse → share",
            ),
            (
                "sparing=false",
                "sparing has keys of its own, so it cannot be a single value",
                "--signals, sparing",
            ),
            ("class_collapse", "--signals takes path=value", "--signals"),
            ("grace_epochs=[", "--signals cannot read the value", "--signals grace_epochs"),
        ],
    )
    def test_refused(self, given: str, what: str, where: str) -> None:
        """Unknown names and values out of range are refused, with the nearest known name."""
        with pytest.raises(StudyError, match=what) as caught:
            parse_signals([given], SignalsConfig())
        assert caught.value.where == where


class TestPruner:
    def test_changed(self) -> None:
        """A word names the pruner, an assignment one of its settings."""
        found = parse_pruner(["hyperband", "min_epochs=3"], PrunerConfig(startup_trials=5))
        assert (found.kind, found.min_epochs, found.startup_trials) == ("hyperband", 3, 5)
        assert parse_pruner([], PrunerConfig(startup_trials=5)) == PrunerConfig(startup_trials=5)

    @pytest.mark.parametrize(
        ("given", "what"),
        [
            ("medium", r"kind cannot be 'medium' \(did you mean 'median'\?\)"),
            ("warmup=3", "unknown key 'warmup'"),
            ("warmup_epochs=-1", "greater than or equal to 0"),
        ],
    )
    def test_refused(self, given: str, what: str) -> None:
        """Unknown pruners and settings are refused."""
        with pytest.raises(StudyError, match=what):
            parse_pruner([given], PrunerConfig())
