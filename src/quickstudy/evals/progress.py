"""How far a run is: rows done, time left, the running accuracy of each method."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from quickstudy.evals.records import Record

_LINES_EVERY = 60.0  # seconds between lines where there is no terminal to draw a bar on


class Progress:
    """A bar on a terminal, a line now and then elsewhere. A `with` block."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.right: dict[tuple[str, str], list[int]] = {}  # benchmark, method -> right, graded
        self.count = self.total = 0
        self.began = self.told = clock()
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("loading", total=None, left="")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def start(self, total: int) -> None:
        """Answers begin, `total` of them."""
        self.total, self.began = total, self.clock()
        self.bar.update(self.task, total=total)

    def seen(self, record: Record) -> None:
        """Counts a record of an earlier run."""
        if record.verdict.correct is not None:
            counts = self.right.setdefault((record.benchmark, record.method), [0, 0])
            counts[0] += record.verdict.correct
            counts[1] += 1

    def done(self, record: Record) -> None:
        self.seen(record)
        self.count += 1
        told = self.accuracies(record.benchmark)
        self.bar.update(self.task, completed=self.count, description=told, left=self.left)
        now = self.clock()
        if not self.console.is_terminal and now - self.told >= _LINES_EVERY:
            self.told = now
            line = f"{self.count}/{self.total} answers, {self.left}: {told}"
            self.console.print(Text(line), soft_wrap=True)

    def step(self, what: str, number: int, total: int) -> None:
        """Work that answers nothing yet: training."""
        self.bar.update(self.task, description=f"{what} {number}/{total}")

    def accuracies(self, benchmark: str) -> str:
        told = [
            f"{method} {right / graded:.2f}"
            for (name, method), (right, graded) in self.right.items()
            if name == benchmark
        ]
        return f"{benchmark}: {', '.join(told)}"

    @property
    def left(self) -> str:
        """The time left if the other answers take as long as those so far."""
        seconds = (self.clock() - self.began) / max(1, self.count) * (self.total - self.count)
        if seconds < 90:
            return f"{seconds:.0f} s left"
        return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"
