"""A signal that spares a trial is a warning: logged, stored once, and shown."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from storage.location import StoreLocation
from tests.acceptance.studies import BASE, TINY, stored_trials, url_in
from tests.acceptance.terminal import Terminal


def test_spared(terminal: Terminal, tmp_path: Path) -> None:
    """A trial that learns nothing continues for want of peers, with one warning, and completes."""
    study = TINY | {
        "name": "spared",
        "epochs": 6,
        "trials": 1,
        "presets": [],
        "base": BASE | {"optimizer": {"lr_multiple": 1e-6}},
        "space": {"loss.gamma": TINY["space"]["loss.gamma"]},
        "signals": {
            "grace_epochs": 1,
            "not_learning": {"all_but_one_epochs": 2, "level": 0.5},
            "sparing": {"least_epochs_left": 0, "least_share_left": 0},
        },
    }
    (tmp_path / "spared.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    answer = terminal.run(
        "run", "--study", "spared.yaml", "--workers", "1", "--devices", "cpu", folder=tmp_path
    )
    assert answer.code == 0, answer.text

    (trial,) = stored_trials(url_in(tmp_path), "spared")
    assert trial.state == "complete"
    with StoreLocation.parse(url_in(tmp_path)).open(create=False) as store:
        ((warning, diagnosis),) = store.findings.trial_evidence(trial.id)
    assert (warning.signal, warning.epoch < 6, warning.severity) == ("not_learning", True, 0.0)
    spared = "only 0 of the 3 complete peers that it needs"
    assert (warning.is_warning, warning.numbers["spared"], diagnosis) == (True, spared, None)

    logged = [
        json.loads(line)
        for path in tmp_path.rglob("worker-*.events.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert sum(spared in json.dumps(event) for event in logged) == 1
    explained = terminal.run("explain", "--study", "spared", "--trial", "0", folder=tmp_path)
    assert "Warnings" in explained.out
    assert spared in " ".join(explained.out.split())
    assert "Why it" not in explained.out
