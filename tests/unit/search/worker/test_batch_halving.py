"""What becomes of a trial that runs out of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives.training.out_of_memory import translate_out_of_memory
from search.worker import batch_halving
from spaces.errors import OutOfMemoryError
from tests.conftest import RECORD

CONFIG: dict[str, Any] = {
    "batch_size": 9,
    "optimizer": {"accumulate": 2, "kind": "sgd"},
    "data": {"crop": [256, 320]},
    "seed": 4,
}

CHILD = """
import json, resource, sys
from pathlib import Path
from search.session import open_session
from search.worker.stop import StopRequest
from search.worker.trial import run_trial
from search.worker.context import make_context
from search.worker.options import WorkerOptions
from spaces.errors import WorkerRestartRequired
from spaces.loader import load_study
from search.export import make_export
from search.report.study_report import study_report
from storage.location import StoreLocation

url, policy, limits = sys.argv[1], sys.argv[2], [{"0": None, "1": 200, "2": 40}[char] for char in sys.argv[3]]
base = {"data": {"train_scenes": 24, "val_scenes": 8, "test_scenes": 8, "size": 128}, "batch_size": 24, "model.options": {"encoder_depth": 2, "decoder_channels": [64, 32]}}
spec = load_study("lr_clip", {"epochs": 1, "trials": int(sys.argv[4]), "on_out_of_memory": policy, "presets": [], **{f"base.{key}": value for key, value in base.items()}})
session = open_session(spec, StoreLocation.parse(url))
with session.store as store:
    stop = StopRequest()
    context = make_context(StoreLocation.parse(url), WorkerOptions(spec.name), store, session.stored, stop)
    results = []
    free = resource.getrlimit(resource.RLIMIT_DATA)
    for limit_mib in limits:
        used = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, free if limit_mib is None else (used + limit_mib * 2**20, free[1]))
        try:
            run_trial(context, store.leases.claim_trial(session.stored.id, spec.trials, "a", 60))
            words = "done"
        except WorkerRestartRequired as problem:
            words = str(problem)
        resource.setrlimit(resource.RLIMIT_DATA, free)
        trial = store.trials.list_trials(session.stored.id)[-1]
        batches = [trial.config["batch_size"], trial.config["optimizer"]["accumulate"]]
        used = trial.used and [trial.used["batch_size"], trial.used["optimizer.accumulate"]]
        results.append([words, trial.state, trial.halvings, batches, used, len(store.epochs.trial_records(trial.id))])
    kills = [[kill.signal, kill.cause, kill.remedy] for kill in study_report(store, spec.name).kills]
    frozen = context.study.get_trials()[-1]
    exported = make_export(store, session.stored, None).config["batch_size"] if spec.trials > 1 else None
    print(json.dumps([results, kills, frozen.state.name, frozen.constraints, exported]))
"""
"""A worker whose process is limited to little more memory than it has in some attempts, each like a fresh process."""


def child(folder: Path, policy: str, limits: str, trials: int) -> Any:
    """The results of a worker in its own process."""
    command = [
        sys.executable,
        "-c",
        CHILD,
        f"sqlite:///{folder / 'search.db'}",
        policy,
        limits,
        str(trials),
    ]
    answer = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


class TestReal:
    def test_halved(self, tmp_path: Path) -> None:
        """A trial that runs out of memory is released with half the batch and twice the accumulation.

        It is complete when that fits, and the recorded configuration is the one that ran. Otherwise the trial is
        infeasible, with the cause and a remedy, in Optuna's tables too.
        """
        (first, fits, again, infeasible), kills, state, constraints, exported = child(
            tmp_path, "halve_batch", "1012", 2
        )
        assert first[0].startswith("trial 0: out of memory on cpu while allocating ")
        assert first[1:] == again[1:] == ["paused", 1, [12, 2], None, 0]
        assert fits == ["done", "complete", 1, [12, 2], [12, 2], 1]
        assert exported == 12
        assert infeasible[1:] == ["diverged", 1, [12, 2], None, 0]
        assert [kill[:2] for kill in kills] == [["out_of_memory", "out of memory"]]
        assert "batch_size 12 → 6, optimizer.accumulate 2 → 4" in kills[0][2]
        assert state == "PRUNED"
        assert constraints["diverged"] > 0

    def test_infeasible_at_once(self, tmp_path: Path) -> None:
        """Where the study says so, nothing is halved."""
        (only,), kills, state, _, _ = child(tmp_path, "infeasible", "1", 1)
        assert only[1:] == ["diverged", 0, [24, 1], None, 0]
        assert (len(kills), state) == (1, "PRUNED")


class TestMessages:
    @pytest.mark.parametrize(
        ("problem", "asked"),
        [
            (
                torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB"
                ),
                "2.50 GiB",
            ),
            (
                RuntimeError(
                    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes. Error code 12 (Cannot allocate memory)"
                ),
                "3 GiB",
            ),
            (
                RuntimeError(
                    "CUDA error: out of memory\\nCUDA kernel errors might be asynchronously reported"
                ),
                "",
            ),
            (
                RuntimeError(
                    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
                ),
                "",
            ),
            (MemoryError("std::bad_alloc"), ""),
            (MemoryError(), ""),
            (OSError(12, "Cannot allocate memory"), ""),
        ],
    )
    def test_one_error(self, problem: Exception, asked: str) -> None:
        """All messages about a lack of memory become one error, with the size that was asked for."""
        with pytest.raises(OutOfMemoryError) as caught, translate_out_of_memory("cuda:0"):
            raise problem
        assert (caught.value.device, caught.value.asked) == ("cuda:0", asked)

    @pytest.mark.parametrize(
        "problem",
        [
            RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
            ValueError("out of memory"),
            OSError(2, "No such file"),
        ],
    )
    def test_others(self, problem: Exception) -> None:
        """Any other error stays what it is."""
        with pytest.raises(type(problem)) as caught, translate_out_of_memory("cpu"):
            raise problem
        assert caught.value is problem


class TestHalveBatch:
    def test_batch(self) -> None:
        """Half the batch, rounded down, and twice the batches per step; nothing else changes."""
        assert batch_halving.halve_batch(CONFIG) == CONFIG | {
            "batch_size": 4,
            "optimizer": {"accumulate": 4, "kind": "sgd"},
        }
        assert CONFIG["batch_size"] == 9

    @pytest.mark.parametrize(
        "config",
        [
            CONFIG | {"batch_size": 1},
            {"seed": 4},
            {"batch_size": 8},
            {"batch_size": 8, "optimizer": {}},
        ],
    )
    def test_none(self, config: dict[str, Any]) -> None:
        """A single sample cannot be halved, nor can what has no batch."""
        assert batch_halving.halve_batch(config) is None

    def test_expected(self) -> None:
        """A halved batch is expected as halved; other dimensions as they were sampled."""
        params = {"batch_size": 18, "optimizer.kind": "adamw"}
        assert batch_halving.expected_values(params, CONFIG, 0) == params
        assert batch_halving.expected_values(params, CONFIG, 1) == {
            "batch_size": 9,
            "optimizer.kind": "adamw",
        }


class TestDiagnosis:
    def test_remedies(self) -> None:
        """Half the batch, a smaller crop, and advice; what the configuration lacks is left out."""
        found = batch_halving.make_diagnosis(OutOfMemoryError("cuda:0", "2 GiB"), CONFIG, 1)
        assert [remedy.patch for remedy in found.remedies] == [
            {"batch_size": 4, "optimizer.accumulate": 4},
            {"data.crop": [128, 160]},
            {},
        ]
        assert found.cause == "out of memory"
        assert (
            len(batch_halving.make_diagnosis(OutOfMemoryError("cpu"), {"seed": 1}, 0).remedies) == 1
        )

    def test_evidence(self) -> None:
        """The evidence names the device and the numbers; a trial that failed at its start is more severe."""
        problem = OutOfMemoryError("cuda:0", "2 GiB")
        first, late = (
            batch_halving.make_evidence(problem, CONFIG, records, 1, 10)
            for records in ([], [replace(RECORD, epoch=8, peak_mib=70.0)])
        )
        assert (first.epoch, late.epoch) == (1, 9)
        assert first.severity > late.severity >= 1
        assert late.numbers == {
            "batch_size": 9,
            "optimizer.accumulate": 2,
            "data.crop": [256, 320],
            "device": "cuda:0",
            "asked": "2 GiB",
            "halvings": 1,
            "peak_mib": 70.0,
        }
        assert (
            late.statement
            == "out of memory on cuda:0 while allocating 2 GiB, even with half of its batch"
        )
