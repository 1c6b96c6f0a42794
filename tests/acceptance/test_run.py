"""`search run` from a YAML to best.yaml, and every command that looks at what it left."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema
import pexpect
import pytest
import torch
import yaml

from objectives.segmentation import train
from search.export import load_export
from spaces.loader import shipped_studies
from storage.location import StoreLocation
from tests.acceptance.studies import TINY, Finished, stored_trials, url_in, write_study
from tests.acceptance.terminal import COMMAND, PATIENCE_S, Terminal

COMMANDS = (
    "run",
    "list",
    "show",
    "explain",
    "confirm",
    "backtest",
    "convert",
    "weights",
    "export",
    "train",
    "dashboard",
    "worker",
    "schema",
    "store",
)


def refuse_nan(token: str) -> None:
    """For a JSON reader: NaN and Infinity are no JSON."""
    raise AssertionError(f"{token} in JSON")


class TestRun:
    def test_exact_budget(self, finished: Finished) -> None:
        """Two workers end exactly as many trials as the budget says, and the command says that it went well."""
        assert (finished.first.code, finished.first.err) == (0, "")
        assert sorted(
            trial.number for trial in finished.first_trials if trial.number is not None
        ) == [0, 1, 2, 3]
        assert {trial.state for trial in finished.first_trials} <= {
            "complete",
            "pruned",
            "diverged",
        }
        assert len({trial.pid for trial in finished.first_trials}) == 2

    def test_plain_lines(self, finished: Finished) -> None:
        """Where no terminal is, every event is a line without control characters."""
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", finished.first.out)
        for trial in finished.first_trials:
            assert re.search(rf"^trial {trial.number} started", finished.first.out, re.MULTILINE)
            assert re.search(
                rf"^trial {trial.number} (is complete|was pruned|diverged)",
                finished.first.out,
                re.MULTILINE,
            )

    def test_leaderboard(self, finished: Finished) -> None:
        """The leaderboard lists the complete trials, the best first, with their scores."""
        board = finished.more.out.partition("Leaderboard")[2].partition("Stopped trials")[0]
        complete = sorted(
            (trial for trial in finished.trials if trial.state == "complete"),
            key=lambda trial: -(trial.score or 0),
        )
        assert len(complete) >= 2
        rows = re.findall(r"^ *(\d+)(?: ≈)? +(\d+) +(0\.\d{4})", board, re.MULTILINE)
        assert rows == [
            (str(rank), str(trial.number), f"{trial.score:.4f}")
            for rank, trial in enumerate(complete, 1)
        ]

    def test_presets_first(self, finished: Finished) -> None:
        """The presets are the first trials, and those alone carry a preset's name."""
        presets = {trial.number: trial.preset for trial in finished.trials}
        assert [presets[number] for number in range(6)] == [
            "recommended",
            "untuned",
            None,
            None,
            None,
            None,
        ]
        assert (
            "trial 0 started (preset recommended): gamma 0, lr 3.0e-02 (0.3 × base)"
            in finished.first.out
        )

    def test_more(self, finished: Finished) -> None:
        """The same command with a larger budget adds the difference, and leaves the earlier trials as they were."""
        assert finished.more.code == 0
        assert len(finished.trials) == 6
        assert finished.trials[:4] == finished.first_trials
        assert re.search("^found in the store: ", finished.more.out)
        assert sorted(re.findall(r"^trial (\d) started", finished.more.out, re.MULTILINE)) == [
            "4",
            "5",
        ]

    def test_no_more(self, finished: Finished, cache: Path) -> None:
        """With the budget spent the command trains nothing; on a terminal it draws in place."""
        arguments = [
            "run",
            "--study",
            "tiny.yaml",
            "--trials",
            "6",
            "--workers",
            "1",
            "--devices",
            "cpu",
        ]
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(cache),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }
        child = pexpect.spawn(
            str(COMMAND),
            arguments,
            cwd=finished.folder,
            env=environment,
            dimensions=(40, 120),
            timeout=PATIENCE_S,
            encoding="utf-8",
        )
        try:
            child.expect(pexpect.EOF)
            child.wait()
        finally:
            child.close(force=True)
        assert child.exitstatus == 0
        assert "6/6 trials" in child.before
        assert "\x1b[1A" in child.before  # up a line, to draw it again
        assert stored_trials(finished.url) == finished.trials

    def test_best(self, finished: Finished) -> None:
        """best.yaml loads as a configuration, and is that of the best complete trial."""
        best = max(
            (trial for trial in finished.trials if trial.state == "complete"),
            key=lambda trial: trial.score or 0,
        )
        export = load_export(finished.folder / "best.yaml")
        assert (export.provenance.trial, export.score.validation) == (best.number, best.score)
        assert export.trial_config().model_dump(mode="json") == best.config

    def test_nothing_else(self, finished: Finished) -> None:
        """A finished study leaves the store, the best configuration and weights, and the workers' logs, which are empty when all went well."""
        assert sorted(path.name for path in finished.folder.iterdir()) == [
            "best.yaml",
            "search.db",
            "search.files",
            "tiny.yaml",
        ]
        logs = sorted((finished.folder / "search.files" / "tiny").glob("*.*"))
        assert {log.name: log.read_text() for log in logs} == {
            "worker-0.log": "",
            "worker-1.log": "",
        }

    def test_best_weights(self, finished: Finished, terminal: Terminal) -> None:
        """The trained state of the best complete trial is the one that is kept, under its content's hash; its weights load without code and score what was recorded."""
        artifacts = finished.folder / "search.files" / "tiny" / "artifacts"
        (file,) = (path for path in artifacts.iterdir() if len(path.name) == 64)
        export = load_export(finished.folder / "best.yaml")
        state = torch.load(file, weights_only=True)
        config, fresh = export.trial_config(), finished.folder / "again.yaml"
        data, counts = train.prepare(config, "cpu"), train.count_classes(config)  # type: ignore[arg-type]
        training = train.Run(config, data, counts, torch.device("cpu"))  # type: ignore[arg-type]
        training.model.load_state_dict(state["best_weights"])
        reported = terminal.run(
            "export", "--study", "tiny", "--out", str(fresh), folder=finished.folder
        )
        shown = json.loads(
            terminal.run("show", "--study", "tiny", "--json", folder=finished.folder).out
        )
        fresh.unlink()

        assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name
        validation = training.measure_split(training.model, training.val_batches.epoch(0))
        assert validation.metrics["miou"] == pytest.approx(export.score.validation, abs=1e-6)
        assert export.provenance.weights == shown["weights"] == str(file)
        assert f"its trained weights: {file}" in reported.out.replace("\n", "")


class TestShow:
    def test_json(self, finished: Finished, terminal: Terminal) -> None:
        """`show --json` is JSON without NaN, and agrees with the store."""
        answer = terminal.run("show", "--study", "tiny", "--json", folder=finished.folder)
        reported: dict[str, Any] = json.loads(answer.out, parse_constant=refuse_nan)

        assert (answer.code, answer.err) == (0, "")
        assert {row["number"]: row["score"] for row in reported["leaderboard"]} == {
            trial.number: trial.score for trial in finished.trials if trial.state == "complete"
        }
        assert {kill["number"]: kill["state"] for kill in reported["kills"]} == {
            trial.number: trial.state for trial in finished.trials if trial.state != "complete"
        }
        assert (reported["budget"], reported["states"]["left"]) == (6, 0)

    def test_all(self, finished: Finished, terminal: Terminal) -> None:
        """Without a name `show` lists every study of the store."""
        answer = terminal.run("show", folder=finished.folder)
        assert answer.code == 0
        assert "Study tiny: segmentation, miou" in answer.out
        assert "6 of 6 trials ended" in answer.out

    def test_explain(self, finished: Finished, terminal: Terminal) -> None:
        """`explain` shows a trial's configuration, its curves and its classes by name."""
        answer = terminal.run("explain", "--study", "tiny", "--trial", "0", folder=finished.folder)
        assert (answer.code, answer.err) == (0, "")
        for words in (
            "Trial 0 of tiny (preset recommended)",
            "sqrt_inv_freq",
            "*gamma 0",
            "miou (m) by epoch",
            "digit_1",
            "Signs of health",
        ):
            assert words in answer.out

    @pytest.mark.parametrize("trial", [0, 1])
    def test_export(
        self, finished: Finished, terminal: Terminal, tmp_path: Path, trial: int
    ) -> None:
        """`export --trial` writes that trial, be it the best or not, to the given path."""
        answer = terminal.run(
            "export",
            "--study",
            "tiny",
            "--trial",
            str(trial),
            "--out",
            str(tmp_path / "it.yaml"),
            folder=finished.folder,
        )
        assert (answer.code, answer.err) == (0, "")
        export = load_export(tmp_path / "it.yaml")
        stored = finished.trials[trial]
        assert (export.provenance.trial, export.provenance.preset) == (trial, stored.preset)
        assert math.isclose(export.score.validation, stored.score or 0, rel_tol=0)

    def test_train(self, finished: Finished, terminal: Terminal) -> None:
        """The best configuration trains again to the very score that the study found."""
        answer = terminal.run("train", "best.yaml", folder=finished.folder)
        assert (answer.code, answer.err) == (0, "")
        assert len(re.findall(r"^epoch +\d/4  loss ", answer.out, re.MULTILINE)) == 4
        assert answer.out.endswith("equal to the last bit\n")


class TestCommands:
    def test_list(self, terminal: Terminal, tmp_path: Path) -> None:
        """`list` shows every shipped study with what it searches."""
        answer = terminal.run("list", folder=tmp_path)
        assert (answer.code, answer.err) == (0, "")
        for name, file in shipped_studies().items():
            assert re.search(rf"^{name}$", answer.out, re.MULTILINE)
            for path in yaml.safe_load(file.read_text())["space"]:
                assert path in answer.out
        assert list(tmp_path.iterdir()) == []

    def test_weights(self, terminal: Terminal, tmp_path: Path) -> None:
        """`weights` counts the training data's classes and keeps every method within the clip ratio."""
        write_study(tmp_path)
        answer = terminal.run(
            "weights", "--study", "tiny.yaml", "--clip-ratio", "4", folder=tmp_path
        )
        assert (answer.code, answer.err) == (0, "")
        pixels = [
            int(count.replace(",", ""))
            for count in re.findall(r"^(?:background|digit_\d) +([\d,]+)", answer.out, re.MULTILINE)
        ]
        assert len(pixels) == 7
        assert sum(pixels) == 32 * 28 * 28  # the border of two pixels is ignored
        ratios = [
            float(ratio)
            for ratio in re.findall(r"^max/min (.*)$", answer.out, re.MULTILINE)[0].split()
        ]
        assert len(ratios) == 6
        assert max(ratios) <= 4

    def test_schema(self, terminal: Terminal, tmp_path: Path) -> None:
        """`schema` is a valid JSON Schema that every shipped study keeps and that refuses a misspelt key."""
        answer = terminal.run("schema", folder=tmp_path)
        schema = json.loads(answer.out)
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        for file in shipped_studies().values():
            study = yaml.safe_load(file.read_text(encoding="utf-8"))
            validator.validate(study)
            for wrong in (
                {"epoch": 3},
                {"base": {"los": {}}},
                {"base": {"loss": {"gama": 1}}},
                {"space": {"loss.gama": {}}},
                {"presets": ["best"]},
            ):
                assert not validator.is_valid(study | wrong), wrong

    @pytest.mark.parametrize("command", COMMANDS)
    def test_help(self, terminal: Terminal, tmp_path: Path, command: str) -> None:
        """The help of every command ends with an example of it."""
        answer = terminal.run(command, "--help", folder=tmp_path)
        assert (answer.code, answer.err) == (0, "")
        assert re.search(rf"Examples?:[^·]*\bsearch {command}\b", answer.out)

    def test_commands(self, terminal: Terminal, tmp_path: Path) -> None:
        """The help lists exactly the commands whose help is tested here."""
        answer = terminal.run("--help", folder=tmp_path)
        assert re.findall(
            r"^  ([a-z]+) {2,}\S", answer.out.partition("Commands:")[2], re.MULTILINE
        ) == list(COMMANDS)


@pytest.fixture(scope="session")
def kills(tmp_path_factory: pytest.TempPathFactory, lasting_terminal: Terminal) -> Path:
    """A folder with a store of two studies, run at once, in which trials are killed in every way."""
    folder = tmp_path_factory.mktemp("kills")
    write_study(folder)
    rate = {
        "kind": "choice",
        "choices": [1.0, 1e-6, 30.0, 1e21],
    }  # good, too small, too large, absurd
    pruner = {"kind": "median", "startup_trials": 1, "warmup_epochs": 1}
    # With this seed the three trials after the preset have one of the bad rates each.
    mixed = TINY | {
        "name": "mixed",
        "seed": 1,
        "trials": 4,
        "presets": ["untuned"],
        "pruner": pruner,
    }
    mixed["space"] = TINY["space"] | {"optimizer.lr_multiple": rate}
    mixed["signals"] = {
        "grace_epochs": 1,
        "sparing": {"enabled": False},
        "class_collapse": {"enabled": False},
        "not_learning": {"all_but_one_epochs": 2},
    }  # before the pruner has its say
    (folder / "mixed.yaml").write_text(yaml.safe_dump(mixed), encoding="utf-8")
    bound = (
        "--name",
        "exploded",
        "--trials",
        "2",
        "--set",
        "signals.gradient_explosion.max_norm=0.001",
    )
    jobs = [
        lasting_terminal.start(
            "run", "--study", *study, "--workers", "1", "--devices", "cpu", folder=folder
        )
        for study in (("tiny.yaml", *bound), ("mixed.yaml",))
    ]
    for job in jobs:
        assert job.wait().code == 0, job.said().text
    return folder


KILLS = [
    ("exploded", "gradient_explosion", "diverged", "over 0.001", "no clear cause"),
    (
        "mixed",
        "nonfinite_loss",
        "diverged",
        "was not finite at step",
        "likely cause: learning rate too high",
    ),
    (
        "mixed",
        "not_learning",
        "pruned",
        "6 of 7 classes were never learned",
        "likely cause: learning rate too high",
    ),
    ("mixed", "median", "pruned", "best metric", "among 1 finished trials"),
]


class TestKills:
    @pytest.mark.parametrize(
        ("study", "signal", "state", "statement", "cause"), KILLS, ids=[kill[1] for kill in KILLS]
    )
    def test_explained(
        self,
        kills: Path,
        terminal: Terminal,
        study: str,
        signal: str,
        state: str,
        statement: str,
        cause: str,
    ) -> None:
        """A killed trial is kept with its evidence, and `explain` shows what fired, with the cause."""
        killed = next(
            trial
            for trial in stored_trials(url_in(kills), study)
            if trial.reason.startswith(f"{signal}: ")
        )
        answer = terminal.run(
            "explain", "--study", study, "--trial", str(killed.number), folder=kills
        )

        assert killed.state == state
        assert answer.code == 0
        reported = answer.out.partition("Why it ")[2]
        for words in (signal, statement, cause):
            assert words in " ".join(reported.split())
        with StoreLocation.parse(url_in(kills)).open(create=False) as store:
            evidence = [found for found, _ in store.findings.trial_evidence(killed.id)]
        assert [found.signal for found in evidence] == [signal]

    @pytest.mark.parametrize(
        ("study", "signal", "state"), [kill[:3] for kill in KILLS], ids=[kill[1] for kill in KILLS]
    )
    def test_optuna(self, kills: Path, study: str, signal: str, state: str) -> None:
        """Optuna holds a killed trial as pruned, and one that diverged as infeasible, so that its sampler learns from it."""
        import optuna

        found = [
            trial
            for trial in stored_trials(url_in(kills), study)
            if trial.reason.startswith(f"{signal}: ")
        ]
        trials = optuna.load_study(study_name=study, storage=url_in(kills)).trials
        assert found
        for stored in found:
            assert stored.number is not None
            kept = trials[stored.number]
            assert kept.state == optuna.trial.TrialState.PRUNED
            assert kept.user_attrs["killed"] == stored.reason
            if state == "diverged":
                assert kept.constraints["diverged"] > 0
            else:
                assert kept.constraints == {}

    def test_reported(self, kills: Path, terminal: Terminal) -> None:
        """The report names every kill with its cause, and says how often each cause came up."""
        answer = terminal.run("show", "--study", "mixed", "--json", folder=kills)
        reported = json.loads(answer.out, parse_constant=refuse_nan)
        killed = [
            trial.number
            for trial in stored_trials(url_in(kills), "mixed")
            if trial.state in ("pruned", "diverged")
        ]
        assert [kill["number"] for kill in reported["kills"]] == killed
        assert sum(reported["causes"].values()) == len(killed)
        assert all(kill["cause"] and kill["reason"] for kill in reported["kills"])

    def test_none_complete(self, kills: Path, terminal: Terminal) -> None:
        """A study in which every trial was killed has no best configuration, and says so."""
        answer = terminal.run("export", "--study", "exploded", "--out", "none.yaml", folder=kills)
        assert answer.code == 2
        assert "no trial of the study is complete" in answer.err
        assert not (kills / "none.yaml").exists()
