"""Torch's helper threads belong to one thread at a time.

Work that stops and goes on (`together`, the server's baton) runs in several threads, of which one
computes. GNU OpenMP keeps a team of helpers for each of them, and once there are more threads than
cores in all teams it waits asleep instead of awake: with two threads on two cores a token of a
small model took 52 ms in place of 27. So a thread releases its team when it hands over; a new one
costs some 50 microseconds.

Awake it waits 3 ms or more. A tenth of that is as fast where the cores are ours alone; where
others compute as well, waiting awake takes what they leave: 400 ms a token in place of 160.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_SOFT = 1  # omp_pause_soft
_TURNS = "30000"  # of waiting awake, about 0.3 ms


def wait_briefly() -> None:
    """Lets OpenMP fall asleep soon, unless the environment says how it waits.

    It is read once, when torch is loaded: whoever calls this has not imported torch yet.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _TURNS)


def release_team() -> None:
    """Ends the helpers of the thread that calls; torch gets new ones when it needs them."""
    pause = _pause()
    if pause is not None:
        pause(_SOFT)


@cache
def _pause() -> Callable[[int], int] | None:
    """OpenMP's omp_pause_resource_all; None where torch computes without GNU OpenMP."""
    import torch

    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not path.exists():
        return None
    library = ctypes.CDLL(str(path))  # a name is looked up in all that it is linked with
    if hasattr(library, "__kmpc_fork_call"):  # LLVM's or Intel's, which does not fall asleep
        return None
    found: Callable[[int], int] | None = getattr(library, "omp_pause_resource_all", None)
    return found
