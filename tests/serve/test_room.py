"""Unsure requests that wait together practise together; what befalls one leaves the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import until

from quickstudy.errors import BudgetSpent
from quickstudy.serve.room import Room
from quickstudy.serve.scheduler import Cancelled, Job, Scheduler, Task, Turn


class Practice:
    """Stands in for the cycle's practice: notes who practised with whom, and takes its steps."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.stop = threading.Event()

    def practise(self, cases: Sequence[Any]) -> None:
        self.batches.append([case.name for case in cases])
        while not self.stop.is_set():
            cases[0].deadline.check()
            time.sleep(0.001)
        for case in cases:
            case.practised = True


class Bench:
    def __init__(self, together: int = 3) -> None:
        self.scheduler = Scheduler(places=16, practice_places=16)
        self.room = Room(together)
        self.practice = Practice()
        self.cases: dict[str, Any] = {}

    def submit(
        self, name: str, config: str = "same", at: float | None = None, purse: Any = None
    ) -> Task[Any]:
        case: Any = SimpleNamespace(name=name, practised=False, fallback=None)
        improver: Any = SimpleNamespace(config=config, practise=self.practice.practise)

        def work(job: Job) -> Any:
            case.deadline = Turn(at, job)
            self.room.practise(improver, case, job)
            return case

        task = self.scheduler.submit(work, purse)
        until(lambda: task.job.practising)
        return task


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_those_that_wait_are_taken_along(bench: Bench) -> None:
    tasks = [bench.submit("a")]
    until(lambda: bench.practice.batches == [["a"]])
    tasks += [bench.submit(name) for name in ("b", "c", "d", "e")]
    bench.practice.stop.set()
    assert all(task.future.result(5).practised for task in tasks)
    assert bench.practice.batches == [["a"], ["b", "c", "d"], ["e"]]


def test_one_at_a_time_if_so_set() -> None:
    bench = Bench(together=1)
    tasks = [bench.submit(name) for name in "abc"]
    bench.practice.stop.set()
    assert all(task.future.result(5).practised for task in tasks)
    assert bench.practice.batches == [["a"], ["b"], ["c"]]


def test_other_settings_practise_apart(bench: Bench) -> None:
    tasks = [bench.submit("a")]
    until(lambda: bench.practice.batches == [["a"]])
    tasks += [bench.submit("b"), bench.submit("c", config="other"), bench.submit("d")]
    bench.practice.stop.set()
    for task in tasks:
        task.future.result(5)
    assert bench.practice.batches == [["a"], ["b", "d"], ["c"]]


@pytest.fixture
def two(bench: Bench) -> tuple[Task[Any], Task[Any]]:
    """One that leads another, in practice that does not end by itself."""
    first = bench.submit("first")
    until(lambda: bench.practice.batches == [["first"]])
    leader, follower = bench.submit("leader"), bench.submit("follower")
    first.job.cancel()
    until(lambda: bench.practice.batches[1:] == [["leader", "follower"]])
    return leader, follower


def test_a_leader_that_nobody_waits_for_goes_on_for_the_others(
    bench: Bench, two: tuple[Task[Any], Task[Any]]
) -> None:
    leader, follower = two
    leader.job.cancel()
    time.sleep(0.02)
    assert bench.scheduler.submit(lambda job: "sure").future.result(5) == "sure"
    assert not follower.future.done()
    bench.practice.stop.set()
    assert follower.future.result(5).practised


def test_a_follower_that_nobody_waits_for_leaves(
    bench: Bench, two: tuple[Task[Any], Task[Any]]
) -> None:
    leader, follower = two
    follower.job.cancel()
    assert isinstance(follower.future.exception(5), Cancelled)
    bench.practice.stop.set()
    assert leader.future.result(5).practised


def test_all_end_if_nobody_waits(bench: Bench, two: tuple[Task[Any], Task[Any]]) -> None:
    for task in two:
        task.job.cancel()
    assert all(isinstance(task.future.exception(5), Cancelled) for task in two)
    until(lambda: not bench.scheduler.jobs)


def test_a_fault_that_escapes_costs_the_others_their_practice_only(bench: Bench) -> None:
    def fail(cases: Sequence[Any]) -> None:
        bench.practice.batches.append([case.name for case in cases])
        if len(cases) > 1:
            raise MemoryError
        bench.practice.stop.wait(5)

    first = bench.submit("first")
    until(lambda: bench.practice.batches == [["first"]])
    bench.practice.practise = fail  # type: ignore[method-assign]
    leader, follower = bench.submit("leader"), bench.submit("follower")
    bench.practice.stop.set()
    first.future.result(5)
    assert isinstance(leader.future.exception(5), MemoryError)
    assert follower.future.result(5).fallback == "practice with others was cut short"


def test_a_used_up_budget_is_a_fallback(bench: Bench) -> None:
    class Empty:
        def practice_left(self) -> bool:
            return False

        def practised(self, seconds: float) -> None:
            raise AssertionError

    case: Any = SimpleNamespace(practised=False, fallback=None, deadline=None)
    done = bench.scheduler.submit(lambda job: bench.room.practise(None, case, job), Empty())  # type: ignore[arg-type]
    done.future.result(5)
    assert "used up" in case.fallback


def test_practice_together_is_shared_out(bench: Bench) -> None:
    class Purse:
        used = 0.0

        def practice_left(self) -> bool:
            return True

        def practised(self, seconds: float) -> None:
            self.used += seconds

    purses = [Purse(), Purse()]
    first = bench.submit("first")
    until(lambda: bench.practice.batches == [["first"]])
    tasks = [bench.submit(str(i), purse=purse) for i, purse in enumerate(purses)]
    first.job.cancel()
    until(lambda: len(bench.practice.batches) == 2)
    time.sleep(0.05)
    bench.practice.stop.set()
    for task in tasks:
        task.future.result(5)
    assert purses[0].used == pytest.approx(purses[1].used, rel=0.2)


def test_the_earliest_time_budget_ends_it_for_all(bench: Bench) -> None:
    first = bench.submit("first")
    until(lambda: bench.practice.batches == [["first"]])
    soon = time.monotonic() + 0.2
    tasks = [bench.submit("a"), bench.submit("b", at=soon)]
    first.job.cancel()
    assert tasks[0].future.result(5).fallback == str(BudgetSpent("the time budget is spent"))
    assert tasks[1].future.result(5).fallback
