"""The highest resident memory of this process while a block runs, where the system tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(eq=False)
class Footprint:
    """`peak_mb` is known when the block has ended; None where the system does not tell it."""

    peak_mb: float | None = None

    def include(self, other: float | None) -> None:
        """Counts in what was measured elsewhere, of work that is shared."""
        if other is not None:
            self.peak_mb = max(other, self.peak_mb or 0.0)


_running: list[Footprint] = []


@contextmanager
def footprint() -> Iterator[Footprint]:
    """Measures the block. Linux only: other systems tell the peak of the whole life alone."""
    measured = Footprint()
    for outer in _running:  # the system keeps one mark, and this block resets it
        outer.include(_peak())
    _running.append(measured)
    with suppress(OSError):
        _RESET.write_text("5")  # 5: the mark of the highest resident size, and nothing else
    try:
        yield measured
    finally:
        measured.include(_peak())
        _running.remove(measured)


def _peak() -> float | None:
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()):
            return int(found[1]) / 1024
    return None
