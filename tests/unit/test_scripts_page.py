"""docs/scripts.md: the keys that scripts may count on are among those that the commands print; new ones may come."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from search.cli import main
from spaces.records import Diagnosis, EpochRecord, Evidence, Remedy
from spaces.study import StudySpec
from storage.location import StoreLocation
from storage.rows import Outcome

PAGE = (Path(__file__).parents[2] / "docs" / "scripts.md").read_text(encoding="utf-8")
NAN = float("nan")

pytestmark = pytest.mark.docs


def documented(command: str) -> set[str]:
    """The keys in the table of a command."""
    section = PAGE.partition(f"## `search {command} --json`")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    keys = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
    assert len(keys) > 10
    return keys


def reported(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints, read as strict JSON."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    said = capsys.readouterr()
    assert (ended.value.code or 0, said.err) == (0, "")
    return json.loads(said.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


@pytest.fixture
def store(sqlite_url: str, make_record: Any) -> str:
    """A store with one trial that diverged, its numbers beyond what JSON knows."""
    spec = StudySpec.model_validate(
        {
            "name": "demo",
            "space": {"optimizer.lr_multiple": {"kind": "float", "low": 0.1, "high": 9}},
        }
    )
    with StoreLocation.parse(sqlite_url).open() as kept:
        stored = kept.studies.register_study(1, "demo", spec.model_dump(mode="json"))
        claim = kept.leases.claim_trial(stored.id, budget=9, worker="w", lease_s=600)
        assert claim is not None
        claim = kept.leases.bind_trial(
            claim, 0, 1, {"optimizer": {"lr_multiple": 2.0, "base_lr": 0.1}}, None
        )
        record: EpochRecord = make_record(1, metric=NAN, train_loss=NAN, grad_norm_max=float("inf"))
        kept.epochs.append_epoch(claim, record, 600)
        evidence = Evidence("nonfinite_loss", 1, 3, "the loss was NaN", {"loss": NAN}, NAN)
        kept.leases.finish_trial(
            claim,
            Outcome(
                "diverged",
                NAN,
                "nonfinite_loss: …",
                evidence=evidence,
                diagnosis=Diagnosis(
                    "lr", ("it grew",), (Remedy("less", {"optimizer.lr_multiple": 1.0}),)
                ),
            ),
        )
    return sqlite_url


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    """`list --json` has every shipped study with the documented keys, and loads again as what it was."""
    studies = reported(capsys, "list")
    assert {"focal_gamma", "combined"} <= {study["name"] for study in studies}
    for study in studies:
        assert documented("list") <= set(study)
        assert StudySpec.model_validate(study).model_dump(mode="json") == study


def test_show(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`show --json` has the documented keys, too."""
    assert documented("show") <= set(reported(capsys, "show", "--study", "demo", "--store", store))


def test_explain(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`explain --json` has the documented keys; what is no number is null."""
    trial = reported(capsys, "explain", "--study", "demo", "--trial", "0", "--store", store)
    assert documented("explain") <= set(trial)
    assert (trial["state"], trial["score"], trial["params"], trial["lr"]) == (
        "diverged",
        None,
        {"optimizer.lr_multiple": 2.0},
        0.2,
    )
    assert (trial["records"][0]["metric"], trial["records"][0]["grad_norm_max"]) == (None, None)
    (finding,) = trial["findings"]
    assert (finding["evidence"]["signal"], finding["evidence"]["numbers"]) == (
        "nonfinite_loss",
        {"loss": None},
    )
    assert finding["diagnosis"]["remedies"] == [
        {"title": "less", "patch": {"optimizer.lr_multiple": 1.0}}
    ]
    words = PAGE.partition("`findings`")[2].partition("\n")[0]
    assert {*finding["evidence"], *finding["diagnosis"]} <= set(re.findall(r"\w+", words))
