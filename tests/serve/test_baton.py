"""One computes at a time; who is next is told by rank, then by who came first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from waiting import until

from quickstudy.serve import baton as module
from quickstudy.serve.baton import Baton, Runner


class Race:
    """Runners in threads; `order` is who computed when."""

    def __init__(self) -> None:
        self.baton = Baton()
        self.order: list[str] = []
        self.threads: list[threading.Thread] = []

    def run(self, runner: Runner, work: Callable[[], None]) -> None:
        def body() -> None:
            self.baton.take(runner)
            work()
            self.baton.give(runner)

        thread = threading.Thread(target=body)
        self.threads.append(thread)
        thread.start()
        # it has begun, waits, or has come to its end already
        until(lambda: runner.go.is_set() or runner in self.baton._waiting or not thread.is_alive())

    def says(self, name: str) -> Callable[[], None]:
        return lambda: self.order.append(name)

    def join(self) -> list[str]:
        for thread in self.threads:
            thread.join(5)
            assert not thread.is_alive()
        return self.order


@pytest.fixture
def race() -> Race:
    return Race()


def held(race: Race, practising: bool = False) -> Runner:
    """A runner of this thread that has the baton."""
    runner = Runner()
    race.baton.take(runner)
    if practising:
        race.baton.practise(runner)
    return runner


def test_a_sure_request_waits_for_one_step_of_practice(race: Race) -> None:
    holder = held(race, practising=True)
    race.run(Runner(), race.says("sure"))
    race.order.append("step")
    race.baton.pause(holder)
    race.order.append("next step")
    race.baton.give(holder)
    assert race.join() == ["step", "sure", "next step"]


def test_practice_does_not_interrupt_an_answer(race: Race) -> None:
    holder, other = held(race), Runner()
    other.practising = True
    race.run(other, race.says("practice"))
    race.baton.pause(holder)
    race.order.append("answer")
    race.baton.give(holder)
    assert race.join() == ["answer", "practice"]


def test_within_a_rank_the_earliest_goes_first(race: Race) -> None:
    holder = held(race)
    runners = [Runner() for _ in range(4)]
    for number in (2, 0, 3, 1):
        race.run(runners[number], race.says(str(number)))
    race.baton.pause(holder)  # it came before all of them
    assert race.order == []
    race.baton.give(holder)
    assert race.join() == ["0", "1", "2", "3"]


def test_practice_is_done_in_the_order_in_which_it_was_entered(race: Race) -> None:
    holder, early, late = held(race), Runner(), Runner()
    race.baton.practise(late)
    race.baton.practise(early)
    race.run(early, race.says("entered second"))
    race.run(late, race.says("entered first"))
    race.baton.give(holder)
    assert race.join() == ["entered first", "entered second"]


def test_a_long_answer_lets_others_have_their_turn(race: Race) -> None:
    holder = held(race)
    race.run(Runner(), race.says("other"))
    holder.computed = module.SLICE - 0.01
    race.baton.pause(holder)
    assert race.order == []
    holder.computed = module.SLICE + 0.01
    race.baton.pause(holder)
    assert race.order == ["other"]
    race.baton.give(holder)
    race.join()


def test_whoever_has_to_end_goes_first(race: Race) -> None:
    holder, cancelled = held(race), Runner()
    race.run(Runner(), race.says("sure"))
    cancelled.practising = True
    race.run(cancelled, race.says("cancelled"))
    race.baton.hurry(cancelled)
    race.baton.pause(holder)
    race.baton.give(holder)
    assert race.join() == ["cancelled", "sure"]


def test_waiting_ends_with_the_time_budget(race: Race) -> None:
    """Practice that may not go on for others' sake comes to its end between their steps."""
    first = Runner()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            time.sleep(0.001)
            race.baton.pause(first)

    practice = held(race, practising=True)
    race.run(first, work)
    race.baton.pause(practice, until=time.monotonic() + 0.05)
    assert practice.hurried
    stop.set()
    race.baton.give(practice)
    race.join()


def test_who_has_begun_goes_before_who_has_not(race: Race) -> None:
    holder, fresh, begun = held(race), Runner(), Runner()
    begun.begun = True
    race.run(fresh, race.says("fresh"))
    race.run(begun, race.says("begun"))
    race.baton.give(holder)
    assert race.join() == ["begun", "fresh"]


def test_an_invited_one_computes_up_to_its_next_pause(race: Race) -> None:
    holder, first, second, practice = held(race), Runner(), Runner(), Runner()

    def work() -> None:
        race.order.append("invited")
        race.baton.pause(first)
        race.order.append("goes on")

    practice.practising = True
    race.run(practice, race.says("practice"))
    race.run(first, work)
    assert race.baton.invite(holder)
    race.order.append("holder")
    race.run(second, race.says("second"))
    assert race.baton.invite(holder)
    race.order.append("holder again")
    assert race.baton.invite(holder)
    assert not race.baton.invite(holder), "practice is not invited"
    race.baton.give(holder)
    order = ["invited", "holder", "goes on", "holder again", "second", "practice"]
    assert race.join() == order


def test_who_is_recalled_is_next_before_its_thread_comes(race: Race) -> None:
    holder, practice, sure = held(race), Runner(), Runner()
    practice.practising = True
    race.run(practice, race.says("practice"))
    race.baton.recall(sure)
    race.baton.recall(sure)  # once is enough
    race.baton.give(holder)
    time.sleep(0.02)
    assert race.order == []
    race.run(sure, race.says("sure"))
    assert race.join() == ["sure", "practice"]


def test_who_has_ended_or_is_there_is_not_recalled(race: Race) -> None:
    holder = held(race)
    race.baton.recall(holder)
    assert race.baton._waiting == []
    race.baton.give(holder)
    race.baton.recall(holder)
    race.run(Runner(), race.says("another"))
    assert race.join() == ["another"]


def test_who_falls_behind_lets_those_that_have_begun_go_first(race: Race) -> None:
    holder, begun = held(race), Runner()
    begun.begun = True
    race.run(begun, race.says("begun"))
    race.baton.pause(holder)
    assert race.order == []
    race.baton.fall_behind(holder)
    race.baton.pause(holder)
    assert race.order == ["begun"]
    race.baton.give(holder)
    race.join()


def test_while_free_others_compute(race: Race) -> None:
    holder = held(race)
    race.run(Runner(), race.says("other"))
    with race.baton.free(holder):
        until(lambda: race.order == ["other"])
    race.baton.give(holder)
    race.join()


def test_only_one_computes_at_a_time(race: Race) -> None:
    inside, most = [0], [0]

    def worker(runner: Runner) -> Callable[[], None]:
        def work() -> None:
            for _ in range(20):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1
                runner.slice = -module.SLICE  # its slice is always over
                race.baton.pause(runner)

        return work

    for _ in range(8):
        runner = Runner()
        race.run(runner, worker(runner))
    race.join()
    assert most == [1]
