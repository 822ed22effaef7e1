"""Where answers wait to be decoded; those that wait together are decoded as one batch.

The batch computes in a thread of its own and has its own place among those who wait for the baton
(`baton`): behind all that came before its first answer, so that they read their prompts and come
here too, or at once if it is full. As long as it has room it lets one who comes later read the
prompt between two passes, and takes it in. Whoever's rows have ended is told so at once. It never
draws a new ticket for having computed long: that would let all who wait read before its next pass.
"""

from __future__ import annotations

import logging
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

log = logging.getLogger(__name__)

# Places of key/value cache a batch, rows times the longest row: shorter ones are padded to it
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
    done: Future[Said] = field(default_factory=Future)

    @property
    def rows(self) -> int:
        return len(self.order.asks)

    @property
    def longest(self) -> int:
        """Tokens of the longest row, as long as it may become."""
        order = self.order
        read = (len(p.ids) + len(a.turn) for p, a in zip(order.prefixes, order.asks, strict=True))
        return max(read) + order.max_new_tokens

    def tell(self, said: Said) -> None:
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

    def decode(self, order: Order, job: Job) -> Said:
        """Decodes alone or among others; meanwhile the job has no baton.

        Raises:
            Cancelled: if nobody wants the answer any more.
        """
        entry, baton = _Entry(order, job), job.scheduler.baton
        with self._lock:
            self._waiting.append(entry)
            if self._serving or self._runner:
                self._hurry_if_full(baton)
            else:
                self._await_turn(baton)
                job.scheduler.aside(partial(self._serve, baton, self._runner))
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

    def _await_turn(self, baton: Baton) -> None:
        self._runner = Runner()
        baton.recall(self._runner)
        self._hurry_if_full(baton)

    def _hurry_if_full(self, baton: Baton) -> None:
        if self._runner and self._rows() >= self.together:
            baton.hurry(self._runner)

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
            except BaseException:  # the grammar engine's panics are no Exception
                log.exception("a batch was cut short")
            for entry in batch:  # after whatever fault nobody may wait for ever
                entry.tell(RuntimeError("decoding was cut short"))
            ended = runner
            with self._lock:  # from here on another thread may serve
                self._serving = False
                if self._waiting:
                    self._await_turn(baton)
                runner = self._runner
            baton.give(ended)

    def _next(self, batch: Sequence[_Entry]) -> _Entry | None:
        """The first that waits, if there is room for it beside a batch that has not begun."""
        rows = sum(entry.rows for entry in batch)
        return self._beside(rows, max((entry.longest for entry in batch), default=0))

    def _beside(self, rows: int, places: int) -> _Entry | None:
        """The first that waits, if there is room for it. Nobody passes it, else it never fits."""
        with self._lock:
            if not self._waiting:
                return None
            entry = self._waiting[0]
            whole = rows + entry.rows
            fits = whole <= self.together and whole * max(places, entry.longest) <= PLACES
            return self._waiting.pop(0) if fits or not rows else None

    def _decode(self, batch: list[_Entry], baton: Baton, runner: Runner) -> None:
        """Decodes a batch and those that join it; `batch` is who has not been told yet."""

        def order(entry: _Entry) -> Order:
            def ended(said: Said) -> None:
                if entry in batch:
                    batch.remove(entry)
                # it goes on before the next pass, and practice does not come between
                entry.job.begun = True
                baton.fall_behind(runner)
                baton.recall(entry.job)
                entry.tell(said)

            deadline = _Beside(entry.order.deadline.at, entry.job, baton, runner)
            return replace(entry.order, deadline=deadline, ended=ended)

        def join(rows: int, places: int) -> Order | None:
            baton.pause(runner)  # those that have been told go first
            if rows + self._rows() < self.together:
                baton.invite(runner)
            entry = self._beside(rows, places)
            if entry is None:
                return None
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
