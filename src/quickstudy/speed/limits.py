"""What this machine can do at best, measured: matrix products and memory reads.

Peaks are the best of several shapes and repetitions: other work on the machine only ever slows
them down. Every matrix read for the bandwidth is a different one, 2 GiB in all, so that no cache
holds it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch.nn.functional import linear

from quickstudy.model import LanguageModel
from quickstudy.speed.measure import Recorder, timed

# (rows, inner, columns)
STEP_SHAPE = (256, 896, 4864)  # like a step of practice: few rows, a model's MLP
SHAPES = ((2048, 2048, 2048), (4096, 4096, 4096), (2048, 4096, 11008), STEP_SHAPE)
SMALL_SHAPES = ((256, 256, 256),)
TRIES = 5


def measure(recorder: Recorder, quick: bool) -> None:
    """Records the peaks: operations (a multiply-add is two) or bytes a second."""
    device = recorder.device
    for dtype in (torch.bfloat16, torch.float32):
        for shape in SMALL_SHAPES if quick else SHAPES:
            rows, inner, columns = shape
            left = torch.randn(rows, inner, device=device).to(dtype)
            right = torch.randn(columns, inner, device=device).to(dtype)  # as a layer stores it
            seconds = best(device, partial(linear, left, right))
            recorder.write(
                "limits",
                f"product {_name(dtype)}",
                shape=shape,
                seconds=seconds,
                rate=2 * rows * inner * columns / seconds,
            )
    size = (32 << 20) if quick else (2 << 30)
    for name, work, read in reads(device, size):
        seconds = best(device, work)
        recorder.write("limits", f"read {name}", bytes=read, seconds=seconds, rate=read / seconds)


def reads(device: torch.device, size: int) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Ways to read `size` bytes of memory: (name, work, bytes)."""
    side = 2048
    for dtype in (torch.bfloat16, torch.float32):
        count = size // (side * side * dtype.itemsize)
        weights = torch.ones(count, side, side, device=device, dtype=dtype)
        one = torch.ones(1, side, device=device, dtype=dtype)
        read = weights.numel() * dtype.itemsize
        yield f"matrix times vector {_name(dtype)}", partial(_each, weights, one), read
        if dtype == torch.float32:
            yield f"sum {_name(dtype)}", weights.sum, read
        del weights


def best(device: torch.device, work: Callable[[], object]) -> float:
    """The least seconds of several tries, after one that is not counted."""

    @torch.no_grad()
    def run() -> None:
        work()

    run()
    return min(timed(device, run)[0] for _ in range(TRIES))


def machine(model: LanguageModel) -> dict[str, object]:
    """Where and with what the figures were measured."""
    device = model.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "model": model.name,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "dtype": _name(model.dtype),
        "device": gpu or device.type,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # it compares itself as a version
        "transformers": version("transformers"),
        "peft": version("peft"),
    }


def _each(weights: torch.Tensor, x: torch.Tensor) -> None:
    for weight in weights:
        linear(x, weight)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor())


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):  # not told by every system
        return None
