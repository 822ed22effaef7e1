"""Works side by side do what they do alone, in fewer passes; a fault of one is its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from conftest import tiny_model

from quickstudy.decoding import Ask, Deadline, Decoder, Join, Order
from quickstudy.errors import BudgetSpent
from quickstudy.together import decoded, side_by_side

MODEL = tiny_model()
TEXTS = ["One", "Another text", "A third", ""]


class Counting(Decoder):
    """Notes how many orders come at once."""

    def __init__(self) -> None:
        super().__init__(MODEL)
        self.sizes: list[int] = []

    def decode_orders(self, orders: Sequence[Order], join: Join | None = None) -> Any:
        self.sizes.append(len(orders))
        return super().decode_orders(orders, join)


def said(decoder: Decoder, text: str, deadline: Deadline | None = None) -> str:
    (made,) = decoder.decode(
        None, [Ask(MODEL.encode(f"{text}?"))], max_new_tokens=6, deadline=deadline or Deadline()
    )
    return made.text


def chains(found: dict[int, list[str]]) -> list[Callable[[Decoder], None]]:
    """The n-th work decodes n times, each time what it has said before."""

    def work(number: int) -> Callable[[Decoder], None]:
        def run(decoder: Decoder) -> None:
            text = TEXTS[number]
            for _ in range(number):
                text = said(decoder, text)
                found.setdefault(number, []).append(text)

        return run

    return [work(number) for number in range(len(TEXTS))]


def test_each_is_as_alone_and_they_share_batches() -> None:
    together: dict[int, list[str]] = {}
    decoder = Counting()
    side_by_side(decoder, chains(together))
    alone: dict[int, list[str]] = {}
    for work in chains(alone):
        work(Decoder(MODEL))
    assert together == alone
    assert decoder.sizes == [3, 2, 1]


def test_no_work() -> None:
    side_by_side(Decoder(MODEL), [])


def test_one_at_a_time() -> None:
    inside, most = [0], [0]

    def work(decoder: Decoder) -> None:
        for _ in range(3):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1
            said(decoder, "Now")

    side_by_side(Decoder(MODEL), [work] * 4)
    assert most == [1]


def test_an_error_of_one_is_raised_when_the_others_are_done() -> None:
    done = []

    def good(decoder: Decoder) -> None:
        said(decoder, "a")
        done.append(said(decoder, "b"))

    def bad(decoder: Decoder) -> None:
        said(decoder, "a")
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        side_by_side(Decoder(MODEL), [good, bad, good])
    assert len(done) == 2


def test_time_runs_out_for_one() -> None:
    told: list[str] = []

    def late(decoder: Decoder) -> None:
        with pytest.raises(BudgetSpent):
            said(decoder, "a", Deadline.after(0))
        told.append("late")

    side_by_side(Decoder(MODEL), [late, lambda decoder: told.append(said(decoder, "a"))])
    assert sorted(told) == sorted(["late", said(Decoder(MODEL), "a")])


def test_what_cannot_be_decoded_is_the_fault_of_one() -> None:
    found: list[Any] = []

    def refused(decoder: Decoder) -> None:
        with pytest.raises(IndexError):
            decoder.decode(None, [Ask([10**6])], max_new_tokens=4, deadline=Deadline())
        found.append("refused")

    side_by_side(Decoder(MODEL), [lambda decoder: found.append(said(decoder, "a")), refused])
    assert set(found) == {"refused", said(Decoder(MODEL), "a")}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_when_all_is_given_up_no_thread_is_left(error: type[BaseException]) -> None:
    before = threading.active_count()
    swallowed = []

    class Breaking(Decoder):
        def decode_orders(self, orders: Sequence[Order], join: Join | None = None) -> Any:
            raise error

    def work(decoder: Decoder) -> None:
        try:
            said(decoder, "a")
        except Exception as fault:  # as the cycle does, which lives on every fault of its own
            swallowed.append(fault)

    with pytest.raises(error):
        side_by_side(Breaking(MODEL), [work] * 3)
    assert threading.active_count() == before
    assert swallowed == []


@pytest.mark.parametrize("listens", [False, True])
def test_after_a_fault_all_are_decoded_again_but_where_words_were_heard(listens: bool) -> None:
    """Those that came late as well; nobody hears words twice."""

    class Failing(Decoder):
        def decode_orders(self, orders: Sequence[Order], join: Join | None = None) -> Any:
            if join:
                assert join(1, 1)
                raise MemoryError("a fault")
            return super().decode_orders(orders)

    told: list[Any] = []

    def order(text: str, listens: bool) -> Order:
        ask = Ask(MODEL.encode(text), listener=(lambda ids: False) if listens else None)
        return Order([MODEL.empty_prefix()], [ask], 6, Deadline(), ended=told.append)

    late = order("late", listens)
    (first,) = decoded(Failing(MODEL), [order("a", not listens)], lambda *_: late)
    text = "a" if listens else "late"
    again = Decoder(MODEL).decode_orders([order(text, False)])
    # one of the two was heard and has the fault, the other its answer
    heard, other = (told[0], first) if listens else (first, told[0])
    assert isinstance(heard, MemoryError)
    assert other == again[0]
