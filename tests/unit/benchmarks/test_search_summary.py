"""The comparison of methods: ranks, quartiles, stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.search.jobs import list_jobs, make_job_key, run_jobs
from benchmarks.search.stored_runs import StoredRuns
from benchmarks.search.summary import format_summary, mean_ranks, summarize


def row(task: str, method: str, seed: int, regret: float, settled: int | None) -> dict[str, Any]:
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "picked": [regret] * 20,
        "tried": [regret / 2] * 20,
        "settled": settled,
        "suggestion_ms": 1.0,
        "trials": 20,
        "complete": 20,
        "resumed": 0,
    }


class TestRanks:
    def test_by_hand(self) -> None:
        """Ranks 1, 2, 3 on one task and 2½, 1, 2½ on another give the means of each."""
        ranks = mean_ranks([{"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 5.0, "b": 4.0, "c": 5.0}])
        assert ranks == {"a": 1.75, "b": 1.5, "c": 2.75}


class TestSummary:
    def test_by_hand(self) -> None:
        """Means and quartiles over seeds, and only checkpoints that every run has reached."""
        rows = [row("first", "a", seed, 10.0 + seed, 100) for seed in range(5)]
        rows += [row("first", "b", seed, 20.0, None if seed > 1 else 300) for seed in range(5)]
        rows += [row("lcbench:1", name, 0, 5.0, None) for name in ("a", "b")]
        summary = summarize(rows)
        found = summary["tasks"]["first"]["a"]
        assert found["picked"] == {
            point: {"mean": 12.0, "quartiles": [11.0, 12.0, 13.0]} for point in ("10", "20")
        }
        assert found["settled_median"] == 100
        assert summary["tasks"]["first"]["b"]["settled_median"] is None
        assert summary["tasks"]["first"]["b"]["settled_share"] == 0.4
        assert summary["groups"]["scenes"]["rank"]["20"] == {"a": 1.0, "b": 2.0}
        assert summary["groups"]["lcbench"]["rank"]["10"] == {"a": 1.5, "b": 1.5}
        assert summary["groups"]["all"]["rank"]["10"] == {"a": 1.25, "b": 1.75}
        assert "12.0 / 12.0" in format_summary(summary)

    def test_ranked_together(self) -> None:
        """A method that is missing on one task of a family has figures there, and no rank."""
        rows = [row("first", "a", 0, 1.0, None), row("first", "b", 0, 2.0, None)]
        rows += [row("second", "b", 0, 1.0, None)]
        summary = summarize(rows)
        assert list(summary["groups"]["scenes"]["regret"]) == ["b"]
        assert "a" in summary["tasks"]["first"]

    def test_paired(self) -> None:
        """A method with fewer seeds than the others has figures, and no rank beside theirs."""
        rows = [row("first", "a", seed, 2.0, None) for seed in range(2)]
        rows.append(row("first", "b", 0, 1.0, None))
        summary = summarize(rows)
        assert summary["groups"]["scenes"]["rank"]["10"] == {"a": 1.0}
        assert summary["tasks"]["first"]["b"]["seeds"] == 1


class TestStoredRuns:
    def test_continues(self, tmp_path: Path) -> None:
        """Finished runs are read again, a line that was cut off is not, and new ones follow."""
        jobs = {make_job_key(job): job for job in list_jobs(["planted"], ["random"], 3, 2)}
        keys = list(jobs)
        path = tmp_path / "runs.jsonl"
        run_jobs({key: jobs[key] for key in keys[:2]}, StoredRuns(path), 1)
        path.write_text(path.read_text()[:-20])
        stored = StoredRuns(path)
        assert list(stored.rows) == keys[:1] or list(stored.rows) == keys[1:2]
        run_jobs({key: jobs[key] for key in keys if key not in stored.rows}, stored, 1)
        assert {found["seed"] for found in StoredRuns(path).select(keys)} == {0, 1, 2}

    def test_keys(self) -> None:
        """Every run of a comparison has a key of its own."""
        jobs = list(list_jobs(["planted", "first"], ["random", "halving"], 3, 2))
        assert len({make_job_key(job) for job in jobs}) == len(jobs) == 12
