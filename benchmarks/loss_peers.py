"""The losses that are compared, ours and others', and one process that measures some of them.

Run as a process by `benchmarks.losses`, so that the memory allocator's settings hold from the start
and no loss finds memory that another has left warm: `python -m benchmarks.loss_peers times`, or
`memory`, `metric`, `compile`, `gpu`.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

IGNORED = 255
CLASSES = 19
SHAPES = ((4, CLASSES, 256, 512), (2, CLASSES, 512, 1024))
QUICK_SHAPES = ((1, CLASSES, 64, 128), (1, CLASSES, 96, 128))
TRIALS = 20

Call = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Contender:
    """A loss, and whether it can leave pixels out; the others get a target without ignored ones."""

    make: Callable[[torch.device], Call]
    ignores: bool = True


def _weight(device: torch.device) -> Tensor:
    return torch.linspace(0.1, 1.9, CLASSES, device=device)


def _torch_ce(device: torch.device) -> Call:
    weight = _weight(device)
    return lambda x, t: torch.nn.functional.cross_entropy(x, t, weight, ignore_index=IGNORED)


def _smp_dice() -> Call:
    from segmentation_models_pytorch.losses import DiceLoss

    dice: Call = DiceLoss("multiclass", smooth=0.5, ignore_index=IGNORED)
    return dice


def _torch_ce_smp_dice(device: torch.device) -> Call:
    ce, dice = _torch_ce(device), _smp_dice()
    return lambda x, t: 0.6 * ce(x, t) + 0.4 * dice(x, t)


def _smp_focal_dice(device: torch.device) -> Call:
    from segmentation_models_pytorch.losses import FocalLoss

    focal, dice = FocalLoss("multiclass", gamma=2.0, ignore_index=IGNORED), _smp_dice()
    return lambda x, t: 0.6 * focal(x, t) + 0.4 * dice(x, t)


def _monai_dice_ce(device: torch.device) -> Call:
    from monai.losses import DiceCELoss

    loss = DiceCELoss(
        to_onehot_y=True, softmax=True, smooth_nr=1.0, smooth_dr=1.0, lambda_ce=0.6, lambda_dice=0.4
    )
    return lambda x, t: loss(x, t.unsqueeze(1))


def _monai_dice_focal(device: torch.device) -> Call:
    from monai.losses import DiceFocalLoss

    loss = DiceFocalLoss(
        to_onehot_y=True,
        softmax=True,
        smooth_nr=1.0,
        smooth_dr=1.0,
        lambda_focal=0.6,
        lambda_dice=0.4,
    )
    return lambda x, t: loss(x, t.unsqueeze(1))


def _kornia(weighted: bool) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        from kornia.losses import dice_loss, focal_loss

        weight = _weight(device) if weighted else None
        return lambda x, t: (
            0.6 * focal_loss(x, t, None, 2.0, "mean", weight, IGNORED)
            + 0.4 * dice_loss(x, t, "macro", 1e-8, weight, IGNORED)
        )

    return make


def _ours(main: str) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        from objectives.losses import CombinedLoss, CrossEntropyLoss, DiceLoss, FocalLoss

        weight = _weight(torch.device("cpu"))
        if main == "ce":
            part: CrossEntropyLoss | FocalLoss = CrossEntropyLoss(weight, ignore_index=IGNORED)
        else:
            part = FocalLoss(
                2.0, None, weight, ignore_index=IGNORED, share=0.5 if main == "ce_focal" else 1.0
            )
        criterion = CombinedLoss(
            part, DiceLoss(1.0, ignore_index=IGNORED), ce_weight=0.6, dice_weight=0.4
        ).to(device)
        return lambda x, t: criterion(x, t).total

    return make


CONTENDERS: dict[str, Contender] = {
    "torch CE": Contender(_torch_ce),
    "torch CE + smp Dice": Contender(_torch_ce_smp_dice),
    "smp focal + smp Dice": Contender(_smp_focal_dice),
    "MONAI DiceCE": Contender(_monai_dice_ce, ignores=False),
    "MONAI DiceFocal": Contender(_monai_dice_focal, ignores=False),
    "kornia focal + Dice": Contender(_kornia(weighted=False)),
    "kornia focal + Dice, weighted": Contender(_kornia(weighted=True)),
    "CE + Dice": Contender(_ours("ce")),
    "focal + Dice": Contender(_ours("focal")),
    "CE + focal + Dice": Contender(_ours("ce_focal")),
}
"""The last three are ours, with class weights and ignored pixels throughout."""


def drawn(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Logits with a gradient, a target of which 5% is ignored, and the same target without."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=random).to(device).requires_grad_()
    whole = torch.randint(CLASSES, (shape[0], *shape[2:]), generator=random)
    holes = torch.rand(whole.shape, generator=random) < 0.05
    return logits, whole.masked_fill(holes, IGNORED).to(device), whole.to(device)


def step(call: Call, logits: Tensor, target: Tensor) -> None:
    """Forward and backward to the logits; nothing is left of it."""
    torch.autograd.grad(call(logits, target), logits)


def times(shapes: tuple[tuple[int, ...], ...], rounds: int, device: torch.device) -> dict[str, Any]:
    """Measure shape → loss → milliseconds per round; each round runs every loss once."""
    found: dict[str, Any] = {}
    calls = {
        name: (contender.make(device), contender.ignores) for name, contender in CONTENDERS.items()
    }
    for shape in shapes:
        logits, some, whole = drawn(shape, device)
        laps: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(rounds + 1):
            for name, (call, ignores) in calls.items():
                clear()
                lap = timed(call, logits, some if ignores else whole)
                if number:  # the first round warms up
                    laps[name].append(lap)
        found[label(shape)] = laps
    return found


def clear() -> None:
    """Return free memory to the system, so that no loss finds memory of the one before."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def timed(call: Call, logits: Tensor, target: Tensor) -> float:
    """Milliseconds of one step."""
    if logits.is_cuda:
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        step(call, logits, target)
        ended.record()
        ended.synchronize()
        return float(begun.elapsed_time(ended))
    began = time.perf_counter()
    step(call, logits, target)
    return 1000 * (time.perf_counter() - began)


def memory(name: str, shape: tuple[int, ...]) -> dict[str, float]:
    """The peak above the inputs, as a multiple of the logits' bytes. Has a process to itself."""
    contender, device = CONTENDERS[name], torch.device("cpu")
    call = contender.make(device)
    small, some, whole = drawn((1, CLASSES, 16, 16), device)
    step(
        call, small, some if contender.ignores else whole
    )  # whatever is loaded at first use is no part of it
    logits, some, whole = drawn(shape, device)
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
    before = resident_kib("VmRSS")
    step(call, logits, some if contender.ignores else whole)
    return {name: 1024 * (resident_kib("VmHWM") - before) / logits.nbytes}


def resident_kib(key: str) -> int:
    """A line of the process's own status."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{key}:"))


def metric(
    shapes: tuple[tuple[int, ...], ...], rounds: int, device: torch.device
) -> dict[str, Any]:
    """Shape → who counts → milliseconds of each round, from logits to counts, argmax included."""
    from torchmetrics.classification import MulticlassJaccardIndex

    from objectives.training.metrics import ConfusionMatrix

    found: dict[str, Any] = {}
    for shape in shapes:
        logits, target, _ = drawn(shape, device)
        logits = logits.detach()
        counters: dict[str, Any] = {
            "torchmetrics": MulticlassJaccardIndex(CLASSES, ignore_index=IGNORED).to(device),
            "torchmetrics without validation": MulticlassJaccardIndex(
                CLASSES, ignore_index=IGNORED, validate_args=False
            ).to(device),
            "ours": ConfusionMatrix(CLASSES, IGNORED, device),
        }
        laps: dict[str, list[float]] = {name: [] for name in counters}
        for number in range(rounds + 1):
            for name, counter in counters.items():
                began = time.perf_counter()
                counter.update(logits, target)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if number:
                    laps[name].append(1000 * (time.perf_counter() - began))
        agreed = abs(counters["ours"].mean_iou() - float(counters["torchmetrics"].compute()))
        found[label(shape)] = laps | {"difference of the two mean IoUs": agreed}
    return found


def compilations() -> dict[str, int]:
    """Count the compilations of torch.compile in this many trials, each with other numbers."""
    from torch._dynamo.utils import counters

    from objectives.losses import CombinedLoss, DiceLoss, FocalLoss

    def total(criterion: CombinedLoss, logits: Tensor, target: Tensor) -> Tensor:
        return criterion(logits, target).total

    compiled = torch.compile(total, backend="aot_eager")
    logits, target, _ = drawn((1, CLASSES, 16, 16), torch.device("cpu"))
    for number in range(1, TRIALS + 1):
        share = 0.04 * number
        part = FocalLoss(
            0.1 * number,
            0.05 * number,
            torch.rand(CLASSES),
            ignore_index=IGNORED,
            label_smoothing=0.01 * number,
            share=share,
        )
        criterion = CombinedLoss(
            part,
            DiceLoss(0.5 * number, ignore_index=IGNORED),
            ce_weight=1 - share,
            dice_weight=share,
        )
        step(partial(compiled, criterion), logits, target)
    return {"trials": TRIALS, "compilations": counters["stats"]["unique_graphs"]}


def gpu(shapes: tuple[tuple[int, ...], ...], rounds: int) -> dict[str, Any]:
    """The same times on a GPU, and whether a training step waits for it; empty without one."""
    if not torch.cuda.is_available():
        return {}
    device = torch.device("cuda")
    return {
        "name": torch.cuda.get_device_name(),
        "times": times(shapes, rounds, device),
        "metric": metric(shapes, rounds, device),
        "waits": waits(device),
    }


def waits(device: torch.device) -> str:
    """What torch's sync-debug mode reports for a training step of the shipped model."""
    from objectives.segmentation import train as trainer
    from objectives.segmentation.config import SegmentationConfig
    from objectives.training.metrics import ConfusionMatrix
    from objectives.training.steps import Means

    config = SegmentationConfig.model_validate(
        {
            "batch_size": 4,
            "precision": "float32",
            "loss": {"kind": "ce_focal", "dice_weight": 0.4, "normalize": True},
            "weights": {"method": "sqrt_inv_freq"},
            "optimizer": {"accumulate": 2, "grad_clip_norm": 1.0},
        }
    )
    run = trainer.Run(
        config, trainer.prepare(config, "cuda"), trainer.count_classes(config), device
    )
    run.criterion.set_epoch(run.values_of(1))
    group, means, matrix = (
        list(run.train_batches.epoch(1))[:2],
        Means.zero(device),
        ConfusionMatrix(7, IGNORED, device),
    )
    for mode in ("default", "error"):  # once as it comes, for what is loaded at first use
        torch.cuda.set_sync_debug_mode(mode)
        try:
            loss, _, _ = run.accumulate_gradients(group, means)
            run.guard.check_step(loss)
            run.optimizer.step()
            matrix.update(run.predict(group[0][0]).detach(), group[0][1])
        except RuntimeError as problem:
            return str(problem)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return ""


def label(shape: tuple[int, ...]) -> str:
    """The shape without its classes, which are the same everywhere."""
    return "×".join(str(size) for place, size in enumerate(shape) if place != 1)


def faster(laps: dict[str, list[float]], ours: str, peer: str) -> float:
    """How many times as fast as the peer: the median of the rounds, in which both ran."""
    return median(theirs / own for own, theirs in zip(laps[ours], laps[peer], strict=True))


def main() -> int:
    """One measurement, as JSON on the last line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("what", choices=["times", "memory", "metric", "compile", "gpu"])
    made.add_argument(
        "--name", choices=list(CONTENDERS), help="of the loss whose memory is measured"
    )
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--quick", action="store_true", help="small shapes")
    options = made.parse_args()
    warnings.simplefilter("ignore")  # of the peers, about themselves
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shapes, cpu = QUICK_SHAPES if options.quick else SHAPES, torch.device("cpu")
    measured: dict[str, Callable[[], dict[str, Any]]] = {
        "times": lambda: times(shapes, options.rounds, cpu),
        "memory": lambda: memory(options.name, shapes[0]),
        "metric": lambda: metric(shapes, options.rounds, cpu),
        "compile": compilations,
        "gpu": lambda: gpu(shapes, options.rounds),
    }
    print(json.dumps(measured[options.what]()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
