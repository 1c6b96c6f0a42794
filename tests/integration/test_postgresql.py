"""The same study on a real PostgreSQL server: every command works there, and nothing but the place differs."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from search.export import load_export
from storage.location import StoreLocation
from tests.acceptance.studies import repeatable, stored_records
from tests.acceptance.terminal import Terminal
from tests.integration.conftest import Ended


@pytest.fixture
def ended(runs: dict[str, Ended]) -> Ended:
    """The study on PostgreSQL."""
    return runs["postgresql"]


def test_run(ended: Ended) -> None:
    """A study runs to its exact budget, and leaves nothing of SQLite behind."""
    assert (ended.answer.code, ended.answer.err) == (0, "")
    assert [trial.number for trial in ended.trials] == [0, 1, 2, 3]
    assert {trial.state for trial in ended.trials} <= {"complete", "diverged", "pruned"}
    assert sorted(path.name for path in ended.folder.iterdir()) == [
        "best.yaml",
        "search.files",
        "tiny.yaml",
    ]


def test_same_as_sqlite(runs: dict[str, Ended]) -> None:
    """Every trial has the configuration, the epochs and the score that it has on SQLite, to the last bit."""
    here, there = runs["postgresql"], runs["sqlite"]
    for a, b in zip(here.trials, there.trials, strict=True):
        assert (a.number, a.preset, a.config, a.state, a.score, a.reason) == (
            b.number,
            b.preset,
            b.config,
            b.state,
            b.score,
            b.reason,
        )
    assert repeatable(stored_records(here.url)) == repeatable(stored_records(there.url))


def test_show(ended: Ended, terminal: Terminal) -> None:
    """`show --json` agrees with the store."""
    answer = terminal.run(
        "show", "--study", "tiny", "--json", folder=ended.folder, SEARCH_STORE=ended.url
    )
    reported = json.loads(answer.out)
    assert (answer.code, answer.err) == (0, "")
    complete = {trial.number: trial.score for trial in ended.trials if trial.state == "complete"}
    assert {row["number"]: row["score"] for row in reported["leaderboard"]} == complete


def test_explain(ended: Ended, terminal: Terminal) -> None:
    """`explain` finds the store by its option as well."""
    answer = terminal.run(
        "explain", "--study", "tiny", "--trial", "1", "--store", ended.url, folder=ended.folder
    )
    assert (answer.code, answer.err) == (0, "")
    assert "Trial 1 of tiny (preset untuned)" in answer.out


def test_export(ended: Ended, terminal: Terminal, tmp_path: Path) -> None:
    """`export` writes a trial, with where it comes from."""
    answer = terminal.run(
        "export", "--study", "tiny", "--trial", "0", folder=tmp_path, SEARCH_STORE=ended.url
    )
    export = load_export(tmp_path / "best.yaml")
    assert (answer.code, answer.err) == (0, "")
    assert export.score.validation == ended.trials[0].score
    assert export.provenance.store.startswith("postgresql")


def test_optuna(ended: Ended) -> None:
    """Optuna opens the study by itself, with the scores that the store has."""
    study = optuna.load_study(study_name="tiny", storage=StoreLocation.parse(ended.url).optuna_url)
    kept = {
        trial.number: trial.value
        for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    }
    assert kept == {
        trial.number: trial.score for trial in ended.trials if trial.state == "complete"
    }


def test_other_definition(ended: Ended, terminal: Terminal, tmp_path: Path) -> None:
    """A definition read back from PostgreSQL is the one that was written: it equals itself, and another is refused."""
    (tmp_path / "tiny.yaml").write_text((ended.folder / "tiny.yaml").read_text())
    answer = terminal.run(
        "run", "--study", "tiny.yaml", "--set", "epochs=9", folder=tmp_path, SEARCH_STORE=ended.url
    )
    assert answer.code == 2
    assert "found:   epochs: 4 → 9\n  next:" in answer.err
