"""How far a run is, told on a terminal and in a log."""

from __future__ import annotations

import io

from rich.console import Console

from quickstudy.evals.progress import Progress
from quickstudy.evals.records import Record, Said, Verdict


def record(method: str, correct: bool | None) -> Record:
    return Record(
        benchmark="sealtool",
        id="r",
        place=0,
        query="q",
        verbatim=True,
        method=method,
        request="Go",
        gold=(),
        answer=Said(),
        verdict=Verdict(correct=correct),
        seconds={},
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_accuracies_count_what_is_graded() -> None:
    with Progress(Console(quiet=True)) as progress:
        progress.seen(record("base", True))  # of an earlier run
        progress.start(4)
        for correct in (False, None, True):
            progress.done(record("base", correct))
        progress.done(record("tt-si", True))
    assert progress.accuracies("sealtool") == "sealtool: base 0.67, tt-si 1.00"


def test_time_left_is_told_from_this_runs_answers() -> None:
    clock = Clock()
    with Progress(Console(quiet=True), clock) as progress:
        clock.now = 1000.0  # loading
        progress.start(4)
        for now, left in ((1010.0, "30 s left"), (1200.0, "3 min left"), (25_000.0, "2.2 h left")):
            clock.now = now
            progress.done(record("base", True))
            assert progress.left == left


def test_a_log_gets_a_line_now_and_then() -> None:
    clock, log = Clock(), io.StringIO()
    with Progress(Console(file=log, width=40), clock) as progress:
        progress.start(10)
        for now in (10.0, 61.0, 70.0, 200.0):
            clock.now = now
            progress.done(record("base", True))
    lines = log.getvalue().strip().splitlines()
    assert len(lines) == 2
    assert lines[0] == "2/10 answers, 4 min left: sealtool: base 1.00"


def test_a_terminal_gets_a_bar() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with Progress(console) as progress:
        progress.start(2)
        progress.step("training sft", 3, 9)
        progress.bar.refresh()
        assert "training sft 3/9" in screen.getvalue()
        progress.done(record("base", True))
        progress.bar.refresh()
    assert "base 1.00" in screen.getvalue()
    assert "1/2" in screen.getvalue()
