"""`search backtest` as a process, on a study, on files, and on files that it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from spaces.thresholds import SignalsConfig
from tests.acceptance.studies import Finished
from tests.acceptance.terminal import Terminal
from tests.acceptance.test_run import refuse_nan


def write_curves(folder: Path, name: str = "curves.jsonl") -> Path:
    """Twelve trials of another program: four good ones, eight with dead classes, one NaN loss."""
    lines = []
    for number in range(12):
        awake = number < 4
        classes = [[0.9, 0.02 * epoch * awake, 0.01 * epoch * awake] for epoch in range(1, 21)]
        epochs = [
            {"epoch": at, "loss": 1 / at, "metric": sum(each) / 3, "class_metric": each}
            for at, each in enumerate(classes, 1)
        ]
        if number == 11:
            epochs[4:] = [epochs[4] | {"loss": "NaN", "metric": None}]
        lines.append({"params": {"lr": 0.1 * number}, "epochs": epochs})
    path = folder / name
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


class TestBacktest:
    def test_study(self, terminal: Terminal, finished: Finished) -> None:
        """A finished study has a row per signal and for the pruner, and what is unknown."""
        answer = terminal.run("backtest", "--study", "tiny", folder=finished.folder)
        assert (answer.code, answer.err) == (0, "")
        assert re.search(
            r"^Backtest of tiny: miou \(maximize, best epoch\)$", answer.out, re.MULTILINE
        )
        for rule in (
            "nonfinite_loss",
            "class_collapse",
            "loss_metric_decoupling",
            "all signals",
            "median",
            "all signals + median",
        ):
            assert re.search(
                rf"^{re.escape(rule)} +\d+ +\d+ \(\d+\.\d%\)", answer.out, re.MULTILINE
            )
        cut = [trial.number for trial in finished.trials if trial.state != "complete"]
        assert ("cut short in the record" in answer.out) == bool(cut)

    def test_file(self, terminal: Terminal, tmp_path: Path) -> None:
        """A file with losses and metrics only: the output lists what is not judged."""
        answer = terminal.run(
            "backtest",
            "--records",
            write_curves(tmp_path).name,
            "--pruner",
            "none",
            folder=tmp_path,
        )
        assert (answer.code, answer.err) == (0, "")
        assert re.search(
            r"^nonfinite_loss +1 +0 \(0\.0%\) +0\.00 +none +0\.\d+ \(trial 0\)",
            answer.out,
            re.MULTILINE,
        )
        assert re.search(r"^not_learning +8 ", answer.out, re.MULTILINE)
        assert (
            "overfitting: 12 trials (0, 1, 2, 3, 4, 5 and 6 more) were not judged,"
            " as the record has no validation losses" in answer.out
        )
        assert "gradient_explosion: 12 trials" in answer.out

    def test_tune(self, terminal: Terminal, tmp_path: Path) -> None:
        """The proposed thresholds are YAML of a study, and stop the trials as announced."""
        path = write_curves(tmp_path)
        answer = terminal.run(
            "backtest", "--records", path.name, "--pruner", "none", "--tune", folder=tmp_path
        )
        assert (answer.code, answer.err) == (0, "")
        text = answer.out[answer.out.index("\nsignals:\n") :]
        proposed = yaml.safe_load(text)["signals"]
        SignalsConfig.model_validate(proposed)
        announced = re.findall(r"^not_learning +(\d+) +(\d+)", answer.out, re.MULTILINE)[-1]
        changes = [
            part
            for key, value in proposed["not_learning"].items()
            for part in ("--signals", f"not_learning.{key}={json.dumps(value)}")
        ]
        again = terminal.run(
            "backtest", "--records", path.name, "--pruner", "none", *changes, folder=tmp_path
        )
        assert re.findall(r"^not_learning +(\d+) +(\d+)", again.out, re.MULTILINE) == [announced]

    def test_json(self, terminal: Terminal, tmp_path: Path) -> None:
        """`--json` prints JSON only, with the tuned thresholds where they were requested."""
        arguments = (
            "backtest",
            "--records",
            write_curves(tmp_path).name,
            "--pruner",
            "median",
            "--pruner",
            "startup_trials=2",
            "--tune",
            "--json",
        )
        answer = terminal.run(*arguments, folder=tmp_path)
        assert (answer.code, answer.err) == (0, "")
        result: dict[str, Any] = json.loads(answer.out, parse_constant=refuse_nan)
        assert [row["rule"] for row in result["rows"]][-3:] == [
            "all signals",
            "median",
            "all signals + median",
        ]
        assert (result["trials"], result["ranked"], result["best"][0]["number"]) == (12, 12, 0)
        assert result["rows"][5]["killed"][0] == {
            "number": 4,
            "epoch": result["rows"][5]["killed"][0]["epoch"],
            "by": "not_learning",
            "epochs_saved": result["rows"][5]["killed"][0]["epochs_saved"],
        }
        assert "not_learning" in result["tuned"]["signals"]


class TestConvert:
    def test_wandb(self, terminal: Terminal, tmp_path: Path) -> None:
        """Histories from W&B become a file to replay; a shorter run was cut short."""
        for name, epochs in (("calm", 14), ("asleep", 14), ("short", 3)):
            rows = [
                f"{epoch},{1 / (epoch + 1)},,,"
                if step
                else f"{epoch},,{0.1 + 0.01 * epoch},0.5,{0.0 if name == 'asleep' else 0.3}"
                for epoch in range(epochs)
                for step in (1, 0)
            ]
            (tmp_path / f"{name}.csv").write_text(
                "\n".join(["epoch,train/loss,val/miou,val/iou_a,val/iou_b", *rows]),
                encoding="utf-8",
            )
        columns = [
            part
            for pair in ("loss=train/loss", "metric=val/miou", "class_metric=val/iou_*")
            for part in ("--column", pair)
        ]
        made = terminal.run(
            "convert",
            "calm.csv",
            "asleep.csv",
            "short.csv",
            *columns,
            "--out",
            "all.jsonl.gz",
            folder=tmp_path,
        )
        assert (made.code, made.err, made.out) == (
            0,
            "",
            "3 trials, 31 epochs written to all.jsonl.gz\n",
        )
        answer = terminal.run(
            "backtest",
            "--records",
            "all.jsonl.gz",
            "--signals",
            "not_learning.share=0.5",
            "--signals",
            "sparing.enabled=false",
            folder=tmp_path,
        )
        assert answer.code == 0
        assert re.search(r"^not_learning +1 +3 ", answer.out, re.MULTILINE)
        assert "trial 2 was cut short in the record" in answer.out

    def test_refused(self, terminal: Terminal, tmp_path: Path) -> None:
        """A missing column is one message with the existing ones."""
        (tmp_path / "run.csv").write_text(
            "epoch,train/loss,val/miou\n1,0.5,0.2\n", encoding="utf-8"
        )
        answer = terminal.run("convert", "run.csv", "--column", "loss=train_loss", folder=tmp_path)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith(
            "error: run.csv has no column 'train_loss' for loss (did you mean 'train/loss'?)"
        )
        assert "epoch, train/loss, val/miou" in answer.err

    @pytest.mark.parametrize("out", ["nowhere/x.jsonl", "."])
    def test_out(self, terminal: Terminal, tmp_path: Path, out: str) -> None:
        """A file that cannot be written is one message, before any table is read."""
        answer = terminal.run("convert", "no-such-table.csv", "--out", out, folder=tmp_path)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith(f"error: cannot write {out}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("give either a study or a file to replay", "--study NAME or --records FILE")),
        (
            ("--study", "tiny", "--records", "curves.jsonl"),
            ("give either a study or a file to replay", "both"),
        ),
        (("--records", "nowhere.jsonl"), ("cannot read nowhere.jsonl", "No such file")),
        (
            ("--records", "broken.jsonl"),
            ("epoch 1 is given twice", "broken.jsonl, line 2 → epochs[1]", "gaps are allowed"),
        ),
        (("--records", "empty.jsonl"), ("records has no recorded epochs", "1 trials")),
        (
            ("--records", "curves.jsonl", "--signals", "class_colapse.epochs=3"),
            ("unknown key 'class_colapse'", "did you mean 'class_collapse'?"),
        ),
        (
            ("--records", "curves.jsonl", "--signals", "overfitting.rise=-1"),
            ("--signals, overfitting → rise", "greater than or equal to 0"),
        ),
        (
            ("--records", "curves.jsonl", "--pruner", "medium"),
            ("kind cannot be 'medium'", "none, median or hyperband"),
        ),
        (("--study", "tiny"), ("there is no store",)),
        (
            ("--study", "tiny", "--direction", "minimize"),
            ("a study in the store has its own direction", "leave it out"),
        ),
    ],
)
def test_refused(
    terminal: Terminal, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """Bad input is one message with place, found and allowed, and exit code 2."""
    write_curves(tmp_path)
    good, epoch = (
        '{"epochs": [{"epoch": 1, "loss": 0.8, "metric": 0.45}]}',
        '{"epoch": 1, "loss": 0.8, "metric": 0.45}',
    )
    (tmp_path / "broken.jsonl").write_text(f'{good}\n{{"epochs": [{epoch}, {epoch}]}}\n')
    (tmp_path / "empty.jsonl").write_text('{"epochs": []}\n')
    answer = terminal.run("backtest", *arguments, folder=tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err
