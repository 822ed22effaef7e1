"""Places, cancellation, practice budgets and the end, without a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from waiting import until

from quickstudy.errors import BudgetSpent, PracticeFailed
from quickstudy.serve.scheduler import (
    Cancelled,
    Draining,
    Job,
    QueueFull,
    Scheduler,
    Turn,
)


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler(places=3, practice_places=1)


def steps(stop: threading.Event, practise: bool = False) -> Callable[[Job], str]:
    """Work that goes on until it is told to stop."""

    def work(job: Job) -> str:
        turn = Turn(None, job)
        if practise:
            job.begin_practice()
        while not stop.is_set():
            turn.check()
            time.sleep(0.001)
        return "done"

    return work


def failure(future: Future[object]) -> BaseException | None:
    return future.exception(5)


class Purse:
    """So many seconds of practice."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def practice_left(self) -> bool:
        return self.seconds > 0

    def practised(self, seconds: float) -> None:
        self.seconds -= seconds


def test_work_is_done_and_its_place_is_free_again(scheduler: Scheduler) -> None:
    for _ in range(5):
        task = scheduler.submit(lambda job: job.queued)
        assert task.future.result(5) >= 0
    assert not scheduler.jobs


def test_a_fault_frees_the_place_and_the_baton(scheduler: Scheduler) -> None:
    for _ in range(5):
        task = scheduler.submit(lambda job: 1 / 0)
        assert isinstance(failure(task.future), ZeroDivisionError)
    assert scheduler.submit(lambda job: "next").future.result(5) == "next"


def test_there_are_only_so_many_places(scheduler: Scheduler) -> None:
    stop = threading.Event()
    tasks = [scheduler.submit(steps(stop)) for _ in range(3)]
    with pytest.raises(QueueFull) as full:
        scheduler.submit(steps(stop))
    assert 0 < full.value.retry_after <= 60
    stop.set()
    assert [task.future.result(5) for task in tasks] == ["done"] * 3
    scheduler.submit(steps(stop)).future.result(5)


def test_a_sure_request_is_answered_while_another_practises(scheduler: Scheduler) -> None:
    stop = threading.Event()
    practice = scheduler.submit(steps(stop, practise=True))
    until(lambda: scheduler.practising == 1)
    assert scheduler.submit(lambda job: "sure").future.result(5) == "sure"
    assert not practice.future.done()
    stop.set()
    practice.future.result(5)


def test_cancelled_work_ends_at_its_next_step(scheduler: Scheduler) -> None:
    never = threading.Event()
    tasks = [scheduler.submit(steps(never, practise=i == 0)) for i in range(3)]
    for task in reversed(tasks):
        task.job.cancel()
    assert all(isinstance(failure(task.future), Cancelled) for task in tasks)
    assert not scheduler.jobs


def test_what_is_cancelled_in_the_queue_never_begins(scheduler: Scheduler) -> None:
    stop, begun = threading.Event(), threading.Event()
    scheduler.submit(lambda job: stop.wait(5))
    waiting = scheduler.submit(lambda job: begun.set())
    waiting.job.cancel()
    stop.set()
    assert isinstance(failure(waiting.future), Cancelled)
    assert not begun.is_set()


def test_no_handler_of_faults_takes_a_cancellation(scheduler: Scheduler) -> None:
    assert not issubclass(Cancelled, Exception)


class TestPractice:
    def test_only_so_many_wait_for_it(self, scheduler: Scheduler) -> None:
        stop = threading.Event()
        first = scheduler.submit(steps(stop, practise=True))
        until(lambda: scheduler.practising == 1)
        second = scheduler.submit(steps(stop, practise=True))
        error = failure(second.future)
        assert isinstance(error, PracticeFailed)
        assert "already wait for practice" in str(error)
        stop.set()
        first.future.result(5)

    def test_a_used_up_budget_forbids_it(self, scheduler: Scheduler) -> None:
        task = scheduler.submit(steps(threading.Event(), practise=True), Purse(0))
        assert isinstance(failure(task.future), BudgetSpent)

    def test_a_budget_is_used_up_while_it_lasts(self, scheduler: Scheduler) -> None:
        purse = Purse(0.05)
        task = scheduler.submit(steps(threading.Event(), practise=True), purse)
        assert isinstance(failure(task.future), BudgetSpent)
        assert task.job.computed >= 0.05

    def test_answers_cost_no_practice(self, scheduler: Scheduler) -> None:
        purse, stop = Purse(1), threading.Event()
        task = scheduler.submit(steps(stop), purse)
        until(lambda: task.job.computed > 0)
        stop.set()
        task.future.result(5)
        assert purse.seconds == 1

    def test_time_spent_waiting_for_others_costs_nothing(self, scheduler: Scheduler) -> None:
        purse = Purse(10)

        def work(job: Job) -> None:
            job.begin_practice()
            later: Future[None] = Future()
            threading.Timer(0.1, later.set_result, [None]).start()
            Turn(None, job).result(later)

        scheduler.submit(work, purse).future.result(5)
        assert purse.seconds > 9.95


class TestElsewhere:
    def test_while_one_waits_others_compute(self, scheduler: Scheduler) -> None:
        later: Future[str] = Future()
        waiting = scheduler.submit(lambda job: Turn(None, job).result(later))
        assert scheduler.submit(lambda job: "other").future.result(5) == "other"
        later.set_result("at last")
        assert waiting.future.result(5) == "at last"

    @pytest.mark.parametrize("error", [TimeoutError("it took too long"), BudgetSpent("spent")])
    def test_its_fault_comes_back(self, scheduler: Scheduler, error: Exception) -> None:
        later: Future[str] = Future()
        later.set_exception(error)
        task = scheduler.submit(lambda job: Turn(None, job).result(later))
        assert failure(task.future) is error

    def test_who_is_cancelled_waits_no_longer(self, scheduler: Scheduler) -> None:
        task = scheduler.submit(lambda job: Turn(None, job).result(Future()))
        time.sleep(0.01)
        task.job.cancel()
        assert isinstance(failure(task.future), Cancelled)


def test_a_deadline_is_kept(scheduler: Scheduler) -> None:
    def work(job: Job) -> None:
        Turn(time.monotonic() - 1, job).check()

    assert isinstance(failure(scheduler.submit(work).future), BudgetSpent)


class TestEnd:
    def test_what_is_in_work_goes_on_and_nothing_begins(self, scheduler: Scheduler) -> None:
        stop = threading.Event()
        task = scheduler.submit(steps(stop))
        scheduler.drain()
        with pytest.raises(Draining):
            scheduler.submit(steps(stop))
        stop.set()
        assert task.future.result(5) == "done"

    def test_the_rest_is_cancelled(self, scheduler: Scheduler) -> None:
        tasks = [scheduler.submit(steps(threading.Event())) for _ in range(3)]
        scheduler.drain()
        scheduler.cancel_all()
        assert all(isinstance(failure(task.future), Cancelled) for task in tasks)


def test_threads_are_used_again(scheduler: Scheduler) -> None:
    def thread(_: Job) -> int:
        return threading.get_ident()

    first = scheduler.submit(thread).future.result(5)
    until(lambda: scheduler._threads._idle == 1)
    assert scheduler.submit(thread).future.result(5) == first
