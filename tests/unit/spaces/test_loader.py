"""The loader: from YAML to checked models, and the errors that users read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from spaces.config import LossConfig
from spaces.errors import ConfigError, InputError, StudyError
from spaces.loader import Document, check, load_study, parse_changes, shipped_studies, study_file
from spaces.parameters import Choice, FloatRange
from spaces.study import StudySpec

Write = Callable[[str], Path]

SPACE = "space:\n  loss.gamma: {kind: float, low: 0, high: 5}\n"
STUDY = f"name: mine\n{SPACE}"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a study's YAML to a file."""

    def file(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return file


def refusal(path: Path | str, changes: dict[str, Any] | None = None) -> StudyError:
    """Why a study is refused."""
    with pytest.raises(StudyError) as caught:
        load_study(str(path), changes)
    return caught.value


class TestBadStudy:
    @pytest.mark.parametrize(
        ("text", "what", "place", "found", "allowed"),
        [
            (
                f"name: mine\nepoch: 3\n{SPACE}",
                "unknown key 'epoch' (did you mean 'epochs'?)",
                ", line 2, epoch",
                "",
                "epochs",
            ),
            (
                f"name: mine\n\nmetric: {{score: bets}}\n{SPACE}",
                "score cannot be 'bets' (did you mean 'best'?)",
                ", line 3, metric → score",
                "'bets'",
                "best, last or mean_last_5",
            ),
            (
                f"name: mine\ntrials: 0\n{SPACE}",
                "trials: input should be greater than or equal to 1",
                ", line 2, trials",
                "0",
                "",
            ),
            (
                f"name: mine\nepochs: many\n{SPACE}",
                "epochs: input should be a valid integer",
                ", line 2, epochs",
                "'many'",
                "",
            ),
            (
                f"name: a b\n{SPACE}",
                "name: string should match pattern",
                ", line 1, name",
                "'a b'",
                "",
            ),
            (SPACE, "the key 'name' is missing", ", name", "", "name: …"),
            ("name: mine\n", "the key 'space' is missing", ", space", "", "space: …"),
            (
                "name: mine\nspace: {}\n",
                "space: dictionary should have at least 1 item",
                ", line 2, space",
                "{}",
                "",
            ),
            (
                "name: mine\nspace:\n",
                "space must be a mapping of keys to values",
                ", line 2, space",
                "null",
                "space: {key: value}",
            ),
            (
                f"name: mine\nsignals: {{overfitting: {{patience: 0}}}}\n{SPACE}",
                "patience: input should be greater",
                ", line 2, signals → overfitting → patience",
                "0",
                "",
            ),
            (
                f"name: mine\npresets: safe\n{SPACE}",
                "presets: input should be a valid tuple",
                ", line 2, presets",
                "'safe'",
                "",
            ),
        ],
    )
    def test_study(
        self, write: Write, text: str, what: str, place: str, found: str, allowed: str
    ) -> None:
        """An error has what is wrong, line and path, the value, and what is allowed."""
        path = write(text)
        error = refusal(path)
        assert what in error.what
        assert error.where == f"{path}{place}"
        assert error.found == found
        assert allowed in error.allowed
        assert error.next_step.startswith("fix it")

    @pytest.mark.parametrize(
        ("text", "section", "key"),
        [
            ("signals: {sparing: false}", "signals → sparing", "enabled"),
            ("signals: 3", "signals", "grace_epochs"),
            ("pruner: true", "pruner", "kind"),
            ("metric: [miou]", "metric", "name"),
        ],
    )
    def test_section(self, write: Write, text: str, section: str, key: str) -> None:
        """A value where a section belongs: one message with the keys, and what to do."""
        error = refusal(write(f"name: mine\n{text}\n{SPACE}"))
        name = section.rpartition(" ")[2]
        assert error.what == f"{name} has keys of its own, so it cannot be a single value"
        assert error.where.endswith(f", line 2, {section}")
        assert error.found in ("false", "true", "3", "['miou']")
        assert error.allowed.startswith(key)
        assert error.next_step == f"set one of its keys, such as {key}"

    @pytest.mark.parametrize(
        ("dimension", "what", "place", "allowed"),
        [
            (
                "{kind: flaot, low: 1, high: 2}",
                "kind cannot be 'flaot' (did you mean 'float'?)",
                "",
                "float, int, choice",
            ),
            (
                "{low: 1, high: 2}",
                "loss.gamma names no kind",
                "",
                "kind: float, kind: int or kind: choice",
            ),
            ("3", "loss.gamma must be a mapping of keys to values", "", ""),
            (
                "{kind: float, low: 1, hihg: 2}",
                "unknown key 'hihg' (did you mean 'high'?)",
                " → hihg",
                "kind, low, high",
            ),
            ("{kind: float, low: 1}", "the key 'high' is missing", " → high", "high: …"),
            ("{kind: float, low: 3, high: 2}", "loss.gamma: low 3 is above high 2", "", ""),
            (
                "{kind: int, low: 0, high: 2, log: true}",
                "loss.gamma: a log range must be above 0, but low is 0",
                "",
                "",
            ),
            ("{kind: float, low: x, high: 2}", "low: input should be a valid number", " → low", ""),
            (
                "{kind: float, low: 0, high: .inf}",
                "high: input should be a finite number",
                " → high",
                "",
            ),
            (
                "{kind: choice, choices: []}",
                "choices: tuple should have at least 1 item",
                " → choices",
                "",
            ),
            (
                "{kind: choice, choices: [1, 1]}",
                "loss.gamma: the same choice is given twice",
                "",
                "",
            ),
            (
                "{kind: choice, choices: [{a: 1}]}",
                "choices: input should be a valid",
                " → choices → 0",
                "",
            ),
        ],
    )
    def test_dimension(
        self, write: Write, dimension: str, what: str, place: str, allowed: str
    ) -> None:
        """The path of an error has only keys of the file, such as a dotted dimension."""
        path = write(
            "name: mine\nspace:\n  weights.beta: {kind: float, low: 0, high: 0.5}\n"
            f"  loss.gamma: {dimension}\n"
        )
        error = refusal(path)
        assert what in error.what
        assert error.where == f"{path}, line 4, space → loss.gamma{place}"
        assert allowed in error.allowed

    def test_deep_line(self, write: Write) -> None:
        """The line is that of the deepest step that is in the file."""
        path = write(
            "name: mine\nspace:\n  loss.gamma:\n    kind: choice\n"
            "    choices:\n      - 1\n      - [2]\n"
        )
        assert refusal(path).where == f"{path}, line 7, space → loss.gamma → choices → 1"

    def test_own_check(self) -> None:
        """The message of a model's validator is printed without pydantic's prefix."""

        class Even(BaseModel):
            size: int

            @field_validator("size")
            @classmethod
            def _even(cls, size: int) -> int:
                raise ValueError("Must be even")

        with pytest.raises(StudyError) as caught:
            check(Even, {"size": 3}, "here")
        assert caught.value.what == "size: must be even"

    def test_several(self, write: Write) -> None:
        """The first error is printed, and how many may follow."""
        error = refusal(write(f"name: mine\nepochs: 0\ntrials: 0\nseed: -1\n{SPACE}"))
        assert "epochs" in error.where
        assert error.next_step == "fix it; 2 more errors may follow"

    def test_words(self, write: Write) -> None:
        """Each part of an error is printed on its own line."""
        path = write(f"name: mine\nmetric: {{score: bets}}\n{SPACE}")
        assert str(refusal(path)).splitlines() == [
            "score cannot be 'bets' (did you mean 'best'?)",
            f"  where:   {path}, line 2, metric → score",
            "  found:   'bets'",
            "  allowed: best, last or mean_last_5",
            "  next:    fix it and run the command again",
        ]

    def test_exit_code(self, write: Write) -> None:
        """Bad input has exit code 2, and no chained error of pydantic."""
        error = refusal(write("name: mine\n"))
        assert error.exit_code == 2
        assert error.__suppress_context__

    def test_section_under_a_value(self, write: Write) -> None:
        """A dotted key of the base cannot lead through a value."""
        error = refusal(write(f"name: mine\nbase: {{loss: 1, loss.gamma: 2}}\n{SPACE}"))
        assert error.what == "'loss' is given as a value and as a section"
        assert error.where == "loss.gamma"


class TestBadFile:
    @pytest.mark.parametrize(
        ("text", "line", "found"),
        [
            ("name: a\nspace: {a: 1\nb: }\n", 3, "expected ',' or '}'"),
            ("name: a\n\tb: 1\n", 2, "found character '\\t'"),
            ("name: mine\nname: yours\n", 2, "the key 'name' is given twice"),
            (
                "name: mine\nspace:\n  loss.gamma: {low: 1,\n    high: 2,\n    low: 3}\n",
                5,
                "the key 'low' is given twice",
            ),
            ("name: mine\n? [a, b]\n: 1\n", 2, "a key must be plain text, not a list or a mapping"),
            ("name: !!python/object:os.system a\n", 1, "could not determine a constructor"),
            ("name: *missing\n", 1, "found undefined alias"),
        ],
    )
    def test_syntax(self, write: Write, text: str, line: int, found: str) -> None:
        """Invalid YAML is refused with its line, and so is a key that is given twice."""
        path = write(text)
        error = refusal(path)
        assert error.what == "mine.yaml is not valid YAML"
        assert error.where == f"{path}, line {line}"
        assert found in error.found

    def test_control_character(self, write: Write) -> None:
        """A character that YAML does not allow is refused without a line."""
        path = write("name: \x01\n")
        assert refusal(path).where == str(path)

    @pytest.mark.parametrize(
        ("text", "found"),
        [("", "nothing"), ("- a\n", "list"), ("5\n", "int"), ("# nothing\n", "nothing")],
    )
    def test_no_mapping(self, write: Write, text: str, found: str) -> None:
        """A file without keys and values is refused."""
        error = refusal(write(text))
        assert (error.what, error.found) == ("mine.yaml contains no mapping", found)

    def test_missing(self, tmp_path: Path) -> None:
        """A missing file is refused with its path."""
        error = refusal(tmp_path / "none.yaml")
        assert (error.what, error.found) == (
            f"cannot read {tmp_path / 'none.yaml'}",
            "No such file or directory",
        )

    def test_folder(self, tmp_path: Path) -> None:
        """A folder is refused."""
        assert refusal(tmp_path).found == "Is a directory"

    def test_not_text(self, tmp_path: Path) -> None:
        """A file that is not UTF-8 text is refused."""
        path = tmp_path / "mine.yaml"
        path.write_bytes(b"name: \xff\xfe\n")
        assert refusal(path).found == "not UTF-8 text"

    def test_other_error(self, tmp_path: Path) -> None:
        """A reader of other files gives its own type of error."""
        with pytest.raises(ConfigError, match="cannot read"):
            Document(tmp_path / "best.yaml", ConfigError)


class TestStudyFile:
    def test_nearest(self) -> None:
        """An unknown name is refused with the nearest one, all names, and what to do."""
        error = refusal("focal_gama")
        assert error.what == "unknown study 'focal_gama' (did you mean 'focal_gamma'?)"
        assert all(name in error.allowed for name in shipped_studies())
        assert error.next_step == "`search list` shows the studies"

    def test_nothing_near(self) -> None:
        """A name unlike any other gets no suggestion."""
        assert refusal("zzz").what == "unknown study 'zzz'"

    def test_shipped(self) -> None:
        """A shipped study is found by its name."""
        assert study_file("focal_gamma").name == "focal_gamma.yaml"

    def test_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A path of an existing file is accepted, with or without a suffix."""
        monkeypatch.chdir(tmp_path)
        Path("mine").write_text(STUDY)
        assert load_study("mine").name == "mine"


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-3", 1e-3),
            ("5.0e-6", 5e-6),
            ("2E3", 2e3),
            ("-1e2", -100.0),
            ("+1e2", 100.0),
            ("1e", "1e"),
            ("e3", "e3"),
            ("3", 3),
            ("'1e-3'", "1e-3"),
        ],
    )
    def test_exponent(self, write: Write, text: str, value: object) -> None:
        """1e-3 is a number, with or without a dot."""
        choice = load_study(
            str(
                write(
                    "name: mine\nspace:\n"
                    f"  optimizer.lr_multiple: {{kind: choice, choices: [{text}]}}\n"
                )
            )
        ).space["optimizer.lr_multiple"]
        assert isinstance(choice, Choice)
        assert (choice.choices, type(choice.choices[0])) == ((value,), type(value))


class TestBase:
    def test_dotted(self, write: Write) -> None:
        """The base may use dotted keys, nested ones, or both."""
        spec = load_study(
            str(write(f"name: mine\nbase: {{loss.smooth: 5, loss: {{kind: focal}}}}\n{SPACE}"))
        )
        assert spec.base == {"loss": {"smooth": 5, "kind": "focal"}}


class TestChanges:
    @pytest.mark.parametrize(
        ("assignments", "changes"),
        [
            ([], {}),
            (["epochs=8"], {"epochs": 8}),
            (
                ["base.loss.gamma=1.5", "base.weights.clip_ratio=null"],
                {"base.loss.gamma": 1.5, "base.weights.clip_ratio": None},
            ),
            (["base.optimizer.base_lr=1e-3"], {"base.optimizer.base_lr": 1e-3}),
            (["presets=[safe, untuned]"], {"presets": ["safe", "untuned"]}),
            (["about=a=b"], {"about": "a=b"}),
            (["about="], {"about": None}),
            (["epochs=8", "epochs=9"], {"epochs": 9}),
        ],
    )
    def test_parsed(self, assignments: list[str], changes: dict[str, Any]) -> None:
        """What follows the first equals sign is YAML; of a repeated path the last value counts."""
        assert parse_changes(assignments) == changes

    @pytest.mark.parametrize("assignment", ["epochs", "=8", ""])
    def test_no_assignment(self, assignment: str) -> None:
        """An assignment without a path or an equals sign is refused, with an example."""
        with pytest.raises(StudyError, match="--set takes path=value") as caught:
            parse_changes([assignment])
        assert caught.value.found == assignment
        assert "--set epochs=8" in caught.value.allowed

    @pytest.mark.parametrize("text", ["[1, 2", "{a: 1, a: 2}"])
    def test_no_yaml(self, text: str) -> None:
        """A value that is not YAML is refused, with its path."""
        with pytest.raises(StudyError, match="cannot read the value") as caught:
            parse_changes([f"base.x={text}"])
        assert (caught.value.where, caught.value.found) == ("--set base.x", text)

    def test_laid_over(self) -> None:
        """A change replaces a value of the file and leaves the rest."""
        plain = load_study("focal_gamma")
        spec = load_study(
            "focal_gamma",
            parse_changes(
                ["epochs=3", "metric.score=last", "base.loss.smooth=7", "base.data.size=64"]
            ),
        )
        assert (spec.epochs, spec.metric.score, spec.metric.name) == (3, "last", "miou")
        assert spec.base["loss"] == plain.base["loss"] | {"smooth": 7}
        assert spec.base["data"] == {"size": 64}
        assert (spec.space, spec.presets) == (plain.space, plain.presets)

    def test_dimension_part(self) -> None:
        """One value of a dimension can be changed by the dimension's dotted name."""
        spec = load_study(
            "focal_gamma",
            parse_changes(
                ["space.loss.gamma.low=1", "space.optimizer.grad_clip_norm.choices=[1, 2]"]
            ),
        )
        assert spec.space["loss.gamma"] == FloatRange(kind="float", low=1, high=5)
        assert spec.space["optimizer.grad_clip_norm"] == Choice(kind="choice", choices=(1, 2))

    def test_dimension_added(self) -> None:
        """A mapping makes a new dimension."""
        spec = load_study(
            "focal_gamma", parse_changes(["space.loss.alpha_tau={kind: float, low: 0, high: 1}"])
        )
        assert spec.space["loss.alpha_tau"] == FloatRange(kind="float", low=0, high=1)

    def test_dimension_condition(self) -> None:
        """A condition can be changed, although it is a mapping, too."""
        spec = load_study(
            "focal_gamma", parse_changes(["space.loss.gamma.when={loss.kind: focal}"])
        )
        assert spec.space["loss.gamma"].when == {"loss.kind": "focal"}
        assert len(spec.space) == 3

    @pytest.mark.parametrize(
        ("assignment", "what"),
        [
            ("epoch=3", "unknown key 'epoch'"),
            ("space.loss.gamma.lwo=1", "unknown key 'lwo'"),
            ("space.loss.tau.low=1", "loss.tau names no kind"),
            ("trials=x", "trials"),
        ],
    )
    def test_does_not_fit(self, assignment: str, what: str) -> None:
        """A change is checked as a value of the file is."""
        assert what in refusal("focal_gamma", parse_changes([assignment])).what


class TestFormerSignalName:
    OLD, NEW = "loss_metric_divorce", "loss_metric_decoupling"

    @pytest.mark.parametrize("in_file", [OLD, NEW])
    @pytest.mark.parametrize("changed", [OLD, NEW])
    def test_laid_over(self, write: Write, in_file: str, changed: str) -> None:
        """The file and the command line may each use the former name or the name now."""
        path = write(f"name: mine\nsignals: {{{in_file}: {{drop: 0.4, window: 9}}}}\n{SPACE}")
        spec = load_study(path, {f"signals.{changed}.drop": 0.5})
        found = spec.signals.loss_metric_decoupling
        assert (found.drop, found.window) == (0.5, 9)

    def test_line(self, write: Write) -> None:
        """An error has the line of the former name, or the option that used it."""
        path = write(f"name: mine\nsignals:\n  {self.OLD}:\n    drop: 2\n{SPACE}")
        assert refusal(path).where == f"{path}, line 4, signals → {self.NEW} → drop"
        changes = {f"signals.{self.OLD}.window": 0, f"signals.{self.OLD}.drop": 0.2}
        assert refusal(path, changes).where == f"--set signals.{self.OLD}.window"

    def test_both(self, write: Write) -> None:
        """A file with both names is refused, since one of the two would be lost."""
        path = write(f"name: mine\nsignals: {{{self.OLD}: {{}}, {self.NEW}: {{}}}}\n{SPACE}")
        assert f"'{self.OLD}' is the former name of '{self.NEW}'" in refusal(path).what


class TestWhereChanged:
    @pytest.mark.parametrize(
        ("changes", "where"),
        [
            ({"epochs": 0}, "--set epochs"),
            ({"name": "a b"}, "--set name"),
            ({"metric.score": "bets"}, "--set metric.score"),
            ({"signals.overfitting": {"patience": 0}}, "--set signals.overfitting"),
            ({"space.loss.gamma.low": "x"}, "--set space.loss.gamma.low"),
            ({"epoch": 3}, "--set epoch"),
            ({"loss.gamma": 3}, "--set loss.gamma"),
            ({"space.loss.tau.low": 3}, "--set space.loss.tau.low"),
        ],
    )
    def test_option(self, changes: dict[str, Any], where: str) -> None:
        """An error about a value from the command line names its option instead of the file."""
        assert refusal("focal_gamma", changes).where == where

    def test_laid_over(self, write: Write) -> None:
        """Where a change and the file contradict each other, both are named."""
        path = write(STUDY)
        assert (
            refusal(path, {"space.loss.gamma.low": 9}).where
            == f"--set space.loss.gamma.low, over {path}, line 3, space → loss.gamma"
        )

    def test_file(self, write: Write) -> None:
        """An error about another value still has its line."""
        path = write(f"name: mine\ntrials: 0\n{SPACE}")
        assert refusal(path, {"epochs": 3}).where == f"{path}, line 2, trials"


class TestCheck:
    def test_no_file(self) -> None:
        """Data without a file are named by their source."""
        with pytest.raises(InputError, match="gamma: input should be greater") as caught:
            check(LossConfig, {"gamma": -1}, "study mine in the store")
        assert caught.value.where == "study mine in the store, gamma"

    def test_place(self, write: Write) -> None:
        """An error has the keys that lead to the value, as text and without what pydantic adds."""
        dimension = "{kind: choice, choices: [1, [2]]}"
        error = refusal(write(f"name: mine\nspace: {{loss.gamma: {dimension}}}\n"))
        assert error.place[:4] == ("space", "loss.gamma", "choices", "1")
        assert refusal(write(f"name: mine\nepoch: 3\n{SPACE}")).place == ("epoch",)

    def test_found_is_short(self) -> None:
        """A long value is cut off."""
        with pytest.raises(InputError) as caught:
            check(StudySpec, {"name": "x" * 1000, "space": {}}, "here")
        assert len(caught.value.found) == 200
