"""Answers that wait together are decoded together; what befalls one leaves the others."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import tiny_model
from waiting import until

from quickstudy.decoding import Ask, Decoder, Generation, Join, Listener, Order
from quickstudy.model import Prefix
from quickstudy.serve import table
from quickstudy.serve.scheduler import Cancelled, Job, Scheduler, Task, Turn
from quickstudy.serve.table import Table

MODEL = tiny_model()


def turns(order: Order) -> list[str]:
    return [MODEL.decode(ask.turn) for ask in order.asks]


class Noting(Decoder):
    """Notes the turns with which batches begin, and those that come late; it may be held up."""

    def __init__(self) -> None:
        super().__init__(MODEL)
        self.batches: list[list[str]] = []
        self.late: list[str] = []
        self.joined: list[int] = []  # after which pass
        self.most = 0  # places of cache in use
        self.panic: BaseException | None = None
        self.go, self.inside = threading.Event(), threading.Event()
        self.go.set()

    def decode_orders(self, orders: Sequence[Order], join: Join | None = None) -> Any:
        self.batches.append([text for order in orders for text in turns(order)])
        self.inside.set()
        assert self.go.wait(5)

        passes = 0
        panic, self.panic = self.panic, None
        if panic:
            raise panic

        def noted(rows: int, places: int) -> Order | None:
            nonlocal passes
            passes += 1
            order = join(rows, places) if join else None
            if order:
                self.late += turns(order)
                self.joined.append(passes)
            return order

        return super().decode_orders(orders, noted)

    def _pass(self, batch: Any) -> None:
        super()._pass(batch)
        self.most = max(self.most, batch.seen.numel())


class Hall:
    """A table, and somebody who keeps the baton until all that shall wait are there."""

    def __init__(self, together: int = 8) -> None:
        self.scheduler = Scheduler(places=16, practice_places=16)
        self.decoder = Noting()
        self.table = Table(self.decoder, together)
        self.open = threading.Event()
        keeps = threading.Event()

        def keep(_: Job) -> None:
            keeps.set()
            assert self.open.wait(5)

        self.scheduler.submit(keep)
        assert keeps.wait(5)

    def ask(
        self,
        *texts: str,
        ids: Sequence[int] | None = None,
        most: int = 12,
        prefix: Prefix | None = None,
        listener: Listener | None = None,
    ) -> Task[list[Generation]]:
        asks = [Ask(ids or MODEL.encode(text), listener=listener) for text in texts]

        def work(job: Job) -> list[Generation]:
            return self.table.seat(job).decode(
                prefix, asks, max_new_tokens=most, deadline=Turn(None, job)
            )

        before = len(self.scheduler.baton._waiting)
        task = self.scheduler.submit(work)
        until(lambda: self.open.is_set() or len(self.scheduler.baton._waiting) > before)
        return task


def alone(text: str, most: int = 12) -> tuple[int, ...]:
    hall = Hall()
    hall.open.set()
    ((said,),) = [hall.ask(text, most=most).future.result(5)]
    return said.ids


def told(task: Task[list[Generation]]) -> list[tuple[int, ...]]:
    return [one.ids for one in task.future.result(5)]


def test_those_that_wait_are_decoded_together() -> None:
    hall, texts = Hall(), ["a", "another", "the third one"]
    tasks = [hall.ask(text) for text in texts]
    hall.open.set()
    assert [told(task) for task in tasks] == [[alone(text)] for text in texts]
    assert hall.decoder.batches == [texts]


@pytest.mark.parametrize("together", [1, 2, 8])
def test_whoever_comes_later_joins_if_there_is_room(together: int) -> None:
    hall = Hall(together)
    hall.decoder.go.clear()
    first = hall.ask("a")
    hall.open.set()
    assert hall.decoder.inside.wait(5)
    others = [hall.ask("b", most=30), hall.ask("c")]
    until(lambda: len(hall.scheduler.baton._waiting) == 2)
    hall.decoder.go.set()
    expected = [[alone("a")], [alone("b", most=30)], [alone("c")]]
    assert [told(task) for task in (first, *others)] == expected
    if together == 1:
        assert hall.decoder.batches == [["a"], ["b"], ["c"]]
        assert hall.decoder.late == []
    else:  # with two places the third comes when one has ended
        assert hall.decoder.batches == [["a"]]
        assert hall.decoder.late == ["b", "c"]


def test_the_next_one_is_not_passed_by_smaller_ones() -> None:
    """Else one of many rows would wait for ever."""
    hall = Hall(together=2)
    hall.decoder.go.clear()
    first = hall.ask("a")
    hall.open.set()
    assert hall.decoder.inside.wait(5)
    others = [hall.ask("b", "c"), hall.ask("d")]
    hall.decoder.go.set()
    assert told(others[0]) == [alone("b"), alone("c")]
    assert told(first) == [alone("a")]
    assert told(others[1]) == [alone("d")]
    assert hall.decoder.batches == [["a"], ["b", "c"], ["d"]]


@pytest.mark.parametrize(
    ("together", "batches"),
    [
        (1, [["a"], ["b", "c"], ["d"]]),
        (4, [["a", "b", "c", "d"]]),
        (3, [["a", "b", "c"], ["d"]]),
    ],
)
def test_rows_are_counted(together: int, batches: list[list[str]]) -> None:
    """A request of many rows is never parted."""
    hall = Hall(together)
    tasks = [hall.ask("a"), hall.ask("b", "c"), hall.ask("d")]
    hall.open.set()
    assert [told(task) for task in tasks] == [
        [alone("a")],
        [alone("b"), alone("c")],
        [alone("d")],
    ]
    assert hall.decoder.batches == batches


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("when", ["before", "inside"])
def test_who_is_not_waited_for_any_more(gone: int, when: str) -> None:
    hall = Hall()
    hall.decoder.go.clear()
    tasks = [hall.ask(text) for text in "abc"]
    if when == "before":
        tasks[gone].job.cancel()
    hall.open.set()
    assert hall.decoder.inside.wait(5)
    if when == "inside":
        tasks[gone].job.cancel()
    hall.decoder.go.set()
    for number, (task, text) in enumerate(zip(tasks, "abc", strict=True)):
        if number != gone:
            assert told(task) == [alone(text)]
        else:
            with pytest.raises(Cancelled):
                task.future.result(5)
    assert not hall.scheduler.jobs


def test_all_give_up() -> None:
    hall = Hall()
    hall.decoder.go.clear()
    tasks = [hall.ask(text) for text in "abc"]
    hall.open.set()
    assert hall.decoder.inside.wait(5)
    for task in tasks:
        task.job.cancel()
    hall.decoder.go.set()
    for task in tasks:
        with pytest.raises(Cancelled):
            task.future.result(5)
    assert told(hall.ask("d")) == [alone("d")], "the place is free"


def test_a_fault_is_its_own() -> None:
    hall = Hall()
    tasks = [hall.ask("a"), hall.ask("b", ids=[10**6]), hall.ask("c")]
    hall.open.set()
    assert [told(tasks[0]), told(tasks[2])] == [[alone("a")], [alone("c")]]
    with pytest.raises(IndexError):
        tasks[1].future.result(5)


def test_nobody_waits_for_company() -> None:
    hall = Hall()
    hall.open.set()
    assert told(hall.ask("a")) == [alone("a")]


def test_who_ends_first_is_told_first() -> None:
    """And while the others go on, who has come later has a turn."""
    hall = Hall()
    short, long = hall.ask("a", most=2), hall.ask("b", most=4000)
    hall.open.set()
    assert len(told(short)[0]) <= 2
    assert not long.future.done()
    assert hall.scheduler.submit(lambda job: "served").future.result(5) == "served"
    assert not long.future.done(), "it is still in work"
    long.job.cancel()
    with pytest.raises(Cancelled):
        long.future.result(5)


def test_a_batch_is_bounded_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short rows are padded to the longest: prefix, turn and what may be written."""
    monkeypatch.setattr(table, "PLACES", 2 * (10 + 2 + 12) + 1)
    hall = Hall()
    lengths = (10, 4, 30, 10)
    tasks = [hall.ask(f"{n:02}", prefix=MODEL.run(tuple(range(n)))) for n in lengths]
    hall.open.set()
    for task in tasks:
        task.future.result(5)
    assert hall.decoder.batches[0] == ["10", "04"]
    assert [text for b in hall.decoder.batches[1:] for text in b] + hall.decoder.late == [
        "30",
        "10",
    ]
    assert hall.decoder.most <= table.PLACES


def test_a_flood_of_short_answers_does_not_stop_a_long_one() -> None:
    """One joins after each pass, be it over at once."""
    hall = Hall()
    hall.decoder.go.clear()
    long = hall.ask("a", most=40)
    hall.open.set()
    assert hall.decoder.inside.wait(5)
    short = [hall.ask("b", most=1) for _ in range(12)]
    until(lambda: len(hall.scheduler.baton._waiting) == len(short))
    hall.decoder.go.set()
    assert [told(task) for task in short] == [[alone("b", most=1)]] * 12
    assert told(long) == [alone("a", most=40)]
    assert hall.decoder.batches == [["a"]]
    # each came after a pass of its own
    assert len(set(hall.decoder.joined)) == 12


def test_whoever_has_been_told_is_forgotten() -> None:
    """A batch that others keep joining may last for hours."""
    hall = Hall(together=2)
    hall.decoder.go.clear()
    long = hall.ask("a", most=200)
    hall.open.set()
    assert hall.decoder.inside.wait(5)
    gone: list[weakref.ref[Prefix]] = []
    hall.decoder.go.set()
    for text in "bcde":
        prefix = MODEL.run(tuple(MODEL.encode(text * 5)))
        gone.append(weakref.ref(prefix))
        hall.ask(text, most=3, prefix=prefix).future.result(5)
        del prefix
    # the last of them leaves the batch with its next passes
    until(lambda: gc.collect() >= 0 and all(one() is None for one in gone))
    assert not long.future.done()
    long.job.cancel()
    with pytest.raises(Cancelled):
        long.future.result(5)


def test_a_fault_in_one_row_is_its_own() -> None:
    hall = Hall()

    def broken(ids: Sequence[int]) -> bool:
        raise ValueError("mine alone")

    heard: list[int] = []
    tasks = [
        hall.ask("a", listener=lambda ids: heard.append(len(ids)) or False),
        hall.ask("b", listener=broken),
        hall.ask("c"),
    ]
    hall.open.set()
    assert [told(tasks[0]), told(tasks[2])] == [[alone("a")], [alone("c")]]
    with pytest.raises(ValueError, match="mine alone"):
        tasks[1].future.result(5)
    assert heard == sorted(set(heard)), "no words twice"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_panic_costs_the_batch_and_not_the_server() -> None:
    """The grammar engine's are no Exception."""

    class Panic(BaseException):
        pass

    hall = Hall(together=1)
    hall.decoder.panic = Panic("the engine's")
    tasks = [hall.ask("a"), hall.ask("b")]
    hall.open.set()
    with pytest.raises(RuntimeError, match="cut short"):
        tasks[0].future.result(5)
    assert told(tasks[1]) == [alone("b")]
    assert told(hall.ask("c")) == [alone("c")]
