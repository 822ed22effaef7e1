"""Several pieces of work that decode now and then: what they wait for is decoded as one batch.

Each piece of work runs in a thread of its own, but one at a time and only until it decodes or
ends: the threads are a way to stop in the middle, not to compute at once. When all of them have
stopped, what they want to decode is decoded together.
"""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from llguidance import LLTokenizer

from quickstudy.decoding import Decoder, Join, Order, Said
from quickstudy.errors import PracticeFailed
from quickstudy.model import Prefix
from quickstudy.openmp import release_team

Work = Callable[[Decoder], None]


class _Abandoned(BaseException):
    """The whole is given up. No `Exception`: no work may take it for a fault of its own."""


def side_by_side(decoder: Decoder, works: Sequence[Work]) -> None:
    """Runs all works to their end; each is given a decoder that decodes along with the others.

    Raises:
        Exception: what the first work raised that did raise; the others came to their end.
    """
    runners: list[_Runner] = []
    try:
        for work in works:
            runners.append(_Runner(decoder, work))
        while waiting := [runner for runner in runners if runner.goes_on()]:
            orders = [order for runner in waiting for order in runner.orders]
            said = iter(decoded(decoder, orders))
            for runner in waiting:
                runner.said = [next(said) for _ in runner.orders]
    finally:
        for runner in runners:
            runner.abandon()
    for runner in runners:
        runner.ended.result()


def decoded(decoder: Decoder, orders: Sequence[Order], join: Join | None = None) -> list[Said]:
    """What comes of each order, or the fault of it; `join` as in `Decoder.decode_orders`."""
    said: dict[int, Said] = {}
    late: dict[int, Order] = {}  # not told yet
    numbers = itertools.count(len(orders))

    def noting(number: int, order: Order) -> Order:
        def ended(outcome: Said) -> None:
            if late.pop(number, None) is None:
                said[number] = outcome
            if order.ended:
                order.ended(outcome)

        return replace(order, ended=ended)

    def joined(rows: int, places: int) -> Order | None:
        order = join(rows, places) if join else None
        if order is None:
            return None
        number = next(numbers)
        late[number] = order
        return noting(number, order)

    noted = [noting(number, order) for number, order in enumerate(orders)]
    drawn = [order.generator.get_state() if order.generator else None for order in orders]
    try:
        return decoder.decode_orders(noted, joined if join else None)
    except Exception as error:
        fault = error.with_traceback(None)  # which would keep the batch's cache
    # a fault of the batch must cost nobody the answer: those not told yet are decoded alone
    for order in list(late.values()):
        outcome = _decoded_alone(decoder, order, fault)
        if order.ended:
            order.ended(outcome)
    if len(orders) == 1 and not late:
        return [said.get(0, fault)]
    for number, (order, state) in enumerate(zip(orders, drawn, strict=True)):
        if number not in said:
            if order.generator is not None and state is not None:
                order.generator.set_state(state)
            said[number] = _decoded_alone(decoder, order, fault)
    return [said[number] for number in range(len(orders))]


def _decoded_alone(decoder: Decoder, order: Order, fault: Exception) -> Said:
    """What comes of an order after a fault among others; no listener may hear words twice."""
    if any(ask.listener for ask in order.asks):
        return fault
    try:
        return decoder.decode_orders([replace(order, ended=None)])[0]
    except Exception as error:
        return error


def raised(said: Sequence[Said]) -> list[Said]:
    """What was decoded; raises the first fault that is no outcome."""
    told: list[Said] = []
    for one in said:
        if isinstance(one, Exception) and not isinstance(one, PracticeFailed):
            raise one
        told.append(one)
    return told


class Through(Decoder):
    """A decoder that keeps nothing itself: vocabulary and prefixes are another's."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder.model)
        self._decoder = decoder

    @property
    def vocabulary(self) -> LLTokenizer:
        return self._decoder.vocabulary

    def fixed_prefix(self, prompts: Sequence[Sequence[int]]) -> Prefix:
        return self._decoder.fixed_prefix(prompts)


class _Runner(Through):
    """One work in its thread; to the work it is the decoder."""

    def __init__(self, decoder: Decoder, work: Work) -> None:
        super().__init__(decoder)
        self.orders: Sequence[Order] = ()
        self.said: list[Said] = []
        self.ended: Future[None] = Future()
        self._abandoned = False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run, work), daemon=True)
        self._thread.start()

    def goes_on(self) -> bool:
        """Lets the work run until it decodes or ends; whether it waits for decoding then."""
        if not self.ended.done():
            release_team()
            self._go.release()
            self._stopped.acquire()
        return not self.ended.done()

    def abandon(self) -> None:
        """Ends the work where it decodes next."""
        self._abandoned = True
        self._go.release()
        self._thread.join()

    def _run(self, work: Work) -> None:
        self._go.acquire()
        try:
            if not self._abandoned:
                work(self)
            self.ended.set_result(None)
        except BaseException as error:
            self.ended.set_exception(error)
        finally:
            self._stopped.release()

    # --- what the work sees ---

    def decode_orders(self, orders: Sequence[Order], join: Join | None = None) -> list[Said]:
        if self._abandoned:
            raise _Abandoned
        self.orders = orders
        release_team()
        self._stopped.release()
        self._go.acquire()
        if self._abandoned:
            raise _Abandoned
        return raised(self.said)
