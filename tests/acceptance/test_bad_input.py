"""What cannot be used is refused with one message that helps, before anything is written."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.acceptance.studies import BASE, TINY, Finished, stored_trials, url_in, write_study
from tests.acceptance.terminal import Answer, Terminal

BAD_INPUT = 2
RUN = ("run", "--study", "tiny.yaml", "--devices", "cpu", "--workers", "1")
OWN_DATA = {
    "kind": "folder",
    "root": "data",
    "classes": ["road", "car", "person"],
    "height": 32,
    "width": 32,
    "loader_workers": 0,
}
SECRET = "hunter2"

Arrange = Callable[[Path, Finished], object]


@dataclass(frozen=True)
class Case:
    """A command that is refused.

    Attributes:
        arguments: of `search`.
        what, where, found, allowed, next: words in the parts of its message; a part without words is not looked at.
        arrange: prepares the folder in which it runs.
    """

    name: str
    arguments: tuple[str, ...]
    what: str
    where: str
    found: str = ""
    allowed: str = ""
    next: str = ""
    arrange: Arrange = lambda folder, finished: None


def study(**changes: Any) -> Arrange:
    """The tiny study with some of its keys replaced."""
    return lambda folder, finished: write_study(folder, **changes)


def base(**changes: Any) -> Arrange:
    """The tiny study with some sections of its base replaced."""
    return study(base=BASE | changes)


def space(path: str, **dimension: Any) -> Arrange:
    """The tiny study with one dimension replaced."""
    return study(space=TINY["space"] | {path: dimension})


def text(name: str, content: str) -> Arrange:
    """A file beside the tiny study, or in its place."""

    def arrange(folder: Path, finished: Finished) -> None:
        write_study(folder)
        (folder / name).write_text(content)

    return arrange


def copied(change: Callable[[Path], object] = lambda folder: None) -> Arrange:
    """A finished study, changed."""

    def arrange(folder: Path, finished: Finished) -> None:
        for name in ("search.db", "best.yaml", "tiny.yaml"):
            shutil.copy(finished.folder / name, folder)
        change(folder)

    return arrange


def newer(folder: Path) -> None:
    """The store as a later version of the program would leave it."""
    with sqlite3.connect(folder / "search.db") as database:
        database.execute("UPDATE search_alembic_version SET version_num = '9999'")
    database.close()


def running(folder: Path) -> None:
    """The store with a trial that a worker trains."""
    with sqlite3.connect(folder / "search.db") as database:
        database.execute("UPDATE search_trials SET state = 'running' WHERE number = 0")
    database.close()


def exported(change: Callable[[dict[str, Any]], object]) -> Arrange:
    """An export that was edited."""

    def edit(folder: Path) -> None:
        reported = yaml.safe_load((folder / "best.yaml").read_text())
        change(reported)
        (folder / "best.yaml").write_text(yaml.safe_dump(reported, sort_keys=False))

    return copied(edit)


def photographs(classes: int = 3, broken: str = "") -> Arrange:
    """Own images and masks with so many classes, one of the files broken."""

    def arrange(folder: Path, finished: Finished) -> None:
        write_study(folder, base=BASE | {"data": OWN_DATA})
        random = np.random.default_rng(0)
        for split in ("train", "val"):
            for kind, shape, top in (("images", (32, 32, 3), 256), ("masks", (32, 32), classes)):
                (folder / "data" / kind / split).mkdir(parents=True)
                for index in range(8):
                    pixels = random.integers(0, top, shape, dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / "data" / kind / split / f"{index}.png")
        if broken:
            (folder / broken).write_bytes(b"no picture")

    return arrange


CASES = [
    # These need a worker, which takes seconds, so they begin first.
    Case(
        "encoder",
        RUN,
        "unknown encoder 'resnet35' (did you mean 'resnet34'?)",
        "base.model.encoder",
        "resnet35",
        "resnet34",
        "name one",
        base(model={"encoder": "resnet35"}),
    ),
    Case(
        "too_many_classes",
        RUN,
        "a mask contains more classes than the configuration names",
        "data/masks/train/0.png",
        "value 3 in",
        "0 … 2 (3 classes) or 255",
        "base.data.classes",
        photographs(classes=4),
    ),
    Case(
        "broken_image",
        RUN,
        "an image file cannot be read",
        "data/images/train/3.png",
        "cannot identify",
        "",
        "fix or remove",
        photographs(broken="data/images/train/3.png"),
    ),
    Case(
        "no_data",
        RUN,
        "no images for the split 'train'",
        "data/images/train",
        "no such folder",
        ".png, .jpg",
        "base.data.root",
        base(data=OWN_DATA),
    ),
    # a study that cannot be understood
    Case(
        "unknown_study",
        ("run", "--study", "focal_gama"),
        "unknown study 'focal_gama' (did you mean 'focal_gamma'?)",
        "--study",
        "focal_gama",
        "class_weights",
        "`search list`",
    ),
    Case(
        "no_file",
        ("run", "--study", "mine.yaml"),
        "cannot read mine.yaml",
        "mine.yaml",
        "No such file",
        "",
        "check the path",
    ),
    Case(
        "unknown_key",
        RUN,
        "unknown key 'epoch' (did you mean 'epochs'?)",
        "tiny.yaml, line ",
        "",
        "epochs, trials",
        "fix it",
        study(epoch=3),
    ),
    Case(
        "unknown_nested_key",
        RUN,
        "unknown key 'gama' (did you mean 'gamma'?)",
        "base, loss → gama",
        "",
        "gamma, alpha",
        "fix it",
        base(loss={"gama": 1}),
    ),
    Case(
        "unknown_method",
        RUN,
        "method cannot be 'sqrt_inverse' (did you mean 'sqrt_inv_freq'?)",
        "weights → method",
        "sqrt_inverse",
        "uniform, inverse_freq",
        "fix it",
        base(weights={"method": "sqrt_inverse"}),
    ),
    Case(
        "unknown_choice",
        RUN,
        "method cannot be 'inverse' (did you mean 'inverse_freq'?)",
        "space → weights.method",
        "inverse",
        "uniform, inverse_freq",
        "fix it",
        space("weights.method", kind="choice", choices=["uniform", "inverse"]),
    ),
    Case(
        "low_above_high",
        RUN,
        "low 5 is above high 1",
        "line 16, space → loss.gamma",
        "'low': 5, 'high': 1",
        "",
        "fix it",
        space("loss.gamma", kind="float", low=5, high=1),
    ),
    Case(
        "log_through_zero",
        RUN,
        "a log range must be above 0, but low is 0",
        "space → loss.gamma",
        "'low': 0",
        "",
        "fix it",
        space("loss.gamma", kind="float", low=0, high=1, log=True),
    ),
    Case(
        "split",
        RUN,
        "ce_weight and dice_weight must sum to 1, but 0.7 + 0.7 is 1.4",
        "base, loss",
        "'dice_weight': 0.7",
        "",
        "fix it",
        base(loss={"ce_weight": 0.7, "dice_weight": 0.7}),
    ),
    Case(
        "no_effect",
        RUN,
        "loss.gamma has no effect where loss.kind is ce",
        "space → loss.gamma",
        "can be ce",
        "focal",
        "set base.loss.kind",
        base(loss={"kind": "ce"}),
    ),
    Case(
        "unknown_metric",
        RUN,
        "unknown metric 'mIoU' (did you mean 'miou'?)",
        "metric → name",
        "mIoU",
        "pixel_accuracy",
        "name one",
        study(metric={"name": "mIoU"}),
    ),
    Case(
        "unknown_preset",
        RUN,
        "unknown preset 'recomended' (did you mean 'recommended'?)",
        "presets",
        "recomended",
        "untuned, recommended",
        "name one",
        study(presets=["recomended"]),
    ),
    Case(
        "preset_outside",
        RUN,
        "the preset 'recommended' is outside the space",
        "space → loss.gamma",
        "0.0",
        "1 … 2",
        "widen",
        space("loss.gamma", kind="float", low=1, high=2),
    ),
    Case(
        "broken_yaml",
        RUN,
        "tiny.yaml is not valid YAML",
        "tiny.yaml, line 3",
        "expected",
        "",
        "fix the YAML syntax",
        text("tiny.yaml", "name: tiny\nspace: {a: [\n"),
    ),
    Case(
        "key_twice",
        RUN,
        "tiny.yaml is not valid YAML",
        "tiny.yaml, line 2",
        "the key 'name' is given twice",
        "",
        "fix",
        text("tiny.yaml", "name: a\nname: b\n"),
    ),
    # options
    Case(
        "unknown_device",
        ("run", "--study", "tiny.yaml", "--devices", "gpu"),
        "this machine has no device 'gpu'",
        "--devices",
        "gpu",
        "auto, cpu",
        "name an available device",
        study(),
    ),
    Case(
        "absent_device",
        ("run", "--study", "tiny.yaml", "--devices", "cuda:99"),
        "this machine has no device 'cuda:99'",
        "--devices",
        "cuda:99",
        "auto, cpu",
        "name an available device",
        study(),
    ),
    Case(
        "no_epochs",
        (*RUN, "--epochs", "0"),
        "--epochs cannot be '0'",
        "--epochs",
        "0",
        "a whole number, 1 or more",
        "search run --help",
        study(),
    ),
    Case(
        "unknown_option",
        (*RUN, "--trails", "3"),
        "there is no option --trails (did you mean '--trials'?)",
        "search run",
        "--trails",
        "--trials",
        "search run --help",
        study(),
    ),
    Case(
        "timeout",
        (*RUN, "--timeout", "soon"),
        "--timeout is not a duration",
        "--timeout",
        "soon",
        "90s, 30m",
        "a number and a unit",
        study(),
    ),
    Case(
        "set_without_value",
        (*RUN, "--set", "epochs"),
        "--set takes path=value",
        "--set",
        "epochs",
        "--set epochs=8",
        "write a path",
        study(),
    ),
    Case(
        "set_broken",
        (*RUN, "--set", "epochs=[1"),
        "--set cannot read the value",
        "--set epochs",
        "[1",
        "a YAML value",
        "quote it",
        study(),
    ),
    Case(
        "set_nonsense",
        (*RUN, "--set", "epochs=many"),
        "epochs: input should be a valid integer",
        "epochs",
        "'many'",
        "",
        "fix it",
        study(),
    ),
    Case(
        "out_of_others",
        (*RUN, "--out", "notes.txt"),
        "another file has this path",
        "notes.txt",
        "no export",
        "",
        "--out",
        text("notes.txt", "call mum"),
    ),
    Case(
        "set_in_base",
        (*RUN, "--set", "base.loss.gama=1"),
        "unknown key 'gama'",
        "--set base.loss.gama, over study tiny, base",
        "",
        "gamma",
        "fix it",
        study(),
    ),
    Case(
        "out_nowhere",
        (*RUN, "--out", "new/best.yaml"),
        "the file cannot be written",
        "new/best.yaml",
        "there is no folder new",
        "",
        "`mkdir -p new`, or choose",
        study(),
    ),
    Case(
        "remedy_with_others",
        (
            *RUN,
            "--enqueue-remedy",
            "0",
            "--set",
            "base.batch_size=4",
            "--epochs",
            "5",
            "--seed",
            "1",
        ),
        "--set and --epochs and --seed cannot be combined with --enqueue-remedy",
        "--enqueue-remedy",
        "--set, --epochs, --seed",
        "--trials",
        "remove that option",
        copied(),
    ),
    Case(
        "late_average",
        (*RUN, "--epochs", "2", "--set", "base.schedule.swa_from_epoch=3"),
        "averaging the weights from epoch 3 on would never start",
        "base → schedule.swa_from_epoch",
        "epochs: 2",
        "1 … 2",
        "more epochs",
        study(),
    ),
    # stores
    Case(
        "unreachable",
        (*RUN, "--store", f"postgresql://me:{SECRET}@127.0.0.1:1/x"),
        "the store cannot be reached",
        "postgresql://me:***@127.0.0.1:1/x",
        "Connection refused",
        "",
        "check that the server runs",
        study(),
    ),
    Case(
        "read_only",
        (*RUN, "--store", "sqlite:////proc/search.db"),
        "the store's file cannot be opened",
        "sqlite:////proc/search.db",
        "",
        "",
        "choose another place",
        study(),
    ),
    Case(
        "folder_as_store",
        (*RUN, "--store", "sqlite:///here"),
        "the store's URL names a folder, not a file",
        "sqlite:///here",
        "folder",
        "",
        "search.db",
        lambda folder, finished: (write_study(folder), (folder / "here").mkdir()),
    ),
    Case(
        "no_database",
        RUN,
        "the file is not a database",
        "sqlite:///search.db",
        "not an SQLite 3 file",
        "",
        "choose another file",
        text("search.db", "These are my notes, and no database."),
    ),
    Case(
        "newer_store",
        RUN,
        "the store was made by a newer program",
        "sqlite:///search.db",
        "version 9999",
        "version 0",
        "install that newer program",
        copied(newer),
    ),
    Case(
        "other_definition",
        (*RUN, "--set", "epochs=6"),
        "study 'tiny' already exists with a different definition",
        "sqlite:///search.db",
        "epochs: 4 → 6",
        "",
        "repeat the options of its first command (--epochs 4)",
        copied(),
    ),
    # a study or trial that is not there
    *(
        Case(
            f"{command}_no_study",
            (command, "--study", "tony", *more),
            "there is no study 'tony' in the store (did you mean 'tiny'?)",
            "sqlite:///search.db",
            "tony",
            "tiny",
            "search run",
            copied(),
        )
        for command, more in (
            ("show", ()),
            ("explain", ("--trial", "0")),
            ("export", ()),
            ("worker", ()),
            ("dashboard", ()),
        )
    ),
    Case(
        "show_no_store",
        ("show", "--study", "tiny"),
        "there is no store there",
        "sqlite:///search.db",
        "no file",
        "",
        "start a study",
    ),
    Case(
        "explain_no_trial",
        ("explain", "--study", "tiny", "--trial", "99"),
        "has no trial 99",
        "sqlite:///search.db",
        "99",
        "0, 1, 2",
        "search show",
        copied(),
    ),
    Case(
        "confirm_running",
        ("confirm", "--study", "tiny"),
        "the study 'tiny' is running",
        "--study",
        "1 running trial",
        "",
        "wait for it, or stop it",
        copied(running),
    ),
    Case(
        "confirm_unknown",
        ("confirm", "--study", "tinny"),
        "there is no study 'tinny' in the store (did you mean 'tiny'?)",
        "search.db",
        "tinny",
        "tiny",
        "search run",
        copied(),
    ),
    Case(
        "export_no_trial",
        ("export", "--study", "tiny", "--trial", "99"),
        "no trial 99",
        "",
        "99",
        "0",
        "search show",
        copied(),
    ),
    Case(
        "export_over_others",
        ("export", "--study", "tiny", "--out", "tiny.yaml"),
        "another file has this path",
        "tiny.yaml",
        "no export",
        "",
        "--out",
        copied(),
    ),
    Case(
        "export_nowhere",
        ("export", "--study", "tiny", "--out", "new/it.yaml"),
        "the file cannot be written",
        "new/it.yaml",
        "there is no folder new",
        "",
        "`mkdir -p new`, or choose",
        copied(),
    ),
    # exports
    Case(
        "save_nowhere",
        ("train", "best.yaml", "--save", "new/model.pt"),
        "the file cannot be written",
        "new/model.pt",
        "there is no folder new",
        "",
        "`mkdir -p new`, or choose another path with --save",
        copied(),
    ),
    Case(
        "export_without_section",
        ("train", "best.yaml"),
        "the key 'loss' is missing",
        "best.yaml",
        "",
        "loss, optimizer",
        "export the trial again",
        exported(lambda reported: reported["config"].pop("loss")),
    ),
    Case(
        "export_without_score",
        ("train", "best.yaml"),
        "the key 'score' is missing",
        "best.yaml",
        "",
        "score",
        "fix it",
        exported(lambda reported: reported.pop("score")),
    ),
    Case(
        "export_bad_value",
        ("train", "best.yaml"),
        "gamma: input should be greater than or equal to 0",
        "best.yaml",
        "-1",
        "",
        "fix it",
        exported(lambda reported: reported["config"]["loss"].update(gamma=-1.0)),
    ),
    Case(
        "export_broken",
        ("train", "best.yaml"),
        "best.yaml is not valid YAML",
        "best.yaml, line 2",
        "expected",
        "",
        "fix the YAML syntax",
        text("best.yaml", "config: [1, 2\nscore: {"),
    ),
    Case(
        "export_absent",
        ("train", "none.yaml"),
        "cannot read none.yaml",
        "none.yaml",
        "No such file",
        "",
        "check the path",
    ),
]


@dataclass(frozen=True)
class Outcome:
    """What a refused command said, and the files before and after it."""

    answer: Answer
    folder: Path
    before: dict[str, int]
    after: dict[str, int]


def files(folder: Path) -> dict[str, int]:
    """Every file and folder with its size, in bytes."""
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*"))
    }


def attempt(case: Case, folder: Path, terminal: Terminal) -> Outcome:
    """Run the command of a case in its folder."""
    before = files(folder)
    answer = terminal.run(*case.arguments, folder=folder)
    return Outcome(answer, folder, before, files(folder))


class Attempts:
    """Runs the commands of cases, two at a time, as most of a short command is waiting for files."""

    def __init__(
        self, terminal: Terminal, finished: Finished, folders: pytest.TempPathFactory
    ) -> None:
        self._terminal, self._finished, self._folders = terminal, finished, folders
        self._pool = ThreadPoolExecutor(2)
        self._begun: dict[str, Future[Outcome]] = {}

    def begin(self, case: Case) -> Future[Outcome]:
        """Have the command of a case run, unless it does already."""
        if case.name not in self._begun:
            folder = self._folders.mktemp(case.name)
            case.arrange(folder, self._finished)
            self._begun[case.name] = self._pool.submit(attempt, case, folder, self._terminal)
        return self._begun[case.name]

    def end(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def attempts(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    lasting_terminal: Terminal,
    finished: Finished,
) -> Iterator[Attempts]:
    """The commands of all cases that were asked for, begun ahead of their tests."""
    attempts = Attempts(lasting_terminal, finished, tmp_path_factory)
    parameters = [getattr(item, "callspec", None) for item in request.session.items]
    if (
        "PYTEST_XDIST_WORKER" not in os.environ
    ):  # where several processes share the tests, most are another's
        for case in (
            each.params["case"] for each in parameters if each is not None and "case" in each.params
        ):
            attempts.begin(case)
    yield attempts
    attempts.end()


def parts(message: str) -> dict[str, str]:
    """The parts of an error message by name; `what` is its first line."""
    what = re.findall(r"^error: (.*)$", message, re.MULTILINE)
    assert len(what) == 1, f"one error, not {len(what)}: {message}"
    rest = re.split(
        r"^  (where|found|allowed|next|log): +", message.partition("error: ")[2], flags=re.MULTILINE
    )
    return {"what": what[0]} | {
        name: reported.strip() for name, reported in zip(rest[1::2], rest[2::2], strict=True)
    }


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_refused(case: Case, attempts: Attempts) -> None:
    """Bad input ends with exit code 2 and one message that says what, where, what was found, what is allowed and what to do."""
    outcome = attempts.begin(case).result()
    reported = parts(outcome.answer.err)

    assert outcome.answer.code == BAD_INPUT
    assert "Traceback" not in outcome.answer.text
    assert SECRET not in outcome.answer.text
    for part in ("what", "where", "found", "allowed", "next"):
        words = getattr(case, part)
        if words:
            assert words in reported.get(part, ""), f"{part} in {outcome.answer.err}"
    assert outcome.answer.out == ""
    assert outcome.after == outcome.before


def test_port_taken(terminal: Terminal, finished: Finished) -> None:
    """A dashboard whose port is taken says so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = terminal.run(
            "dashboard", "--study", "tiny", "--port", str(port), folder=finished.folder
        )
    reported = parts(answer.err)
    assert (answer.code, answer.out) == (BAD_INPUT, "")
    assert (reported["where"], reported["found"]) == ("--port", f"{port}: Address already in use")
    assert "--port" in reported["next"]


def test_accept_change(terminal: Terminal, finished: Finished, tmp_path: Path) -> None:
    """A changed definition is accepted under the study's name with --accept-change."""
    copied()(tmp_path, finished)
    answer = terminal.run(
        *RUN, "--trials", "7", "--set", "epochs=2", "--accept-change", folder=tmp_path
    )
    assert (answer.code, answer.err) == (0, "")
    trials = stored_trials(url_in(tmp_path))
    assert trials[:6] == finished.trials
    assert [(trial.number, (trial.config or {})["epochs"]) for trial in trials[6:]] == [(6, 2)]
