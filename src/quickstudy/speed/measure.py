"""Timing: variants of one piece of work in turns (A B A B ...), every repetition written down.

Knows nothing about models; `records.py` tells what a record is.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from quickstudy import jsonlines

Work = Callable[[int], Mapping[str, Any] | None]

LIMIT = 600.0  # seconds: rounds that begin later are left out, beyond the first three
ROUNDS = 3


class Recorder:
    """Runs variants in turns and appends what each repetition took to a file."""

    def __init__(
        self, file: Path, run: str, device: torch.device, repeats: int, progress: Progress
    ) -> None:
        self.file, self.run, self.device, self.repeats = file, run, device, repeats
        self.progress = progress
        self._warm: set[str] = set()

    def write(self, row: str, variant: str, **told: Any) -> None:
        record = {"run": self.run, "row": row, "variant": variant, **told}
        jsonlines.append(self.file, record)

    def end(self, row: str) -> None:
        """Marks the row as measured to its end; without it, what is there was cut off."""
        self.write("end", row)

    def say(self, text: str) -> None:
        """Tells the person who waits, above the progress bars."""
        self.progress.console.print(text, style="dim", highlight=False, markup=False)

    def paired(
        self, row: str, cell: Mapping[str, Any], variants: Mapping[str, Work], warm: bool = True
    ) -> None:
        """Times every variant once a round.

        A row's first cell begins with a round that is not recorded, so that nobody pays for
        imports, compilation and cold caches. Rounds that would begin more than `LIMIT` seconds
        after the first are left out, beyond `ROUNDS`: the records say how many there were.

        Args:
            cell: what all variants of this comparison have in common, such as the prefix.
            variants: by name; each is given the number of the round, and what it returns is
                written into its record.
            warm: whether the row's first cell is to begin with that round.
        """
        told = " ".join(str(value) for value in cell.values() if not isinstance(value, float))
        task = self.progress.add_task(f"{row} {told}", total=self.repeats * len(variants))
        if warm and row not in self._warm:
            self._warm.add(row)
            for variant, work in variants.items():
                self.progress.update(task, description=f"{row} {told} {variant}: warming up")
                work(0)
        began = time.perf_counter()
        for repeat in range(self.repeats):
            if repeat >= ROUNDS and time.perf_counter() - began > LIMIT:
                self.say(f"{row} {told}: {repeat} rounds took {LIMIT:.0f} s, no more follow")
                break
            for variant, work in variants.items():
                self.progress.update(task, description=f"{row} {told} {variant}")
                seconds, more = timed(self.device, partial(work, repeat))
                self.write(row, variant, **cell, repeat=repeat, seconds=seconds, **(more or {}))
                self.progress.advance(task)
        self.progress.remove_task(task)


def timed(
    device: torch.device, work: Callable[[], Mapping[str, Any] | None]
) -> tuple[float, Mapping[str, Any] | None]:
    """Seconds that the work took, to the end of what it queued on the device; and its result."""
    gc.collect()
    synchronise(device)
    start = time.perf_counter()
    result = work()
    synchronise(device)
    return time.perf_counter() - start, result


def synchronise(device: torch.device) -> None:
    """Waits for what is queued on the device; a CPU queues nothing."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
