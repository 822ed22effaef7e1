"""Where answers wait to be decoded; those that wait together are decoded as one batch.

The batch computes in a thread of its own and has its own place among those who wait for the baton
(`baton`): behind all that came before its first answer, so that they read their prompts and come
here too, or at once if it is full. As long as it has room it lets those who come later read their
prompts between two passes, and takes them in. Whoever's rows have ended is told so at once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

from quickstudy.decoding import Deadline, Decoder, Join, Order, Said
from quickstudy.errors import PracticeFailed
from quickstudy.serve.baton import Baton, Runner
from quickstudy.serve.scheduler import Cancelled, Job
from quickstudy.together import Through, decoded, raised

# Places of key/value cache a batch, rows times the longest prefix: shorter ones are padded to it
PLACES = 1 << 15


class _Left(PracticeFailed):
    """Nobody waits for these rows any more, so they end."""


@dataclass(frozen=True)
class _Beside(Deadline):
    """The deadline of one answer in a batch; others have their turn at its checks."""

    job: Job | None = None  # always given, as the others
    baton: Baton | None = None
    runner: Runner | None = None

    def check(self) -> None:
        assert self.job is not None
        assert self.baton is not None
        assert self.runner is not None
        self.baton.pause(self.runner)
        if self.job.cancelled:
            raise _Left("nobody waits for it")
        super().check()


@dataclass(eq=False)
class _Entry:
    order: Order
    job: Job
    done: Future[Said | Exception] = field(default_factory=Future)

    @property
    def rows(self) -> int:
        return len(self.order.asks)

    @property
    def longest(self) -> int:
        return max(len(prefix.ids) for prefix in self.order.prefixes)

    def tell(self, said: Said | Exception) -> None:
        if not self.done.done():
            self.done.set_result(said)


class Table:
    """Decoding for at most `together` rows at once; one answer may have more."""

    def __init__(self, decoder: Decoder, together: int) -> None:
        self.decoder, self.together = decoder, together
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._serving = False
        self._runner: Runner | None = None  # who waits with the next batch

    def seat(self, job: Job) -> Decoder:
        """The decoder of one request, which decodes along with others."""
        return _Seat(self, job)

    def decode(self, order: Order, job: Job) -> Said | Exception:
        """Decodes alone or among others; meanwhile the job has no baton.

        Raises:
            Cancelled: if nobody wants the answer any more.
        """
        entry, scheduler = _Entry(order, job), job.scheduler
        with self._lock:
            self._waiting.append(entry)
            if not self._serving and self._runner is None:
                self._runner = Runner()
                scheduler.aside(partial(self._serve, scheduler.baton, self._runner))
            if self._runner and self._rows() >= self.together:
                scheduler.baton.hurry(self._runner)
        try:
            said = job.result(entry.done)
            if job.cancelled:
                raise Cancelled
            return said
        finally:
            with self._lock:
                if entry in self._waiting:
                    self._waiting.remove(entry)

    def _rows(self) -> int:
        return sum(entry.rows for entry in self._waiting)

    def _serve(self, baton: Baton, runner: Runner | None) -> None:
        """Decodes batches as long as anybody waits."""
        while runner:
            baton.take(runner)
            runner.hurried = False
            batch: list[_Entry] = []
            try:
                with self._lock:
                    self._serving, self._runner = True, None
                while entry := self._next(batch):
                    batch.append(entry)
                self._decode(batch, baton, runner)
            finally:
                for entry in batch:  # after whatever fault nobody may wait for ever
                    entry.tell(RuntimeError("decoding was cut short"))
                baton.give(runner)
                with self._lock:  # from here on another thread may serve
                    self._serving = False
                    runner = self._runner = Runner() if self._waiting else None

    def _next(self, batch: Sequence[_Entry]) -> _Entry | None:
        """The first that waits, if there is room for it beside the batch."""
        rows = sum(entry.rows for entry in batch)
        return self._beside(rows, max((entry.longest for entry in batch), default=0))

    def _beside(self, rows: int, places: int) -> _Entry | None:
        """The first that waits, if there is room for it; none before it, so it comes to be."""
        with self._lock:
            if not self._waiting:
                return None
            entry = self._waiting[0]
            whole = rows + entry.rows
            fits = whole <= self.together and whole * max(places, entry.longest) <= PLACES
            return self._waiting.pop(0) if fits or not rows else None

    def _decode(self, batch: list[_Entry], baton: Baton, runner: Runner) -> None:
        def order(entry: _Entry) -> Order:
            deadline = _Beside(entry.order.deadline.at, entry.job, baton, runner)
            return replace(entry.order, deadline=deadline, ended=entry.tell)

        def join(rows: int, places: int) -> Order | None:
            baton.pause(runner)  # those that have been told go first
            for _ in range(rows + self._rows(), self.together):
                if not baton.invite(runner):
                    break
            entry = self._beside(rows, places)
            if entry is None:
                return None
            baton.fall_behind(runner)  # so that those in the batch go on as soon as they are told
            batch.append(entry)
            return order(entry)

        first = tuple(batch)
        if first:
            said = decoded(self.decoder, [order(entry) for entry in first], join)
            for entry, one in zip(first, said, strict=True):
                entry.tell(one)


class _Seat(Through):
    """One request's view of the table."""

    def __init__(self, table: Table, job: Job) -> None:
        super().__init__(table.decoder)
        self._table, self._job = table, job

    def decode_orders(self, orders: Sequence[Order], join: Join | None = None) -> list[Said]:
        return raised([self._table.decode(order, self._job) for order in orders])
