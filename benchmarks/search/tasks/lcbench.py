"""Tasks of LCBench: multilayer perceptrons on tables, as YAHPO Gym's surrogate without noise.

LCBench trained 2,000 configurations for 50 epochs on each of its data sets (Zimmer et al. 2021,
Auto-PyTorch Tabular); YAHPO Gym fitted a network to them (Pfisterer et al. 2022). Space and order
of the inputs are those of its `lcbench` scenario.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.tasks.base import Params, Task
from benchmarks.search.tasks.long_search import find_best
from spaces.parameters import FloatRange, IntRange, Parameter, Scalar

EPOCHS = 50

TASK_IDS = (
    "3945",
    "126026",
    "167149",
    "167181",
    "167200",
    "168331",
    "168910",
    "189866",
    "189908",
    "189909",
)
"""Ten of the 34 tasks: every fourth in the scenario's order, and the last one."""

SPACE: dict[str, Parameter] = {
    "batch_size": IntRange(kind="int", low=16, high=512, log=True),
    "learning_rate": FloatRange(kind="float", low=1e-4, high=0.1, log=True),
    "momentum": FloatRange(kind="float", low=0.1, high=0.99),
    "weight_decay": FloatRange(kind="float", low=1e-5, high=0.1),
    "num_layers": IntRange(kind="int", low=1, high=5),
    "max_units": IntRange(kind="int", low=64, high=1024, log=True),
    "max_dropout": FloatRange(kind="float", low=0.0, high=1.0),
}
"""In the order of the surrogate's continuous inputs, after the epoch."""

BALANCED_ACCURACY = 3
"""The output that is the validation balanced accuracy."""

BATCH = 20
"""Configurations that are evaluated together."""

FITTED = Path(__file__).parent / "fitted" / "lcbench.json"


class LcbenchTask(Task):
    """One data set of LCBench; the score is the best validation balanced accuracy.

    Args:
        folder: with the surrogate, `model.onnx` and `encoding.json`.
        task_id: of OpenML.

    Raises:
        SystemExit: when onnxruntime is not installed, or the folder has no surrogate of the task.
    """

    def __init__(self, folder: Path, task_id: str) -> None:
        self.name, self.epochs, self.space = f"lcbench:{task_id}", EPOCHS, SPACE
        self.regret_unit = "normalized"
        self._session = _load_surrogate(folder)
        self._code = _read_code(folder, task_id)
        self._known: dict[tuple[Scalar, ...], np.ndarray] = {}
        facts = json.loads(FITTED.read_text(encoding="utf-8")) if FITTED.exists() else {}
        if task_id not in facts:
            facts[task_id] = self._search_long()
            FITTED.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        self.best, self.median = facts[task_id]["best"], facts[task_id]["median"]

    def curve(self, params: Mapping[str, Scalar], seed: int) -> list[float]:
        """The surrogate's curve, which has no noise of seeds."""
        return [float(value) for value in self._curve(params)]

    def true_score(self, params: Mapping[str, Scalar]) -> float:
        """The best of its epochs."""
        return float(self._curve(params).max())

    def predict(self, many: Sequence[Mapping[str, Scalar]]) -> np.ndarray:
        """The curves of configurations, shape (configurations, epochs)."""
        rows = np.array([[params[name] for name in SPACE] for params in many], dtype=np.float32)
        epochs = np.tile(np.arange(1, EPOCHS + 1, dtype=np.float32), len(many))
        inputs = np.column_stack([epochs, np.repeat(rows, EPOCHS, axis=0)])
        codes = np.full((len(inputs), 1), self._code, dtype=np.int32)
        outputs = self._session.run(None, {"x_cat": codes, "x_cont": inputs})[0]
        return outputs[:, BALANCED_ACCURACY].reshape(len(many), EPOCHS).astype(float)

    def _curve(self, params: Mapping[str, Scalar]) -> np.ndarray:
        key = tuple(params[name] for name in SPACE)
        if key not in self._known:
            self._known[key] = self.predict([params])[0]
        return self._known[key]

    def _search_long(self) -> dict[str, float]:
        best, median = find_best(SPACE, self._score_many, random=5000, rounds=20)
        return {"best": round(best, 6), "median": round(median, 6)}

    def _score_many(self, many: Sequence[Params]) -> np.ndarray:
        parts = [many[start : start + BATCH] for start in range(0, len(many), BATCH)]
        return np.concatenate([self.predict(part).max(1) for part in parts])


@cache
def _load_surrogate(folder: Path) -> Any:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise SystemExit("the tasks of LCBench need onnxruntime: pip install onnxruntime") from None
    path = folder / "model.onnx"
    if not path.exists():
        raise SystemExit(f"there is no {path.name} in the folder given by --lcbench")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(str(path), options)


def _read_code(folder: Path, task_id: str) -> int:
    codes = json.loads((folder / "encoding.json").read_text(encoding="utf-8"))["OpenML_task_id"]
    if task_id not in codes:
        raise SystemExit(f"LCBench has no task {task_id}; choose from {', '.join(TASK_IDS)}")
    return int(codes[task_id])
